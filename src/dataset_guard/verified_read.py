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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_guard.access import Ticket, open_access
from dataset_guard.block_check import BlockCheck, owned
from dataset_guard.fingerprint import BLOCK_ROWS
from dataset_guard.reading import Source
from dataset_guard.report import Report
from guard_core.errors import Tampered, UserError

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
        return VerifiedReader(access.report, access.open(), check, names, access.ticket)


@dataclass(slots=True)
class _Handed:
    """What has been handed out so far."""

    rows: int = 0
    bytes: int = 0
    blocks: int = 0


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
        """How many rows the signed record has."""
        return self.check.rows

    def __len__(self) -> int:
        """How many blocks there are."""
        return self.check.blocks

    def __repr__(self) -> str:
        columns = len(self.check.columns)
        return f"<VerifiedReader {self.ref}: {self.num_rows:,} rows x {columns} columns, {len(self)} blocks>"

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Record batches of 65,536 rows (the last may be shorter).

        Raises Tampered at the first block that is not as signed; rows handed out before it were. The audit
        event is written when the iteration ends, however it ends.
        """
        handed, problem, complete = _Handed(), None, False
        try:
            for found in self.source.batches(columns=self.columns, batch_rows=BLOCK_ROWS):
                batch = owned(found, self.source.kind)
                self.check.check(handed.blocks, batch)
                handed.rows += batch.num_rows
                handed.bytes += batch.nbytes
                handed.blocks += 1
                yield batch
            self.check.complete(handed.blocks)
            complete = True
        except UserError as error:
            # It could be read when it was registered: now a block of it is damaged.
            problem = f"{self.ref} was changed after it was registered: {error}"
            raise Tampered(problem) from error
        except Tampered as error:
            problem = str(error)
            raise
        finally:
            self.ticket.record(
                rows=handed.rows,
                bytes=handed.bytes,
                blocks=handed.blocks,
                complete=complete,
                columns=self.columns,
                problem=problem,
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
