"""Texts cut into tokens, compiled: runs of letters and digits, and single characters of scripts written
without spaces (Han, kana). Lower case and compatibility forms come from :mod:`.folding`, while hashing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.leakage.folding import cells_of, folded, point_at, width_of
from dataset_guard.hashing.jit import inlined, kernel

_U64 = np.uint64
_FNV_START = _U64(0xCBF29CE484222325)
_FNV_PRIME = _U64(0x100000001B3)

ASCII = np.zeros(128, np.uint8)
"""The lower-cased letter or digit of each ASCII byte; 0 separates."""
for _byte in b"0123456789abcdefghijklmnopqrstuvwxyz":
    ASCII[_byte] = ASCII[ord(chr(_byte).upper())] = _byte

_IN_WORDS = (ASCII != 0).astype(np.uint8)
_BEYOND_ASCII = np.uint8(0x80)

FOREIGN = 1
BYTES_LOWERED = np.full(256, FOREIGN, np.uint8)
"""As ``ASCII``, but ``FOREIGN`` for a byte of a longer character."""
BYTES_LOWERED[:128] = ASCII


@inlined
def mixed(z: Any) -> Any:
    """The finalizer of SplitMix64: every bit of ``z`` changes every bit."""
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
def _foreign(data: Any, i: Any, stop: Any, fold: Any, tokens: Any, n: Any, word: Any, inside: Any) -> Any:
    """Read one character beyond ASCII; returns the next one's place, how many tokens, the word so far."""
    width = width_of(data[i])
    point = folded(point_at(data, np.int64(i), np.int64(stop), width), fold)
    kind = kind_of(point)
    if kind == 1:
        return i + _U64(width), n, (word ^ _U64(point)) * _FNV_PRIME, _U64(1)
    tokens[n] = word
    n += inside
    if kind == 2:
        tokens[n] = mixed(_U64(point) + _U64(0x9E3779B97F4A7C15))
        n += _U64(1)
    return i + _U64(width), n, _FNV_START, _U64(0)


@kernel
def _rest(data: Any, i: Any, stop: Any, fold: Any, tokens: Any, n: Any, word: Any, inside: Any) -> Any:
    """Read on up to ``stop``, where a word ends; returns how many tokens there are then."""
    while i < stop:
        lower = BYTES_LOWERED[data[i]]
        if lower == FOREIGN:
            i, n, word, inside = _foreign(data, i, stop, fold, tokens, n, word, inside)
            continue
        i += _U64(1)
        belongs = _U64(lower != 0)
        tokens[n] = word
        n += inside & (belongs ^ _U64(1))
        longer = (word ^ _U64(lower)) * _FNV_PRIME
        word = longer if belongs else _FNV_START
        inside = belongs
    tokens[n] = word
    return n + inside


@kernel
def _both(
    data: Any, i: Any, j: Any, most: Any, tokens: Any,
    n: Any, m: Any, word: Any, other: Any, inside: Any, within: Any,
) -> Any:  # fmt: skip
    """Read ASCII at ``i`` and at ``j``, at most ``most`` bytes of each; returns how many, and the new state.

    No call is made in here: what is kept over a call is kept in memory, which is slower than the product.
    """
    k = _U64(0)
    while k < most:
        left, right = data[i + k], data[j + k]
        if (left | right) >= _BEYOND_ASCII:
            break
        k += _U64(1)
        belongs, joins = _U64(_IN_WORDS[left]), _U64(_IN_WORDS[right])
        tokens[n] = word
        tokens[m] = other
        n += inside & ~belongs
        m += within & ~joins
        longer = (word ^ _U64(BYTES_LOWERED[left])) * _FNV_PRIME
        wider = (other ^ _U64(BYTES_LOWERED[right])) * _FNV_PRIME
        word = longer if belongs else _FNV_START
        other = wider if joins else _FNV_START
        inside, within = belongs, joins
    return k, n, m, word, other, inside, within


@inlined
def _between_words(data: Any, start: Any, stop: Any) -> Any:
    """The first byte from the middle on that separates words, where a text can be cut in two; or its end."""
    at = start + ((stop - start) >> _U64(1))
    while at < stop and BYTES_LOWERED[data[at]] != 0:
        at += _U64(1)
    return at


@kernel
def tokens_of(data: Any, start: Any, stop: Any, fold: Any, tokens: Any) -> Any:
    """Write the token hashes of one text; returns how many. ``tokens`` has room for two more than its bytes.

    The end of a word is no branch: a processor cannot foresee it, and each wrong guess costs ten bytes' time.
    What may be a token is written at every byte, and counted where it is one. And each byte of a word waits
    for the product before it, so both halves of a text are read side by side.
    """
    i, end = _U64(start), _U64(stop)  # without a sign: numba would look for negative indices
    middle = _between_words(data, i, end)
    room = middle - i + _U64(1)  # the second half's tokens go behind what the first half may write
    n, word, inside = _U64(0), _FNV_START, _U64(0)
    j, m, other, within = middle, room, _FNV_START, _U64(0)
    while i < middle and j < end:
        k, n, m, word, other, inside, within = _both(
            data, i, j, min(middle - i, end - j), tokens, n, m, word, other, inside, within
        )
        i += k
        j += k
        if i < middle and j < end:
            if data[i] >= _BEYOND_ASCII:
                i, n, word, inside = _foreign(data, i, end, fold, tokens, n, word, inside)
            else:
                j, m, other, within = _foreign(data, j, end, fold, tokens, m, other, within)
    n = _rest(data, i, middle, fold, tokens, n, word, inside)
    m = _rest(data, j, end, fold, tokens, m, other, within)
    for k in range(room, m):
        tokens[n] = tokens[k]
        n += _U64(1)
    return np.int64(n)


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
    """Room that the longest text needs: an item for each byte, and eight more, since kernels read words."""
    return int(np.diff(offsets).max(initial=0)) + 8


def windows_of(offsets: npt.NDArray[np.int64], size: int) -> list[tuple[int, int]]:
    """Ranges of texts of about ``size`` bytes together, at least one text each."""
    found, start, last = [], 0, len(offsets) - 1
    while start < last:
        stop = int(np.searchsorted(offsets, offsets[start] + size, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        found.append((start, stop))
        start = stop
    return found
