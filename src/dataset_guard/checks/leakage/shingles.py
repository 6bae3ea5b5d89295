"""Texts as sets of shingles, and their one-permutation MinHash signatures, compiled.

Lower-cased text is cut into tokens: runs of letters and digits, and single characters of scripts written
without spaces (Han, kana). A text of 12 tokens or more is the set of its 5-token windows; a shorter one the
set of its 6-byte windows after every run of other characters became one space. Shingles are 32-bit hashes.

Signatures: Li, Owen, Zhang 2012 (one permutation), Shrivastava 2017 (optimal densification).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.leakage.folding import Cells, cells_of, folded, point_at, width_of
from dataset_guard.jit import inlined, kernel

BINS = 128
BANDS = 32
ROWS_PER_BAND = BINS // BANDS
TOKENS = 5
SHORT = 12
BYTES = 6
_LIKELY_SHORT = 96

_U32 = np.uint32
_U64 = np.uint64
_EMPTY = _U32(0xFFFFFFFF)
_FNV_START = _U64(0xCBF29CE484222325)
_FNV_PRIME = _U64(0x100000001B3)

_ASCII = np.zeros(128, np.uint8)
"""The lower-cased letter or digit of each ASCII byte; 0 separates."""
for _byte in b"0123456789abcdefghijklmnopqrstuvwxyz":
    _ASCII[_byte] = _ASCII[ord(chr(_byte).upper())] = _byte

_FOREIGN = 1
_BYTES_LOWERED = np.full(256, _FOREIGN, np.uint8)
"""As ``_ASCII``; ``_FOREIGN`` for a byte of a longer character."""
_BYTES_LOWERED[:128] = _ASCII


@inlined
def _mixed(z: Any) -> Any:
    z = (z ^ (z >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> _U64(27))) * _U64(0x94D049BB133111EB)
    return z ^ (z >> _U64(31))


def _kind(point: Any) -> Any:
    """0 separates, 1 belongs to a word, 2 is a token of its own."""
    if point < 0x80:
        alone = (0x30 <= point <= 0x39) or (0x61 <= point <= 0x7A) or (0x41 <= point <= 0x5A)
        return 1 if alone else 0
    if (0x3040 <= point <= 0x30FF) or (0x3400 <= point <= 0x9FFF) or (0x20000 <= point <= 0x3FFFF):
        return 2
    if point < 0xC0 or (0x2000 <= point <= 0x2BFF) or (0x3000 <= point <= 0x303F):
        return 0
    return 0 if 0xFF00 <= point <= 0xFF0F else 1


kind_of = inlined(_kind)


def separates(point: int) -> bool:
    """Whether the character stands between words and in none."""
    return bool(_kind(point) == 0)


@kernel
def tokens_of(data: Any, start: int, stop: int, fold: Any, tokens: Any) -> int:
    """Write the token hashes of one text; returns how many. ``tokens`` has room for one more than its bytes.

    The end of a word is no branch: a processor cannot foresee it, and each wrong guess costs ten bytes' time.
    What may be a token is written at every byte, and counted where it is one.
    """
    n, i = 0, start
    word = _FNV_START
    inside = 0
    while i < stop:
        lower = _BYTES_LOWERED[data[i]]
        if lower == _FOREIGN:
            width = width_of(data[i])
            point = folded(point_at(data, i, stop, width), fold)
            i += width
            kind = kind_of(point)
            if kind == 1:
                word = (word ^ _U64(point)) * _FNV_PRIME
                inside = 1
                continue
            tokens[n] = word
            n += inside
            word = _FNV_START
            inside = 0
            if kind == 2:
                tokens[n] = _mixed(_U64(point) + _U64(0x9E3779B97F4A7C15))
                n += 1
            continue
        i += 1
        belongs = 1 if lower else 0
        tokens[n] = word
        n += inside & (1 - belongs)
        longer = (word ^ _U64(lower)) * _FNV_PRIME
        word = longer if belongs else _FNV_START
        inside = belongs
    if inside:
        tokens[n] = word
        n += 1
    return n


@inlined
def _write(point: Any, plain: Any, m: Any) -> Any:
    """Write one character as UTF-8; returns where the next one goes."""
    if point < 0x80:
        plain[m] = _ASCII[point]
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


def _lenders() -> npt.NDArray[np.uint8]:
    """For each empty bin the bins that it asks, in order: a fixed hash of (bin, attempt)."""
    with np.errstate(over="ignore"):
        asked = (np.arange(BINS, dtype=_U64)[:, None] << _U64(32)) + np.arange(1, 1 + 4 * BINS, dtype=_U64)
        asked = _mixed(asked * _U64(0x9E3779B97F4A7C15)) >> _U64(57)
    return np.asarray(asked, np.uint8)


_LENDERS = _lenders()


@kernel
def _densify(signature: Any) -> None:
    for j in range(BINS):
        if signature[j] == _EMPTY:
            for attempt in range(4 * BINS):
                source = _LENDERS[j, attempt]
                # Only bins that were filled by a shingle may lend; they are marked by an even value.
                if signature[source] != _EMPTY and signature[source] & _U32(1) == _U32(0):
                    signature[j] = signature[source] | _U32(1)
                    break


@kernel
def sign(ends: Any, shingles: Any, signatures: Any) -> None:
    """The signature of each text from its shingles, which end at ``ends``."""
    start = 0
    for i in range(len(ends)):
        signature = signatures[i]
        signature[:] = _EMPTY
        for t in range(start, ends[i]):
            h = _mixed(_U64(shingles[t]) * _U64(0x9E3779B97F4A7C15) + _U64(0x632BE59BD9B4E019))
            bin_ = h >> _U64(57)
            value = _U32((h >> _U64(20)) & _U64(0xFFFFFFFE))
            signature[bin_] = min(signature[bin_], value)
        if ends[i] > start:
            _densify(signature)
        start = ends[i]


@kernel
def _hashes(data: Any, start: int, stop: int, fold: Any, tokens: Any, plain: Any, out: Any) -> int:
    """Write a 64-bit number for each shingle of one text, to be mixed; returns how many. Windows roll."""
    m, n = 0, SHORT
    if stop - start <= _LIKELY_SHORT:  # most are: not cut twice
        m, n = _plain(data, start, stop, fold, plain)
    if n >= SHORT:
        n = tokens_of(data, start, stop, fold, tokens)
    if n >= SHORT:
        factor = _U64(0x9E3779B97F4A7C15)
        oldest = factor * factor * factor * factor
        h = _U64(0)
        for t in range(TOKENS - 1):
            h = h * factor + tokens[t]
        for t in range(n - TOKENS + 1):
            h = h * factor + tokens[t + TOKENS - 1]
            out[t] = h
            h -= tokens[t] * oldest
        return n - TOKENS + 1
    if m == 0:
        m, n = _plain(data, start, stop, fold, plain)
    if m >= 2 * BYTES:
        window = _U64(0)
        mask = (_U64(1) << _U64(8 * BYTES)) - _U64(1)
        head = _U64(BYTES) << _U64(8 * BYTES)
        for t in range(BYTES - 1):
            window = (window << _U64(8)) | _U64(plain[t])
        for t in range(m - BYTES + 1):
            window = ((window << _U64(8)) | _U64(plain[t + BYTES - 1])) & mask
            out[t] = (head | window) * _U64(0x9E3779B97F4A7C15)
        return m - BYTES + 1
    return 0


@kernel
def _mix_all(hashes: Any) -> Any:
    """Mix each hash in place and return the least. Loops without a dependency, which compile to SIMD."""
    for t in range(len(hashes)):
        hashes[t] = _mixed(hashes[t])
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
    scratch as long as the longest text.
    """
    at = 0
    for i in range(len(offsets) - 1):
        n = _hashes(data, offsets[i], offsets[i + 1], fold, tokens, plain, hashes)
        least = _mix_all(hashes[:n])
        rank[i] = _mixed(least + _U64(0x9E3779B97F4A7C15)) if n > 0 else _U64(0)
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


