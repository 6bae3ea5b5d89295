"""``rows.arrow``: the row hashes of a version, kept beside its record.

They lie there sorted and uncompressed, so that they are used in place: overlap of two versions is a merge of
two maps. While a table is read they are in a :class:`dataset_guard.hashing.hash_store.HashStore`. Of a
table of many rows they are sorted and written one range of hashes at a time.

Columns of the sidecar: ``hash_hi``, ``hash_lo`` (uint64), ``feat_hi``, ``feat_lo`` (uint64, null without a
label), ``row`` (uint32, or uint64 from 2^32 rows on).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.hashing.hash_store import windows
from dataset_guard.hashing.rowset import sort_hashes

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

_WRITE_ROWS = 1_048_576
_SORT_ROWS = 8_388_608


def write_sidecar(path: Path, hashes: Hashes, features: Hashes | None) -> None:
    """Write ``rows.arrow``. Raises OSError (a full disk); the caller owns the half-written file then."""
    row_type = pa.uint32() if len(hashes) < 2**32 else pa.uint64()
    names = ["hash_hi", "hash_lo", "feat_hi", "feat_lo", "row"]
    schema = pa.schema([*((name, pa.uint64()) for name in names[:4]), ("row", row_type)])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for first, rows, picked, labelled in _in_order(hashes, features):
            columns = _halves(picked, rows)
            columns += [pa.nulls(len(rows), pa.uint64())] * 2 if labelled is None else _halves(labelled, rows)
            numbers = rows if first is None else first[rows]
            columns.append(pa.array(numbers.astype(row_type.to_pandas_dtype())))
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _in_order(
    hashes: Hashes, features: Hashes | None
) -> Iterator[tuple[Rows | None, Rows, Hashes, Hashes | None]]:
    """Pieces in ascending order: ``(numbers, chosen, hashes, features)``.

    ``chosen`` are places in ``hashes`` and ``features``, and in ``numbers``, which are rows of the table;
    None when the places themselves are.
    """
    ranges = _ranges(len(hashes))
    for low, high in ranges:
        numbers, picked, labelled = None, hashes, features
        if len(ranges) > 1:
            numbers = _rows_between(hashes, low, high)
            picked = _taken(hashes, numbers)
            labelled = None if features is None else _taken(features, numbers)
        order = sort_hashes(picked)
        for start in range(0, len(order), _WRITE_ROWS):
            yield numbers, order[start : start + _WRITE_ROWS], picked, labelled


def _ranges(rows: int) -> list[tuple[np.uint64, np.uint64]]:
    """Ranges of first halves, each with as many rows as are sorted at a time if hashes spread evenly."""
    count = 1 if rows <= 2 * _SORT_ROWS else -(-rows // _SORT_ROWS)
    edges = [(i << 64) // count for i in range(count + 1)]
    return [(np.uint64(low), np.uint64(high - 1)) for low, high in pairwise(edges)]


def _rows_between(hashes: Hashes, low: np.uint64, high: np.uint64) -> Rows:
    from dataset_guard.hashing.rowsort import between  # numba: late, for tables of few rows

    return np.concatenate([between(part, low, high) + first for first, part in windows(hashes)])


def _taken(hashes: Hashes, rows: Rows) -> Hashes:
    """The hashes of ascending ``rows``."""
    out = np.empty((len(rows), 2), np.uint64)
    at = 0
    for first, part in windows(hashes):
        stop = int(np.searchsorted(rows, first + len(part)))
        out[at:stop] = part[rows[at:stop] - first]
        at = stop
    return out


def _halves(hashes: Hashes, rows: Rows) -> list[Any]:
    picked = np.take(hashes, rows, axis=0)  # both halves of a hash lie in one line of the cache
    return [pa.array(picked[:, half]) for half in (0, 1)]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """``rows.arrow`` of a version, memory-mapped. Its digest has been checked by whoever opened it."""

    path: Path

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        with pa.memory_map(str(self.path)) as raw:
            reader = pa.ipc.open_file(raw)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i).select(columns)

    def _in_row_order(self, hi: str, lo: str) -> Hashes | None:
        batches = list(self._batches([hi, lo, "row"]))
        out = np.empty((sum(b.num_rows for b in batches), 2), np.uint64)
        for batch in batches:
            if batch.column(0).null_count:
                return None
            rows = batch.column(2).to_numpy()
            out[rows, 0] = batch.column(0).to_numpy()
            out[rows, 1] = batch.column(1).to_numpy()
        return out

    def hashes(self) -> Hashes:
        """Keyed row hashes in row order, shape (rows, 2)."""
        found = self._in_row_order("hash_hi", "hash_lo")
        return np.empty((0, 2), np.uint64) if found is None else found

    def features(self) -> Hashes | None:
        """Keyed feature hashes in row order; None when the version has no label."""
        return self._in_row_order("feat_hi", "feat_lo")

    def sorted_pieces(self) -> Iterator[Hashes]:
        """Keyed row hashes in ascending order, up to a million at a time."""
        for b in self._batches(["hash_hi", "hash_lo"]):
            yield np.stack([b.column(0).to_numpy(), b.column(1).to_numpy()], axis=1)

    def sorted_hashes(self) -> Hashes:
        """Keyed row hashes in ascending order, shape (rows, 2)."""
        parts = list(self.sorted_pieces())
        return np.concatenate(parts) if parts else np.empty((0, 2), np.uint64)

    def window(self, first_row: int, rows: int) -> Hashes:
        """Keyed row hashes of ``rows`` rows from ``first_row`` on, in row order (fewer at the end)."""
        found: list[Hashes] = []
        places: list[npt.NDArray[np.int64]] = []
        for batch in self._batches(["hash_hi", "hash_lo", "row"]):
            at = batch.column(2).to_numpy().astype(np.int64)
            chosen = np.flatnonzero((at >= first_row) & (at < first_row + rows))
            pair = batch.column(0).to_numpy()[chosen], batch.column(1).to_numpy()[chosen]
            found.append(np.stack(pair, axis=1))
            places.append(at[chosen])
        if not found:
            return np.empty((0, 2), np.uint64)
        return np.concatenate(found)[np.argsort(np.concatenate(places))]
