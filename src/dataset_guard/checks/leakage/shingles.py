"""Texts as sets of shingles, compiled.

A text of 12 tokens or more is the set of its 5-token windows; a shorter one the set of its 6-byte windows
after every run of other characters became one space. Shingles are 32-bit hashes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.leakage.folding import Cells, folded, point_at, width_of
from dataset_guard.checks.leakage.tokens import (
    ASCII,
    BYTES_LOWERED,
    FOREIGN,
    kind_of,
    longest_of,
    mixed,
    tokens_of,
)
from dataset_guard.hashing.byte_words import word_at
from dataset_guard.hashing.jit import inlined, kernel

TOKENS = 5
SHORT = 12
BYTES = 6
_LIKELY_SHORT = 96

_SPACE = np.uint8(0x20)
_BYTES_SPACED = np.where(BYTES_LOWERED == 0, _SPACE, BYTES_LOWERED)

_U32 = np.uint32
_U64 = np.uint64


@inlined
def _write(point: Any, plain: Any, m: Any) -> Any:
    """Write one character as UTF-8; returns where the next one goes."""
    if point < 0x80:
        plain[m] = ASCII[point]
        return m + 1
    following = 1 if point < 0x800 else 2 if point < 0x10000 else 3
    head = (0xC0, 0xE0, 0xF0)[following - 1]
    plain[m] = head | (point >> (6 * following))
    for k in range(following):
        plain[m + 1 + k] = 0x80 | ((point >> (6 * (following - 1 - k))) & 0x3F)
    return m + 1 + following


@kernel
def _plain(data: Any, start: int, stop: int, fold: Any, plain: Any) -> Any:
    """Write the text's bytes with one space for every run of separators; returns how many, and the tokens."""
    m, i = 0, start
    tokens, inside = 0, False
    while i < stop:
        width = width_of(data[i])
        point = np.int64(data[i]) if width == 1 else folded(point_at(data, i, stop, width), fold)
        kind = kind_of(point)
        if kind == 0:
            inside = False
            if m > 0 and plain[m - 1] != 0x20:
                plain[m] = 0x20
                m += 1
        else:
            tokens += kind == 2 or not inside
            inside = kind == 1
            m = _write(point, plain, m)
        i += width
    return m - 1 if m > 0 and plain[m - 1] == 0x20 else m, tokens


@kernel
def _ascii(data: Any, start: int, stop: int, plain: Any) -> Any:
    """As :func:`_plain`, for ASCII, without a branch, which a processor could not foresee; and whether it is.

    Numbers without a sign, or numba would ask of each index whether it counts from the end.
    """
    m, tokens, spaced, foreign = _U64(0), _U64(0), _U64(1), _U64(0)
    for i in range(_U64(start), _U64(stop)):
        byte = _BYTES_SPACED[data[i]]
        plain[m] = byte
        space = _U64(byte == _SPACE)
        foreign |= _U64(byte == FOREIGN)
        m += _U64(1) - (space & spaced)
        tokens += (space ^ _U64(1)) & spaced
        spaced = space
    return np.int64(m - spaced if m else m), np.int64(tokens), foreign == _U64(0)


@kernel
def _window_hashes(plain: Any, windows: int, out: Any) -> None:
    """The windows of ``BYTES`` bytes that begin at each of the first ``windows`` bytes, times a factor."""
    head, factor = _U64(BYTES) << _U64(8 * BYTES), _U64(0x9E3779B97F4A7C15)
    bytes_, pairs = _U64(0x00FF00FF00FF00FF), _U64(0x0000FFFF0000FFFF)
    for t in range(windows):
        word = word_at(plain, t)  # the first byte is to be the highest
        word = (word & bytes_) << _U64(8) | (word >> _U64(8)) & bytes_
        word = (word & pairs) << _U64(16) | (word >> _U64(16)) & pairs
        word = word << _U64(32) | word >> _U64(32)
        out[t] = (head | word >> _U64(64 - 8 * BYTES)) * factor


