"""Which columns of changed rows differ: each column's keyed hashes before and after, never its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.rowhash import RowHasher

if TYPE_CHECKING:
    from dataset_guard.reading import Source

MOST_ROWS = 100_000
"""Pairs of rows that are compared, the first ones: 32 bytes each for every column."""

Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def changed_columns(
    before: Source, rows_before: Rows, after: Source, rows_after: Rows, *, names: Sequence[str], key: bytes
) -> tuple[tuple[str, int], ...]:
    """(column, in how many rows it differs) of each of ``names`` that differs at all.

    Row ``rows_after[i]`` is what ``rows_before[i]`` has become. ``key`` is the tenant's row key.
    """
    old = _hashes_at(before, rows_before[:MOST_ROWS], names, key)
    new = _hashes_at(after, rows_after[:MOST_ROWS], names, key)
    counts = ((name, int((old[name] != new[name]).any(axis=1).sum())) for name in names)
    return tuple((name, count) for name, count in counts if count)


def _hashes_at(source: Source, rows: Rows, names: Sequence[str], key: bytes) -> dict[str, Hashes]:
    """Keyed hashes of single columns at ``rows``, in that order; batches without such rows are not hashed."""
    order = np.argsort(rows)
    ascending = rows[order]
    hashers = {
        name: RowHasher(source.schema, key=key, exclude=[n for n in source.schema.names if n != name])
        for name in names
    }
    found = {name: np.empty((len(rows), 2), np.uint64) for name in names}
    first = 0
    for batch in source.stream():
        start, stop = np.searchsorted(ascending, [first, first + batch.num_rows])
        if start < stop:
            here = ascending[start:stop] - first
            piece = batch.slice(here[0], here[-1] + 1 - here[0])
            for name, hasher in hashers.items():
                hashes = hasher.hash(piece).keyed
                if hashes is not None:
                    found[name][order[start:stop]] = hashes[here - here[0]]
        first += batch.num_rows
    return found
