"""Candidate pairs by banded signatures, decided by exact Jaccard similarity; compiled.

No pair is believed because it shares a band: its shingle sets are compared, and only that joins rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.leakage.minhash import BANDS, BINS, ROWS_PER_BAND
from dataset_guard.hashing.jit import kernel

_U64 = np.uint64
_FEW = 2048
"""Texts with so many shingles together are compared by a table of twice as many slots, which L1 holds."""

_SLOTS_FOR_FEW_BITS = 12
_SLOTS_FOR_FEW = 1 << _SLOTS_FOR_FEW_BITS
_BANDS_AT_ONCE = 4  # 64 bytes of a signature
Ints = npt.NDArray[np.int64]


@kernel
def _band_keys(signatures: Any, first: int, keys: Any) -> None:
    """The keys of some bands from ``first`` on, shape (bands, texts).

    Together these bands are one cache line of each signature, which is fetched once.
    """
    for i in range(len(signatures)):
        for b in range(len(keys)):
            band = first + b
            h = _U64(band + 1)
            for r in range(ROWS_PER_BAND):
                h = (h ^ _U64(signatures[i, band * ROWS_PER_BAND + r])) * _U64(0x9E3779B97F4A7C15)
                h ^= h >> _U64(29)
            keys[b, i] = h | _U64(1)


@kernel
def _sort_one(i: int, starts: Any, ends: Any, shingles: Any, sizes: Any) -> None:
    """Sort a text's shingles in place and put the distinct ones first; ``sizes`` receives how many."""
    part = shingles[starts[i] : ends[i]]
    part.sort()
    n = 0
    for j in range(len(part)):
        if n == 0 or part[j] != part[n - 1]:
            part[n] = part[j]
            n += 1
    sizes[i] = n


@kernel
def _jaccard(a: Any, b: Any) -> float:
    i, j, both = 0, 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            both += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return both / (len(a) + len(b) - both)


@kernel
def _counted(a: Any, b: Any, table: Any) -> float:
    """The Jaccard similarity of two sets whose items may repeat, by a table of them: no sorting.

    An item of the table is a number of the comparison (30 bits), what is known of the shingle (2), and the
    shingle (32), so nothing has to be cleared between comparisons. Its last item is the number of the latest.
    """
    slots = _U64(_SLOTS_FOR_FEW)
    number = (table[slots] + _U64(1)) & _U64(0x3FFFFFFF)
    if number == _U64(0):
        table[:] = _U64(0)
        number = _U64(1)
    table[slots] = number
    mine, theirs, both = 0.0, 0.0, 0.0
    for second in range(2):
        for shingle in b if second else a:
            value = _U64(shingle)
            slot = (value * _U64(0x9E3779B97F4A7C15)) >> _U64(64 - _SLOTS_FOR_FEW_BITS)
            while table[slot] >> _U64(34) == number and table[slot] & _U64(0xFFFFFFFF) != value:
                slot = (slot + _U64(1)) & (slots - _U64(1))
            known = table[slot] >> _U64(32)
            if known >> _U64(2) != number:
                known = number << _U64(2)
            if not second and known & _U64(1) == _U64(0):
                mine += 1.0
                table[slot] = (known | _U64(1)) << _U64(32) | value
            if second and known & _U64(2) == _U64(0):
                theirs += 1.0
                both += float(known & _U64(1))
                table[slot] = (known | _U64(2)) << _U64(32) | value
    return both / (mine + theirs - both)


@kernel
def _similarity(
    i: int, starts: Any, ends: Any, shingles: Any, sizes: Any,
    j: int, other_starts: Any, other_ends: Any, other_shingles: Any, other_sizes: Any,
    table: Any,
) -> float:  # fmt: skip
    """The Jaccard similarity of two texts. Long ones are sorted for it, once for all comparisons."""
    if ends[i] - starts[i] + other_ends[j] - other_starts[j] <= _FEW:
        return _counted(shingles[starts[i] : ends[i]], other_shingles[other_starts[j] : other_ends[j]], table)
    if sizes[i] < 0:
        _sort_one(i, starts, ends, shingles, sizes)
    if other_sizes[j] < 0:
        _sort_one(j, other_starts, other_ends, other_shingles, other_sizes)
    return _jaccard(
        shingles[starts[i] : starts[i] + sizes[i]],
        other_shingles[other_starts[j] : other_starts[j] + other_sizes[j]],
    )


@kernel
def _agreement(a: Any, b: Any) -> int:
    """In how many bins two signatures agree: an estimate of their similarity that costs no sorting."""
    n = 0
    for k in range(BINS):
        n += a[k] == b[k]
    return n


