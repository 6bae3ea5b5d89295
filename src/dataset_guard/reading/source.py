"""The face of all data: re-iterable record batches in logical row order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import pyarrow as pa

from dataset_guard.reading.places import Place
from guard_core.errors import UserError

BATCH_ROWS = 65_536

_ALONE: ContextVar[bool] = ContextVar("decoding_alone", default=False)


@contextmanager
def decoding_alone() -> Iterator[None]:
    """In this block files are decoded on the thread that reads them, for whom CPU time counts.

    Threads decode sooner, but each fills memory that another one gives back: the kernel clears it anew, which
    costs a third more than decoding alone.
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def on_threads() -> bool:
    """Whether a file may be decoded on several threads."""
    return not _ALONE.get()


class Source(ABC):
    """A table that can be read again and again.

    ``num_rows`` and ``num_bytes`` (bytes on disk, or in memory) are None when only reading would tell.
    ``files`` are in row order, with ``file_rows`` rows each; both are empty for data in memory. ``root``
    is the folder that relative file names start from. ``seek_rows`` is how many rows lie together so that
    beginning within them means decoding them (Parquet's row groups); 1 where any row can be reached.
    """

    uri: str
    kind: str
    schema: pa.Schema
    num_rows: int | None = None
    num_bytes: int | None = None
    files: tuple[Place, ...] = ()
    file_rows: tuple[int, ...] = ()
    root: Place | None = None
    seek_rows: int = 1

    @abstractmethod
    def stream(
        self, *, columns: Sequence[str] | None = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of any size with ``rows`` rows from ``first_row`` on (to the end when None)."""

    def batches(
        self,
        *,
        columns: Sequence[str] | None = None,
        batch_rows: int = BATCH_ROWS,
        first_row: int = 0,
        rows: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """As :meth:`stream`, with exactly ``batch_rows`` rows in each batch but the last."""
        return rebatched(self.stream(columns=columns, first_row=first_row, rows=rows), batch_rows)

    def name_of(self, file: Place) -> str:
        """``file`` relative to the root, with forward slashes: its name in a manifest."""
        return file.relative_to(self.root).as_posix() if self.root else file.name  # type: ignore[arg-type]


def rebatched(batches: Iterable[pa.RecordBatch], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """``batches`` cut and joined to ``batch_rows`` rows each; a batch that fits is handed on as it is."""
    pending: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            count = min(batch_rows - held, batch.num_rows - start)
            pending.append(batch.slice(start, count))
            held += count
            start += count
            if held == batch_rows:
                yield joined(pending)
                pending, held = [], 0
    if pending:
        yield joined(pending)


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of all rows of ``batches``, which share a schema."""
    if len(batches) == 1:
        return batches[0]
    return pa.concat_batches(batches)


def windowed(batches: Iterable[pa.RecordBatch], first_row: int, rows: int | None) -> Iterator[pa.RecordBatch]:
    """The rows of ``batches`` from ``first_row`` on, at most ``rows`` of them."""
    seen, left = 0, rows
    for batch in batches:
        if left is not None and left <= 0:
            return
        skip = max(0, first_row - seen)
        seen += batch.num_rows
        if skip >= batch.num_rows:
            continue
        kept = batch.slice(skip) if left is None else batch.slice(skip, left)
        if left is not None:
            left -= kept.num_rows
        yield kept


def checked_columns(schema: pa.Schema, columns: Sequence[str] | None) -> list[str] | None:
    """``columns`` as a list. Raises UserError naming the first that the data does not have."""
    if columns is None:
        return None
    for name in columns:
        if name not in schema.names:
            known = ", ".join(schema.names[:20]) + (", ..." if len(schema.names) > 20 else "")
            raise UserError(f"the data has no column {name!r}; its columns are: {known}")
    return list(columns)
