"""The one loop of every verified read: a block is compared with its signed leaves, then handed out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from dataset_guard.hashing.fingerprint import BLOCK_ROWS
from dataset_guard.reading import Source
from dataset_guard.reads.block_check import BlockCheck, owned
from guard_core.errors import Tampered, UserError


@dataclass(slots=True)
class Handed:
    """What was handed out so far; ``complete`` once all that was asked for was, ``problem`` why not."""

    rows: int = 0
    bytes: int = 0
    blocks: int = 0
    complete: bool = False
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in an audit event."""
        return asdict(self)


def checked(
    source: Source,
    check: BlockCheck,
    columns: Sequence[str] | None,
    handed: Handed,
    *,
    rows: int | None,
) -> Iterator[pa.RecordBatch]:
    """The blocks that ``check`` knows, in order, each as one batch of 65,536 rows (the last may be shorter).

    ``rows`` is how many to read from the first of them on; None reads to the end of the data, so that rows
    added there are found. Counts go to ``handed``, also when the reading ends early. Raises Tampered at the
    first block that is not as signed; rows of the blocks before it were handed out.
    """
    first = check.first_block
    try:
        for found in source.batches(
            columns=columns, batch_rows=BLOCK_ROWS, first_row=first * BLOCK_ROWS, rows=rows
        ):
            batch = owned(found, source.kind)
            check.check(first + handed.blocks, batch)
            handed.rows += batch.num_rows
            handed.bytes += batch.nbytes
            handed.blocks += 1
            yield batch
        check.complete(first + handed.blocks)
        handed.complete = True
    except UserError as error:
        # It could be read when it was registered: now a block of it is damaged.
        handed.problem = f"{check.ref} was changed after it was registered: {error}"
        raise Tampered(handed.problem) from error
    except Tampered as error:
        handed.problem = str(error)
        raise
