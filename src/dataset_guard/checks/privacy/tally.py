"""What is remembered of hits: kinds, rows and how many different values, in bounded memory.

The values themselves are dropped at once. Of each, 64 bits of a hash stay in memory, to count repeats once;
only their number ever leaves it.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from dataset_guard.checks.base import Rows
from guard_core.findings import RowSet

MAX_ROWS = 100_000
MAX_DISTINCT = 4_096


class Tally:
    """Counts of one column. Memory: the first 100,000 rows (8 bytes each), the 4,096 least hashes."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.rows = 0
        self._first: Rows = np.empty(0, np.int64)
        self._hashes: set[bytes] = set()
        self._overfull = False

    def add(self, kinds: Counter[str], rows: Rows, values: Iterable[bytes]) -> None:
        """Count hits; ``rows`` (of the table, sorted, each once) must be new to this tally."""
        self.kinds += kinds
        self.rows += len(rows)
        self._first = np.sort(np.concatenate([self._first, rows]))[:MAX_ROWS]
        self._keep(hashlib.blake2b(v, digest_size=8).digest() for v in values)

    def _keep(self, hashes: Iterable[bytes]) -> None:
        self._hashes.update(hashes)
        if len(self._hashes) > MAX_DISTINCT:
            self._overfull = True
            self._hashes = set(heapq.nsmallest(MAX_DISTINCT, self._hashes))

    def merge(self, other: Tally) -> None:
        """Absorb the counts of other rows."""
        self.add(other.kinds, other._first, ())
        self.rows += other.rows - len(other._first)
        self._overfull |= other._overfull
        self._keep(other._hashes)

    def row_set(self) -> RowSet:
        """The rows, or the first 100,000 of them."""
        return RowSet.of(self._first.tolist())

    def evidence(self) -> dict[str, Any]:
        """Counts by kind, how many different values, and what was left out."""
        told: dict[str, Any] = {"kinds": dict(sorted(self.kinds.items()))}
        told["distinct_at_least" if self._overfull else "distinct"] = len(self._hashes)
        if self.rows > len(self._first):
            told["rows_listed"] = len(self._first)
        return told
