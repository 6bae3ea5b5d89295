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

from dataset_guard.canonical import canonical_schema

ROW_CONTEXT = "trainguard 2026-11 dg1 row digest"
_WINDOW_ROWS = 2048  # rows encoded at a time: about 400 KB, which stays in the L2 cache

Hashes = npt.NDArray[np.uint64]
"""Shape (rows, 2): the first and second 8 bytes of each 128-bit hash, read as big-endian numbers, so
sorting by (hi, lo) sorts the hashes as byte strings."""


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
        from dataset_guard import blake3_lanes  # numba: late, so that importing this module is quick

        self._lanes = blake3_lanes
        dropped = set(exclude)
        self._columns = [c for c in canonical_schema(schema) if c.name not in dropped]
        names = [c.name for c in self._columns]
        self._row_key = blake3_lanes.key_words(row_key(names))
        self._key = None if key is None else blake3_lanes.key_words(key)
        self._label = names.index(label) if label in names else None
        self._feature_key = blake3_lanes.key_words(row_key(n for n in names if n != label))

    def hash(self, batch: pa.RecordBatch) -> RowHashes:
        """The hashes of every row of ``batch``."""
        from dataset_guard.rowcode import cells_of

        n = batch.num_rows
        cells = [cells_of(batch.column(c.index)) for c in self._columns]
        digests = np.empty((n, 8), np.uint32)
        wants_features = self._label is not None and self._key is not None
        features = np.empty((n, 8), np.uint32) if wants_features else None
        for start in range(0, n, _WINDOW_ROWS):
            stop = min(n, start + _WINDOW_ROWS)
            self._window(cells, start, stop, digests, features)
        keyed = None if self._key is None else _halves(self._keyed(digests))
        return RowHashes(
            _halves(digests), keyed, None if features is None else _halves(self._keyed(features))
        )

    def _window(self, cells: list[Any], start: int, stop: int, digests: Any, features: Any) -> None:
        from dataset_guard import rowpack

        sizes = rowpack.measure(cells, start, stop) if cells else np.zeros(stop - start, np.int64)
        starts, out = _padded(sizes)
        pos = starts.copy()
        cut = len(cells) if self._label is None else self._label
        rowpack.write(cells[:cut], out, pos, start)
        before = pos.copy()
        rowpack.write(cells[cut : cut + 1], out, pos, start)
        after = pos.copy()
        rowpack.write(cells[cut + 1 :], out, pos, start)
        self._digest(out, starts, sizes, self._row_key, digests[start:stop])
        if features is not None:
            rest = sizes - (after - before)
            targets, short = _padded(rest)
            words, fewer = out.view(np.uint64), short.view(np.uint64)
            rowpack.drop_span(words, starts, before, after, rest, fewer, targets)
            self._digest(short, targets, rest, self._feature_key, features[start:stop])

    def _digest(self, data: Any, starts: Any, sizes: Any, key: Any, out: Any) -> None:
        mode = self._lanes.KEYED_HASH
        self._lanes.hash_messages(data.view(np.uint32), starts >> 2, sizes, key, mode, out)

    def _keyed(self, digests: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        out = np.empty_like(digests)
        self._lanes.rehash(digests, self._key, out)
        return out


def row_hashes(batch: pa.RecordBatch, *, key: bytes | None, exclude: Sequence[str] = ()) -> Hashes:
    """The 128-bit hash of each row over all columns but ``exclude``; public when ``key`` is None."""
    hashes = RowHasher(batch.schema, key=key, exclude=exclude).hash(batch)
    return hashes.public if hashes.keyed is None else hashes.keyed


def _padded(sizes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """(starts, zeroed room) for rows of ``sizes`` bytes: each at a multiple of 64, with 64 spare bytes."""
    room = np.maximum((sizes + 63) & ~63, 64)
    ends = np.cumsum(room)
    total = int(ends[-1]) if len(ends) else 0
    return ends - room, np.zeros(total // 8 + 8, np.uint64).view(np.uint8)


def _halves(digests: npt.NDArray[np.uint32]) -> Hashes:
    if not len(digests):
        return np.empty((0, 2), np.uint64)
    return np.ascontiguousarray(digests[:, :4]).view(">u8").astype(np.uint64)