@kernel
def _cut(offsets: Any, data: Any, fold: Any, most: int, word: Any, tokens: Any, ends: Any) -> None:
    at = 0
    for i in range(len(offsets) - 1):
        n = min(tokens_of(data, offsets[i], offsets[i + 1], fold, word), most)
        tokens[at : at + n] = word[:n]
        at += n
        ends[i] = at


def cut(texts: Any, most: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """The hashes of the first ``most`` tokens of each text of an Arrow array: ``(ends, tokens)``."""
    offsets, data, fold = cells_of(texts)
    ends = np.empty(len(offsets) - 1, np.int64)
    tokens = np.empty(int(offsets[-1] - offsets[0]) + 1, np.uint64)
    _cut(offsets, data, fold, most, np.empty(longest_of(offsets), np.uint64), tokens, ends)
    return ends, tokens[: ends[-1] if len(ends) else 0].copy()


def longest_of(offsets: npt.NDArray[np.int64]) -> int:
    """Room that the longest text needs."""
    return int(np.diff(offsets).max(initial=0)) + 1


def windows_of(offsets: npt.NDArray[np.int64], size: int) -> list[tuple[int, int]]:
    """Ranges of texts of about ``size`` bytes together, at least one text each."""
    found, start, last = [], 0, len(offsets) - 1
    while start < last:
        stop = int(np.searchsorted(offsets, offsets[start] + size, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        found.append((start, stop))
        start = stop
    return found
