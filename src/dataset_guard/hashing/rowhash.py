"""Row hashes: which rows are equal, within a table and across tables.

The *row digest* is 32 bytes of BLAKE3 over a row's canonical bytes, keyed with a public key that is
derived from the column names, so equal values under other names are other rows. What is stored and
compared is the *row hash*, 128 bits: the first 16 bytes of the row digest (public: for the set root
and proofs) or of its keyed BLAKE3 under a tenant's key (private: stored hashes cannot be matched
against a dictionary, nor against another tenant's).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from blake3 import blake3

from dataset_guard.hashing.canonical import canonical_schema

ROW_CONTEXT = "trainguard 2026-11 dg1 row digest"
_WINDOW_ROWS = 2048  # rows encoded at a time: about 400 KB, which stays in the L2 cache

Hashes = npt.NDArray[np.uint64]
"""Shape (rows, 2): the first and second 8 bytes of each 128-bit hash, read as big-endian numbers, so
sorting by (hi, lo) sorts the hashes as byte strings."""

_NONE = np.empty((0, 2), np.uint64)
_Sizes = npt.NDArray[np.int64]


def row_key(names: Iterable[str]) -> bytes:
    """The public key of row digests over the columns ``names`` (in any order)."""
    hasher = blake3(derive_key_context=ROW_CONTEXT)
    for name in sorted(names, key=str.encode):
        raw = name.encode()
        hasher.update(len(raw).to_bytes(4, "little") + raw)
    return hasher.digest()


@dataclass(frozen=True, slots=True)
class RowHashes:
    """Hashes of one batch, in row order. ``keyed`` needs a key, ``features`` a key and a label."""

    public: Hashes
    keyed: Hashes | None
    features: Hashes | None


class RowHasher:
    """Hashes batches of one schema; encodes each row once for all the hashes asked for."""

    def __init__(
        self,
        schema: pa.Schema,
        *,
        key: bytes | None = None,
        label: str | None = None,
        exclude: Sequence[str] = (),
    ) -> None:
        from dataset_guard.hashing import blake3_lanes  # numba: late, so that importing this module is quick

        self._lanes = blake3_lanes
        dropped = set(exclude)
        self._columns = [c for c in canonical_schema(schema) if c.name not in dropped]
        names = [c.name for c in self._columns]
        self._row_key = blake3_lanes.key_words(row_key(names))
        self._key = blake3_lanes.key_words(bytes(32) if key is None else key)
        self._keyed = key is not None
        self._label = names.index(label) if label in names else None
        self._feature_key = blake3_lanes.key_words(row_key(n for n in names if n != label))

    def hash(self, batch: pa.RecordBatch) -> RowHashes:
        """The hashes of every row of ``batch``."""
        from dataset_guard.hashing import rowpack
        from dataset_guard.hashing.rowcode import cells_of

        n = batch.num_rows
        cells = [cells_of(batch.column(c.index)) for c in self._columns]
        sizes = rowpack.measure(cells) if cells else np.zeros(n, np.int64)
        public = np.empty((n, 2), np.uint64)
        keyed = np.empty((n, 2), np.uint64) if self._keyed else None
        wants_features = self._label is not None and self._keyed
        features = np.empty((n, 2), np.uint64) if wants_features else None
        rooms = _Room(), _Room()
        for start in range(0, n, _WINDOW_ROWS):
            part = slice(start, min(n, start + _WINDOW_ROWS))
            outs = (h if h is None else h[part] for h in (public, keyed, features))
            self._window(cells, sizes[part], part.start, rooms, *outs)
        return RowHashes(public, keyed, features)

    def _window(
        self, cells: list[Any], sizes: _Sizes, start: int, rooms: Any, public: Any, keyed: Any, features: Any
    ) -> None:
        from dataset_guard.hashing import rowpack

        starts, ends, out = rooms[0].of(sizes)
        pos = starts.copy()
        cut = len(cells) if self._label is None else self._label
        rowpack.write(cells[:cut], out, pos, start)
        before = pos.copy()
        rowpack.write(cells[cut : cut + 1], out, pos, start)
        after = pos.copy()
        rowpack.write(cells[cut + 1 :], out, pos, start)
        rowpack.clear_rest(out, pos, ends)
        self._digest(out, starts, sizes, self._row_key, public, keyed)
        if features is not None:
            rest = sizes - (after - before)
            targets, ends, short = rooms[1].of(rest)
            rowpack.drop_span(out, starts, before, after, pos, short, targets)
            rowpack.clear_rest(short, targets + rest, ends)
            self._digest(short, targets, rest, self._feature_key, None, features)

    def _digest(self, data: Any, starts: Any, sizes: Any, key: Any, public: Any, keyed: Any) -> None:
        """Write the row hashes, or None of them, public and keyed: all of a window, which the cache holds."""
        outs = (_NONE if out is None else out for out in (public, keyed))
        self._lanes.hash_rows(data.view(np.uint32), starts >> 2, sizes, key, self._key, *outs)


def row_hashes(batch: pa.RecordBatch, *, key: bytes | None, exclude: Sequence[str] = ()) -> Hashes:
    """The 128-bit hash of each row over all columns but ``exclude``; public when ``key`` is None."""
    hashes = RowHasher(batch.schema, key=key, exclude=exclude).hash(batch)
    return hashes.public if hashes.keyed is None else hashes.keyed


class _Room:
    """Room for a window of rows, used again by the next: fresh memory costs more than writing the rows."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def of(self, sizes: _Sizes) -> tuple[_Sizes, _Sizes, npt.NDArray[np.uint8]]:
        """(starts, ends, bytes) for rows of ``sizes`` bytes: each begins and ends at multiples of 64."""
        room = np.maximum((sizes + 63) & ~63, 64)
        ends = np.cumsum(room)
        total = int(ends[-1]) if len(ends) else 0
        if total > len(self._bytes):
            self._bytes = np.empty(total // 4 + 16, np.uint32).view(np.uint8)
        return ends - room, ends, self._bytes
