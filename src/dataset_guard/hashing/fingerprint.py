"""``dg1``: the identity of a table's content, independent of how it is stored.

A table is cut into blocks of 65,536 consecutive logical rows. Each (block, column) has a leaf,
each column a Merkle root over its leaves, and the table a *sequence root* over its columns, whose
hex is the fingerprint. Because leaves belong to blocks, any split of the rows at block borders can
be hashed apart (threads, Ray tasks) and put together by :func:`combine`.

Specification: docs/fingerprint.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from blake3 import blake3

from dataset_guard.hashing.canonical import Array, Column, canonical_schema, encode
from dataset_guard.hashing.merkle import merkle_root
from guard_core.errors import UserError

BLOCK_ROWS = 65_536
PREFIX = "dg1:"

_LEAF_TAG = b"dg1:leaf\0"
_SEQUENCE_TAG = b"dg1:sequence\0"
_SCHEMA_TAG = b"dg1:schema\0"

Leaves = npt.NDArray[np.uint8]
"""Shape (blocks, columns, 32); columns in canonical order."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What ``dg1`` says about a table.

    ``bytes`` counts the canonical bytes, so it does not depend on the layout either; None when some blocks
    were known and not hashed again. ``set_root`` is None when it was not asked for. Roots are 64 hex digits.
    """

    fingerprint: str
    sequence_root: str
    schema_root: str
    set_root: str | None
    rows: int
    bytes: int | None
    columns: tuple[Column, ...]
    column_roots: tuple[str, ...]
    leaves: Leaves

    def to_json(self) -> dict[str, Any]:
        """The documented shape, without ``seconds``, which the caller has measured."""
        return {
            "fingerprint": self.fingerprint,
            "sequence_root": self.sequence_root,
            "schema_root": self.schema_root,
            "set_root": self.set_root,
            "rows": self.rows,
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True)
class FingerprintPart:
    """The leaves of the blocks from ``first_block`` on; picklable, 32 bytes per block and column."""

    columns: tuple[Column, ...]
    first_block: int
    rows: int
    bytes: int | None
    leaves: Leaves


class _LeafHasher:
    """BLAKE3 over a leaf's bytes, counting them."""

    def __init__(self, head: bytes) -> None:
        self._hasher = blake3(head)
        self.bytes = 0

    def update(self, data: Any) -> None:
        view = memoryview(data)
        if view.nbytes:
            self.bytes += view.nbytes
            self._hasher.update(view.cast("B"))

    def digest(self) -> bytes:
        return self._hasher.digest()


