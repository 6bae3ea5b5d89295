"""Sorted 128-bit hashes: membership, counts and groups of equal rows, without a Python loop."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.rowset import sorted_run

Hashes = npt.NDArray[np.uint64]
_Bools = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]


def equal_to_previous(ordered: Hashes) -> _Bools:
    """For sorted hashes: whether each equals the one before it."""
    same = np.zeros(len(ordered), bool)
    same[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return same


class HashIndex:
    """A multiset of hashes to look rows up in. 16 bytes per distinct hash, and 8 for its count."""

    def __init__(self, hashes: Hashes) -> None:
        ordered = sorted_run([hashes])
        first = np.flatnonzero(~equal_to_previous(ordered))
        self.total = len(ordered)
        self._hi = np.ascontiguousarray(ordered[first, 0])
        self._lo = np.ascontiguousarray(ordered[first, 1])
        self._counts = np.diff(np.append(first, len(ordered)))

    def __len__(self) -> int:
        return len(self._hi)

    @property
    def sizes(self) -> _Ints:
        """How many rows each distinct hash has."""
        return self._counts

    def positions(self, hashes: Hashes) -> _Ints:
        """Where each hash is, or -1. Queries are sorted first, which keeps the search inside the cache."""
        found = np.full(len(hashes), -1, np.int64)
        if not len(self._hi) or not len(hashes):
            return found
        order = np.argsort(hashes[:, 0])
        query = hashes[order]
        at = np.searchsorted(self._hi, query[:, 0])
        last = len(self._hi) - 1
        clipped = np.minimum(at, last)
        hit = (self._hi[clipped] == query[:, 0]) & (self._lo[clipped] == query[:, 1])
        # Equal first halves of unequal hashes: never by chance, so a short walk is enough.
        open_ = np.flatnonzero(~hit & (self._hi[clipped] == query[:, 0]))
        while len(open_):
            at[open_] += 1
            open_ = open_[at[open_] <= last]
            open_ = open_[self._hi[at[open_]] == query[open_, 0]]
            now = self._lo[at[open_]] == query[open_, 1]
            hit[open_[now]] = True
            open_ = open_[~now]
        found[order[hit]] = at[hit]
        return found

    def contains(self, hashes: Hashes) -> _Bools:
        """Whether each hash is in the multiset."""
        return self.positions(hashes) >= 0

    def count(self, hashes: Hashes) -> _Ints:
        """How often each hash is in the multiset."""
        at = self.positions(hashes)
        return np.where(at >= 0, self._counts[np.maximum(at, 0)] if len(self._counts) else 0, 0)
