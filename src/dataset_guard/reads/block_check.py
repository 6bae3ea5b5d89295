"""Checks blocks of rows against the leaves that a signed record commits to.

The sidecar ``leaves.arrow`` carries no signature of its own. It needs none: the roots over its leaves must
give the fingerprint in the signed record (:meth:`BlockCheck.trusted`), so a changed leaf is found before
any data is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dataset_guard.hashing.canonical import Column, canonical_schema
from dataset_guard.hashing.fingerprint import (
    BLOCK_ROWS,
    PREFIX,
    Fingerprinter,
    Leaves,
    column_roots,
    sequence_root,
)
from dataset_guard.reading import Place
from dataset_guard.sidecars.manifest import FileEntry, compare
from guard_core.errors import Tampered


@dataclass(frozen=True, slots=True)
class BlockCheck:
    """The leaves of one version: 32 bytes per block and column. Picklable, so that it travels to Ray tasks.

    ``leaves`` has shape (blocks, columns, 32), columns in canonical order, and begins at ``first_block``.
    ``files`` and ``path`` (where they lie) serve to name a culprit. Made by :meth:`trusted`.
    """

    ref: str
    columns: tuple[tuple[str, str], ...]
    rows: int
    leaves: Leaves
    files: tuple[FileEntry, ...] = ()
    path: Place | None = None
    first_block: int = 0

    @classmethod
    def trusted(
        cls,
        *,
        ref: str,
        columns: Sequence[tuple[str, str]],
        rows: int,
        leaves: Leaves,
        fingerprint: str,
        files: Sequence[FileEntry] = (),
        path: Place | None = None,
    ) -> BlockCheck:
        """Leaves that have been proved to belong to ``fingerprint``. Raises Tampered when they do not."""
        found = tuple(Column(name, kind, i) for i, (name, kind) in enumerate(columns))
        shape = (-(-rows // BLOCK_ROWS), len(found), 32)
        same = leaves.shape == shape and (
            PREFIX + sequence_root(found, column_roots(leaves), rows).hex() == fingerprint
        )
        if not same:
            raise Tampered(
                f"the block hashes kept for {ref} do not give its signed fingerprint; "
                "restore leaves.arrow of this version from a backup, or register the data again"
            )
        return cls(ref, tuple(columns), rows, leaves, tuple(files), path)

    @property
    def blocks(self) -> int:
        """How many blocks of 65,536 rows (the version's last may be shorter) this check knows."""
        return len(self.leaves)

    @property
    def end(self) -> int:
        """The block after the last that this check knows."""
        return self.first_block + self.blocks

    def of_blocks(self, first: int, end: int) -> BlockCheck:
        """The check for blocks ``first`` to ``end - 1`` only, which keep their numbers."""
        kept = self.leaves[first - self.first_block : end - self.first_block]
        return replace(self, leaves=kept, first_block=first)

    def rows_of(self, block: int) -> int:
        """How many rows ``block`` must have."""
        return min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS)

    def of_columns(self, names: Sequence[str] | None) -> BlockCheck:
        """The check for some columns only. Raises KeyError naming the first that the version lacks."""
        if names is None:
            return self
        position = {name: i for i, (name, _) in enumerate(self.columns)}
        kept = sorted(position[name] for name in dict.fromkeys(names))
        return replace(self, columns=tuple(self.columns[i] for i in kept), leaves=self.leaves[:, kept])

    def check(self, block: int, batch: pa.RecordBatch) -> None:
        """Nothing when ``batch`` is ``block`` exactly as signed.

        Raises Tampered that names file, block, rows and the first column that differs.
        """
        if block >= self.end:
            raise Tampered(self._sentence(block, "is not in the signed record: rows were added at the end"))
        if batch.num_rows != self.rows_of(block):
            said = f"has {batch.num_rows:,} rows where {self.rows_of(block):,} were signed"
            raise Tampered(self._sentence(block, said))
        self._same_columns(block, batch.schema)
        fingerprinter = Fingerprinter(batch.schema, first_block=block)
        fingerprinter.update(batch)
        found = fingerprinter.part().leaves[0]
        different = np.flatnonzero((found != self.leaves[block - self.first_block]).any(axis=1))
        if different.size:
            names = [self.columns[i][0] for i in different]
            raise Tampered(self._sentence(block, _columns_differ(names)))

    def complete(self, block: int) -> None:
        """Raises Tampered when a read ended before ``block`` although more were signed."""
        if block != self.end:
            raise Tampered(self._sentence(block, "is missing: rows were removed at the end"))

    def _same_columns(self, block: int, schema: Any) -> None:
        found = {c.name: c.type for c in canonical_schema(schema)}
        signed = dict(self.columns)
        for name, kind in signed.items():
            if name not in found:
                raise Tampered(self._sentence(block, f"lacks column {name!r}"))
            if found[name] != kind:
                said = f"has column {name!r} as {found[name]} where {kind} was signed"
                raise Tampered(self._sentence(block, said))
        for name in found:
            if name not in signed:
                raise Tampered(self._sentence(block, f"has column {name!r}, which was not signed"))

    def place(self, block: int) -> str:
        """The file that holds ``block``; of several, those whose bytes are not as registered."""
        first = block * BLOCK_ROWS
        touched, at = [], 0
        for i, entry in enumerate(self.files):
            last_file = i == len(self.files) - 1
            if at < first + BLOCK_ROWS and (at + entry.rows > first or last_file):
                touched.append(entry)
            at += entry.rows
        if len(touched) > 1 and self.path is not None:
            changes = compare(touched, self.path)
            culprits = {*changes.different, *changes.missing}
            touched = [e for e in touched if e.path in culprits] or touched
        return ", ".join(e.path for e in touched) or "the data"

    def _sentence(self, block: int, what: str) -> str:
        first = block * BLOCK_ROWS
        last = max(first, min(first + BLOCK_ROWS, self.rows) - 1)
        return (
            f"{self.ref} was changed after it was registered: {self.place(block)}, block {block} "
            f"(rows {first:,} to {last:,}) {what}; none of its rows were handed out. "
            "Restore the data, or register the change as a new version"
        )


def owned(batch: pa.RecordBatch, kind: str) -> pa.RecordBatch:
    """``batch`` in this process's own memory.

    Arrow files (``kind`` ``arrow``) are read through a memory map: without a copy, whoever writes to the file
    would change rows after they were checked.
    """
    if kind != "arrow":
        return batch
    return pa.ipc.read_record_batch(batch.serialize(), batch.schema)


def _columns_differ(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"differs in column {names[0]!r}"
    return f"differs in column {names[0]!r} and {len(names) - 1} more"
