"""Candidate pairs by banded signatures, decided by exact Jaccard similarity; compiled.

No pair is believed because it shares a band: its shingle sets are compared, and only that joins rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.leakage.minhash import BANDS, BINS, ROWS_PER_BAND
from dataset_guard.hashing.jit import kernel

_U64 = np.uint64
Ints = npt.NDArray[np.int64]


@kernel
def _band_keys(signatures: Any, band: int, keys: Any) -> None:
    for i in range(len(signatures)):
        h = _U64(band + 1)
        for r in range(ROWS_PER_BAND):
            h = (h ^ _U64(signatures[i, band * ROWS_PER_BAND + r])) * _U64(0x9E3779B97F4A7C15)
            h ^= h >> _U64(29)
        keys[i] = h | _U64(1)


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
    heads: Any,
    last: Any,
    starts: Any,
    ends: Any,
    shingles: Any,
    sizes: Any,
    parent: Any,
    limit: float,
    signatures: Any,
    least: int,
) -> None:
    """Compare each text with the first and the latest text of its bucket; join those that are similar."""
    mask = _U64(len(heads) - 1)
    for i in range(len(keys)):
        if starts[i] == ends[i]:
            continue
        slot = (keys[i] >> _U64(17)) & mask
        while heads[slot] >= 0 and keys[heads[slot]] != keys[i]:
            slot = (slot + _U64(1)) & mask
        head = heads[slot]
        if head < 0:
            heads[slot] = i
            last[slot] = i
            continue
        for turn in range(2):
            other = head if turn == 0 else last[slot]
            if turn == 1 and other == head:
                break
            mine, theirs = _root(parent, i), _root(parent, other)
            if mine == theirs or _agreement(signatures[i], signatures[other]) < least:
                continue
            for x in (i, other):
                if sizes[x] < 0:
                    _sort_one(x, starts, ends, shingles, sizes)
            a = shingles[starts[i] : starts[i] + sizes[i]]
            b = shingles[starts[other] : starts[other] + sizes[other]]
            if _jaccard(a, b) >= limit:
                parent[max(mine, theirs)] = min(mine, theirs)
        last[slot] = i


@kernel
def _match_band(
    keys: Any, other_keys: Any, heads: Any, following: Any,
    starts: Any, ends: Any, shingles: Any, sizes: Any,
    other_starts: Any, other_ends: Any, other_shingles: Any, other_sizes: Any,
    limit: float, depth: int, partner: Any, signatures: Any, other_signatures: Any, least: int,
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
            if sizes[i] < 0:
                _sort_one(i, starts, ends, shingles, sizes)
            if other_sizes[j] < 0:
                _sort_one(j, other_starts, other_ends, other_shingles, other_sizes)
            a = shingles[starts[i] : starts[i] + sizes[i]]
            b = other_shingles[other_starts[j] : other_starts[j] + other_sizes[j]]
            if _jaccard(a, b) >= limit:
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
    keys = np.empty(len(texts), np.uint64)
    for band in range(BANDS):
        _band_keys(texts.signatures, band, keys)
        heads = np.full(_slots(len(texts)), -1, np.int64)
        _join_band(
            keys,
            heads,
            heads.copy(),
            texts.starts,
            texts.ends,
            texts.shingles,
            texts.sizes,
            parent,
            similarity,
            texts.signatures,
            _least_agreement(similarity),
        )
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return parent


def matches(texts: Texts, others: Texts, similarity: float, *, depth: int = 16) -> Ints:
    """For each text, a similar one of ``others``, or -1; at most ``depth`` of a bucket are compared."""
    partner = np.full(len(texts), -1, np.int64)
    keys, other_keys = np.empty(len(texts), np.uint64), np.empty(len(others), np.uint64)
    for band in range(BANDS):
        _band_keys(texts.signatures, band, keys)
        _band_keys(others.signatures, band, other_keys)
        heads = np.full(_slots(len(others)), -1, np.int64)
        following = np.full(len(others), -1, np.int64)
        _match_band(
            keys, other_keys, heads, following,
            texts.starts, texts.ends, texts.shingles, texts.sizes,
            others.starts, others.ends, others.shingles, others.sizes,
            similarity, depth, partner, texts.signatures, others.signatures, _least_agreement(similarity),
        )  # fmt: skip
    return partner
