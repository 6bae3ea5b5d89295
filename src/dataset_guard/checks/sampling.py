"""A sample of rows that is the same however the table was cut: the rows with the smallest mixed number.

Each row number and the seed give a 64-bit priority; the ``budget`` smallest are kept. So the sample is
uniform, deterministic, and two samples of disjoint rows merge into the sample of their union.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.hashing.jit import kernel

Rows = npt.NDArray[np.int64]
_U64 = np.uint64
_MOST = _U64(2**64 - 1)


@kernel
def _least(rows: Any, start: Any, limit: Any, places: Any, ranks: Any) -> int:
    """Write the places of rows whose priority is at most ``limit``, and these; returns how many there are.

    SplitMix64 of row numbers and a ``start`` (Steele, Lea, Flood 2014).
    """
    n = 0
    for i in range(len(rows)):
        z = _U64(rows[i]) + start
        z = (z ^ (z >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> _U64(27))) * _U64(0x94D049BB133111EB)
        z ^= z >> _U64(31)
        places[n], ranks[n] = i, z
        n += z <= limit
    return n


def priorities(rows: Rows, seed: int) -> npt.NDArray[np.uint64]:
    """A 64-bit number for each of the ``rows``, as if drawn at random; ``seed`` gives others."""
    return least_of(rows, seed, _MOST)[1]


def least_of(rows: Rows, seed: int, limit: np.uint64) -> tuple[Rows, npt.NDArray[np.uint64]]:
    """Places of the ``rows`` whose priority is at most ``limit``, and their priorities."""
    places, ranks = np.empty(len(rows), np.int64), np.empty(len(rows), np.uint64)
    start = _U64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & (2**64 - 1))
    n = _least(rows, start, limit, places, ranks)
    return places[:n], ranks[:n]


class RowSample:
    """At most ``budget`` rows of a table, with their numbers; holds at most twice as many.

    ``kept_as`` gives what is held of rows, as many: it is asked about those alone that may stay.
    """

    def __init__(
        self, budget: int, seed: int, kept_as: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None
    ) -> None:
        self.budget = budget
        self._kept_as = kept_as
        self.seen = 0
        self._seed = seed
        self._limit = _MOST
        self._held = 0
        self._parts: list[tuple[Rows, npt.NDArray[np.uint64], pa.RecordBatch]] = []

    def update(self, batch: pa.RecordBatch, rows: Rows) -> None:
        """Offer the rows numbered ``rows``."""
        self.seen += len(rows)
        chosen, rank = least_of(rows, self._seed, self._limit)
        if len(chosen):
            kept = batch if len(chosen) == batch.num_rows else batch.take(pa.array(chosen))
            self._add(rows[chosen], rank.copy(), self._kept_as(kept) if self._kept_as else kept)

    def _add(self, rows: Rows, rank: npt.NDArray[np.uint64], batch: pa.RecordBatch) -> None:
        self._parts.append((rows, rank, batch))
        self._held += len(rows)
        if self._held > 2 * self.budget:
            self._compact()

    def _compact(self) -> None:
        if self._held <= self.budget:
            return
        rank = np.concatenate([r for _, r, _ in self._parts])
        self._limit = np.partition(rank, self.budget - 1)[self.budget - 1]
        parts = []
        for rows, ranks, batch in self._parts:
            chosen = np.flatnonzero(ranks <= self._limit)
            if len(chosen):
                parts.append((rows[chosen], ranks[chosen], batch.take(pa.array(chosen))))
        self._parts, self._held = parts, self.budget

    def merge(self, other: RowSample) -> None:
        """Absorb the sample of other rows."""
        self.seen += other.seen
        for part in other._parts:
            self._add(*part)

    def finish(self, schema: pa.Schema) -> tuple[Rows, pa.Table]:
        """Row numbers, ascending, and what is held of those rows, which have the ``schema``."""
        self._compact()
        if not self._parts:
            none = schema.empty_table()
            if self._kept_as is not None:
                none = pa.Table.from_batches([self._kept_as(pa.RecordBatch.from_pylist([], schema))])
            return np.empty(0, np.int64), none
        rows = np.concatenate([r for r, _, _ in self._parts])
        table = pa.Table.from_batches([b for _, _, b in self._parts])
        order = np.argsort(rows)
        return rows[order], table.take(pa.array(order))