class Fingerprinter:
    """Hashes a stream of record batches of any size, in row order, holding at most one block of rows."""

    def __init__(self, schema: pa.Schema, *, first_block: int = 0) -> None:
        self.columns = canonical_schema(schema)
        self._schema = schema
        self._first_block = first_block
        self._heads = [_LEAF_TAG + text(c.name) + text(c.type) for c in self.columns]
        self._pending: list[list[Array]] = []  # slices of the block at hand, columns in canonical order
        self._pending_rows = 0
        self._rows = 0
        self._bytes = 0
        self._leaves: list[bytes] = []

    def update(self, batch: pa.RecordBatch) -> None:
        """Take the next rows. Raises UserError when ``batch`` has other columns than the first one."""
        if batch.schema != self._schema:
            self._adopt(batch.schema)
        start = 0
        while start < batch.num_rows:
            count = min(BLOCK_ROWS - self._pending_rows, batch.num_rows - start)
            self._pending.append([batch.column(c.index).slice(start, count) for c in self.columns])
            self._pending_rows += count
            start += count
            if self._pending_rows == BLOCK_ROWS:
                self._flush()

    def _adopt(self, schema: pa.Schema) -> None:
        """Accept another layout of the same logical columns, also in another order."""
        columns = canonical_schema(schema)
        if [(c.name, c.type) for c in columns] != [(c.name, c.type) for c in self.columns]:
            raise UserError("the data changes its columns or types part way; give every part one schema")
        self._schema = schema
        self.columns = columns

    def _flush(self) -> None:
        for i, head in enumerate(self._heads):
            hasher = _LeafHasher(head)
            try:
                encode([slices[i] for slices in self._pending], hasher.update)
            except UserError as error:
                raise UserError(f"column {self.columns[i].name!r}: {error}") from error
            except pa.ArrowNotImplementedError as error:  # a rare nesting, e.g. views inside a union
                name, layout = self.columns[i].name, self._pending[0][i].type
                raise UserError(f"column {name!r} of type {layout} cannot be read; cast it first") from error
            self._bytes += hasher.bytes
            self._leaves.append(hasher.digest())
        self._rows += self._pending_rows
        self._pending, self._pending_rows = [], 0

    def part(self) -> FingerprintPart:
        """Everything seen so far as a part; a block that is not full may only end the last part."""
        if self._pending_rows:
            self._flush()
        blocks = -(-self._rows // BLOCK_ROWS)
        leaves = np.frombuffer(b"".join(self._leaves), np.uint8).reshape(blocks, len(self.columns), 32)
        return FingerprintPart(self.columns, self._first_block, self._rows, self._bytes, leaves)

    def finish(self, *, set_root: bytes | None = None) -> Fingerprint:
        """The fingerprint of all rows seen; ``set_root`` comes from :mod:`dataset_guard.hashing.rowset`."""
        return combine([self.part()], set_root=set_root)


def combine(parts: Iterable[FingerprintPart], *, set_root: bytes | None = None) -> Fingerprint:
    """Put parts together, in any order. Raises ValueError for a gap, an overlap or unequal columns."""
    ordered = sorted(parts, key=lambda p: p.first_block)
    columns = ordered[0].columns
    block = 0
    for i, part in enumerate(ordered):
        if [(c.name, c.type) for c in part.columns] != [(c.name, c.type) for c in columns]:
            raise ValueError("parts have unequal columns")
        if part.first_block != block:
            raise ValueError(f"expected a part that starts at block {block}, got block {part.first_block}")
        if part.rows % BLOCK_ROWS and i != len(ordered) - 1:
            raise ValueError(f"the part at block {block} ends within a block but is not the last")
        block += len(part.leaves)
    leaves = np.concatenate([part.leaves for part in ordered])
    rows = sum(part.rows for part in ordered)
    roots = column_roots(leaves)
    sequence = sequence_root(columns, roots, rows)
    return Fingerprint(
        fingerprint=PREFIX + sequence.hex(),
        sequence_root=sequence.hex(),
        schema_root=schema_root(columns).hex(),
        set_root=None if set_root is None else set_root.hex(),
        rows=rows,
        bytes=_total(part.bytes for part in ordered),
        columns=columns,
        column_roots=tuple(root.hex() for root in roots),
        leaves=leaves,
    )


def _total(sizes: Iterable[int | None]) -> int | None:
    known = list(sizes)
    return None if None in known else sum(size or 0 for size in known)


def column_roots(leaves: Leaves) -> list[bytes]:
    """The Merkle root of each column of ``leaves``."""
    return [merkle_root([leaf.tobytes() for leaf in leaves[:, c]]) for c in range(leaves.shape[1])]


def sequence_root(columns: Sequence[Column], roots: Sequence[bytes], rows: int) -> bytes:
    """The root of a table whose ``columns``, in canonical order, have the Merkle ``roots``."""
    hasher = blake3(_SEQUENCE_TAG + struct.pack("<QI", rows, len(columns)))
    for column, root in zip(columns, roots, strict=True):
        hasher.update(text(column.name) + text(column.type) + root)
    return hasher.digest()


def schema_root(columns: Sequence[Column]) -> bytes:
    """The root of the names and logical types of ``columns``, in canonical order."""
    hasher = blake3(_SCHEMA_TAG + struct.pack("<I", len(columns)))
    for column in columns:
        hasher.update(text(column.name) + text(column.type))
    return hasher.digest()


def text(value: str) -> bytes:
    """``value`` as it enters a hash: u32 length, then UTF-8."""
    raw = value.encode()
    return struct.pack("<I", len(raw)) + raw