@kernel
def _root(parent: Any, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def _join_band(
    keys: Any,
    slots: Any,
    last: Any,
    starts: Any,
    ends: Any,
    shingles: Any,
    sizes: Any,
    parent: Any,
    limit: float,
    signatures: Any,
    least: int,
    table: Any,
) -> None:
    """Compare each text with the first and the latest text of its bucket; join those that are similar.

    A slot holds half of a key beside the first text's number, so most of those that are not the bucket's are
    passed by without a look at that text. ``last`` is the latest text by the first.
    """
    mask, low = _U64(len(slots) - 1), _U64(0xFFFFFFFF)
    slots[:] = _U64(0)
    for i in range(len(keys)):
        if starts[i] == ends[i]:
            continue
        slot = (keys[i] >> _U64(17)) & mask
        half = keys[i] & ~low
        head: Any = -1
        while head < 0:
            held = slots[slot]
            if held == _U64(0):
                break
            if held & ~low == half and keys[(held & low) - _U64(1)] == keys[i]:
                head = np.int64((held & low) - _U64(1))
            slot = (slot + _U64(1)) & mask
        if head < 0:
            slots[slot] = half | _U64(i + 1)
            last[i] = i
            continue
        for turn in range(2):
            other = head if turn == 0 else last[head]
            if turn == 1 and other == head:
                break
            mine, theirs = _root(parent, i), _root(parent, other)
            if mine == theirs or _agreement(signatures[i], signatures[other]) < least:
                continue
            alike = _similarity(i, starts, ends, shingles, sizes, other, starts, ends, shingles, sizes, table)
            if alike >= limit:
                parent[max(mine, theirs)] = min(mine, theirs)
        last[head] = i


@kernel
def _match_band(
    keys: Any, other_keys: Any, heads: Any, following: Any,
    starts: Any, ends: Any, shingles: Any, sizes: Any,
    other_starts: Any, other_ends: Any, other_shingles: Any, other_sizes: Any,
    limit: float, depth: int, partner: Any, signatures: Any, other_signatures: Any, least: int, table: Any,
) -> None:  # fmt: skip
    """For each text, the first of at most ``depth`` others of its bucket that is similar."""
    mask = _U64(len(heads) - 1)
    for j in range(len(other_keys)):
        if other_starts[j] == other_ends[j]:
            continue
        slot = (other_keys[j] >> _U64(17)) & mask
        while heads[slot] >= 0 and other_keys[heads[slot]] != other_keys[j]:
            slot = (slot + _U64(1)) & mask
        following[j] = heads[slot]
        heads[slot] = j
    for i in range(len(keys)):
        if partner[i] >= 0 or starts[i] == ends[i]:
            continue
        slot = (keys[i] >> _U64(17)) & mask
        while heads[slot] >= 0 and other_keys[heads[slot]] != keys[i]:
            slot = (slot + _U64(1)) & mask
        j = heads[slot]
        tries = 0
        while j >= 0 and tries < depth:
            if _agreement(signatures[i], other_signatures[j]) < least:
                j = following[j]
                continue
            alike = _similarity(
                i, starts, ends, shingles, sizes,
                j, other_starts, other_ends, other_shingles, other_sizes,
                table,
            )  # fmt: skip
            if alike >= limit:
                partner[i] = j
                break
            j = following[j]
            tries += 1


class Texts:
    """Signatures, shape (texts, 128), and shingles of texts; ``rows`` are their row numbers."""

    def __init__(self, rows: Ints, signatures: Any, ends: Ints, shingles: Any) -> None:
        self.rows = rows
        self.signatures = signatures
        self.ends = ends
        self.starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
        self.shingles = shingles
        self.sizes = np.full(len(rows), -1, np.int64)  # distinct shingles; -1 until sorted

    def __len__(self) -> int:
        return len(self.rows)


def _slots(texts: int) -> int:
    return 1 << max(4, (2 * texts - 1).bit_length())


def _keys(signatures: Any) -> Iterator[npt.NDArray[np.uint64]]:
    """The key of every text, band by band; each is good until the next is asked for."""
    keys = np.empty((_BANDS_AT_ONCE, len(signatures)), np.uint64)
    for first in range(0, BANDS, _BANDS_AT_ONCE):
        _band_keys(signatures, first, keys)
        yield from keys


def _least_agreement(similarity: float) -> int:
    """Bins in which signatures of a similar pair agree, less five standard deviations of a short text's
    (about 45 bins hold shingles of their own).
    """
    deviation = (max(similarity * (1 - similarity), 0.05) / 45) ** 0.5
    return max(0, int(BINS * (similarity - 5 * deviation)))


def clusters(texts: Texts, similarity: float) -> Ints:
    """For each text, the first text of its cluster (itself when it is alone).

    Clusters are connected by pairs whose Jaccard similarity was computed and is at least ``similarity``.
    """
    parent = np.arange(len(texts), dtype=np.int64)
    last, table = np.empty(len(texts), np.int64), np.zeros(_SLOTS_FOR_FEW + 1, np.uint64)
    slots = np.empty(_slots(len(texts)), np.uint64)
    for keys in _keys(texts.signatures):
        _join_band(
            keys,
            slots,
            last,
            texts.starts,
            texts.ends,
            texts.shingles,
            texts.sizes,
            parent,
            similarity,
            texts.signatures,
            _least_agreement(similarity),
            table,
        )
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return parent


def matches(texts: Texts, others: Texts, similarity: float, *, depth: int = 16) -> Ints:
    """For each text, a similar one of ``others``, or -1; at most ``depth`` of a bucket are compared."""
    partner, table = np.full(len(texts), -1, np.int64), np.zeros(_SLOTS_FOR_FEW + 1, np.uint64)
    for keys, other_keys in zip(_keys(texts.signatures), _keys(others.signatures), strict=True):
        heads = np.full(_slots(len(others)), -1, np.int64)
        following = np.full(len(others), -1, np.int64)
        _match_band(
            keys, other_keys, heads, following,
            texts.starts, texts.ends, texts.shingles, texts.sizes,
            others.starts, others.ends, others.shingles, others.sizes,
            similarity, depth, partner, texts.signatures, others.signatures, _least_agreement(similarity),
            table,
        )  # fmt: skip
    return partner