@kernel
def _token_windows(tokens: Any, windows: int, out: Any) -> None:
    """The first ``windows`` windows of ``TOKENS`` tokens, as a polynomial that rolls on.

    It rolls two windows at a time: each waits for the product before it, and so half as many wait.
    """
    factor = _U64(0x9E3779B97F4A7C15)
    square = factor * factor
    gone = square * square * factor
    h = _U64(0)
    for t in range(TOKENS):
        h = h * factor + tokens[t]
    out[0] = h
    for t in range(1, windows - 1, 2):
        first = tokens[t + TOKENS - 1] - tokens[t - 1] * gone
        second = tokens[t + TOKENS] - tokens[t] * gone
        out[t] = h * factor + first
        h = h * square + (first * factor + second)
        out[t + 1] = h
    if windows % 2 == 0:
        t = windows - 1
        out[t] = h * factor + (tokens[t + TOKENS - 1] - tokens[t - 1] * gone)


@kernel
def _hashes(data: Any, start: int, stop: int, fold: Any, tokens: Any, plain: Any, out: Any) -> int:
    """Write a 64-bit number for each shingle of one text, to be mixed; returns how many. Windows roll."""
    m, n = 0, SHORT
    if stop - start <= _LIKELY_SHORT:  # most are: not cut twice
        m, n, easy = _ascii(data, start, stop, plain)
        if not easy:
            m, n = _plain(data, start, stop, fold, plain)
    if n >= SHORT:
        n = tokens_of(data, start, stop, fold, tokens)
    if n >= SHORT:
        _token_windows(tokens, n - TOKENS + 1, out)
        return n - TOKENS + 1
    if m == 0:
        m, n = _plain(data, start, stop, fold, plain)
    if m >= 2 * BYTES:
        _window_hashes(plain, m - BYTES + 1, out)
        return m - BYTES + 1
    return 0


@kernel
def _mix_all(hashes: Any) -> Any:
    """Mix each hash in place and return the least. Loops without a dependency, which compile to SIMD."""
    for t in range(len(hashes)):
        hashes[t] = mixed(hashes[t])
    least = _U64(0xFFFFFFFFFFFFFFFF)
    for t in range(len(hashes)):
        least = min(least, hashes[t])
    return least


@kernel
def shingle(
    offsets: Any,
    data: Any,
    fold: Any,
    limit: Any,
    tokens: Any,
    plain: Any,
    hashes: Any,
    shingles: Any,
    ends: Any,
    rank: Any,
) -> None:
    """Shingles of each text ``data[offsets[i]:offsets[i + 1]]``, and its rank.

    ``ends[i]`` is where the shingles of text i end; a text with too little in it has none, nor has one whose
    rank is above ``limit``: nobody will keep it. ``rank`` mixes the least shingle, so it is equal for
    near-duplicates with the probability of their similarity. ``tokens``, ``plain`` and ``hashes`` are
    scratch of :func:`~dataset_guard.checks.leakage.tokens.longest_of` items.
    """
    at = 0
    for i in range(len(offsets) - 1):
        n = _hashes(data, offsets[i], offsets[i + 1], fold, tokens, plain, hashes)
        least = _mix_all(hashes[:n])
        rank[i] = mixed(least + _U64(0x9E3779B97F4A7C15)) if n > 0 else _U64(0)
        if n > 0 and rank[i] <= limit:
            for t in range(n):
                shingles[at + t] = _U32(hashes[t] & _U64(0xFFFFFFFF))
            at += n
        ends[i] = at


def ranks(cells: Cells) -> npt.NDArray[np.uint64]:
    """The rank of each text (:func:`shingle`); 0 for one with no shingle."""
    number, room = len(cells.offsets) - 1, longest_of(cells.offsets)
    rank, ends = np.empty(number, np.uint64), np.empty(number, np.int64)
    tokens, plain, hashes = np.empty(room, np.uint64), np.empty(room, np.uint8), np.empty(room, np.uint64)
    nothing = np.empty(0, np.uint32)
    shingle(*cells, _U64(0), tokens, plain, hashes, nothing, ends, rank)
    return rank
