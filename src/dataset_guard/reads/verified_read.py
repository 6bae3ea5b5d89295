"""Reading a registered version so that a change since its registration cannot reach training.

::

    for batch in dataset_guard.read("digits@3").batches(): ...
    frame = dataset_guard.read("digits@3", columns=["pixel_1", "label"]).to_pandas()

First policy is asked, with the verified credential; then each block of 65,536 rows is hashed and compared
with the leaves of the signed record *before* any of its rows is handed out. What was read, by whom, is an
audit event ``dataset.read``, also when the reading stops early or finds tampering.

Label: `cooperative`. A process that opens the file itself goes round this reader; that it never wrote a
``dataset.read`` is what gives it away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_guard.hashing.fingerprint import BLOCK_ROWS
from dataset_guard.reading import Source
from dataset_guard.reads.access import Ticket, open_access
from dataset_guard.reads.block_check import BlockCheck
from dataset_guard.reads.checked import Handed, checked
from dataset_guard.registration.report import Report
from guard_core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from guard_core.home import Home


def read(
    ref: str,
    *,
    columns: Sequence[str] | None = None,
    purpose: str = "train",
    tenant: str | None = None,
    home: Home | None = None,
) -> VerifiedReader:
    """A reader of the registered version ``ref`` (``name@version``, alias, ``tenant/name@version``).

    ``columns`` reads (and checks) only those. ``purpose`` is what policy is told: train, evaluate, export or
    inspect. Raises Denied when policy refuses, Undecidable when it cannot be asked, UserError when there is
    no such version, column or data, Tampered when the record itself was changed.
    """
    with open_access(ref, purpose=purpose, tenant=tenant, home=home) as access:
        names = access.known_columns(columns)
        check = access.check().of_columns(names)
        return VerifiedReader(access.report, access.open(), check, names, access.ticket, check.blocks)


@dataclass(frozen=True, slots=True, repr=False)
class VerifiedReader:
    """Hands out the rows of one version, in order, each block only after it was checked.

    May be read any number of times; each time is checked and recorded anew.
    """

    report: Report
    source: Source
    check: BlockCheck
    columns: tuple[str, ...] | None
    ticket: Ticket
    blocks: int
    """Of the whole version, of which ``check`` may know a part."""

    @property
    def ref(self) -> str:
        """``tenant/name@version``."""
        return self.ticket.ref

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows handed out."""
        schema = self.source.schema
        return schema if self.columns is None else pa.schema([schema.field(c) for c in self.columns])

    @property
    def num_rows(self) -> int:
        """How many rows the signed record has; of a shard, its own."""
        check = self.check
        return min(check.end * BLOCK_ROWS, check.rows) - min(check.first_block * BLOCK_ROWS, check.rows)

    def __len__(self) -> int:
        """How many blocks there are."""
        return self.check.blocks

    def __repr__(self) -> str:
        columns = len(self.check.columns)
        return f"<VerifiedReader {self.ref}: {self.num_rows:,} rows x {columns} columns, {len(self)} blocks>"

    def shard(self, shards: int, index: int) -> VerifiedReader:
        """The part ``index`` (0 to ``shards`` - 1) of this reader's blocks, as even as whole blocks allow.

        For data-parallel training: the shards together are the version, and each is checked and recorded on
        its own. Raises UserError when there is no such part.
        """
        if shards < 1:
            raise UserError(f"a version cannot be read in {shards} shards; ask for at least one")
        if not 0 <= index < shards:
            raise UserError(f"shard {index} of {shards} does not exist; take 0 to {shards - 1}")
        first, blocks = self.check.first_block, self.check.blocks
        edges = (first + blocks * index // shards, first + blocks * (index + 1) // shards)
        return replace(self, check=self.check.of_blocks(*edges))

    @property
    def _whole(self) -> bool:
        return self.check.first_block == 0 and self.check.end == self.blocks

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Record batches of 65,536 rows (the last may be shorter).

        Raises Tampered at the first block that is not as signed; rows handed out before it were. The audit
        event is written when the iteration ends, however it ends.
        """
        handed, check = Handed(), self.check
        # The last blocks are read on to the end of the data: rows that were added must be found, too.
        rows = None if check.end == self.blocks else check.blocks * BLOCK_ROWS
        try:
            if check.blocks or self._whole:
                yield from checked(self.source, check, self.columns, handed, rows=rows)
        finally:
            part = {"first_block": check.first_block, **handed.to_json()}
            self.ticket.record(
                rows=handed.rows,
                bytes=handed.bytes,
                blocks=handed.blocks,
                complete=handed.complete and self._whole,
                columns=self.columns,
                problem=handed.problem,
                tasks=None if self._whole else [part],
            )

    def to_table(self) -> pa.Table:
        """All rows as one Arrow table."""
        return pa.Table.from_batches(list(self.batches()), schema=self.schema)

    def to_pandas(self) -> Any:
        """All rows as a pandas frame."""
        return self.to_table().to_pandas()

    def __iter__(self) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """Blocks as ``{column: NumPy array}``, for a training loop: iterate the reader once per epoch.

        ``torch.as_tensor`` takes the arrays as they are.
        """
        for batch in self.batches():
            yield {
                name: column.to_numpy(zero_copy_only=False)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
