"""Tables that are in memory already, and ``pyarrow.dataset`` datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from dataset_guard.reading.source import Source, checked_columns, windowed
from guard_core.errors import UserError


class TableSource(Source):
    """A table in memory; ``kind`` says what it was made from."""

    def __init__(self, table: pa.Table, *, kind: str = "table") -> None:
        self.uri = f"memory:{kind}"
        self.kind = kind
        self._table = table
        self.schema = table.schema
        self.num_rows = table.num_rows
        self.num_bytes = table.nbytes

    def stream(
        self, *, columns: Sequence[str] | None = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Zero-copy batches along the table's chunks."""
        names = checked_columns(self.schema, columns)
        table = self._table if names is None else self._table.select(names)
        if not table.num_columns:
            return
        yield from table.slice(first_row, rows).to_batches()


class DatasetSource(Source):
    """A ``pyarrow.dataset.Dataset``, fragment by fragment in its own order.

    It names no files: a dataset may hold columns that are in no file (partitions), or only some of a
    folder's files, so it cannot be opened again from its path (:func:`dataset_guard.reading.open_source`
    gives the plain folder for a dataset that can). Registering it keeps a copy.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.kind = "dataset"
        self.schema = dataset.schema
        paths = list(getattr(dataset, "files", []))
        self.uri = f"dataset:{paths[0]}" if paths else "memory:dataset"

    def stream(
        self, *, columns: Sequence[str] | None = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches as the dataset's format gives them."""
        names = checked_columns(self.schema, columns)
        return windowed(self._all(names), first_row, rows)

    def _all(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        try:
            for fragment in self._dataset.get_fragments():
                yield from fragment.to_batches(schema=self.schema, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"the dataset {self.uri} cannot be read: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def from_pandas(frame: Any) -> TableSource:
    """A pandas frame. Named index levels become columns; an unnamed index is bookkeeping, not data.

    Raises UserError for duplicate or non-text column names and for columns of mixed Python objects.
    """
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"the frame has a column named {name!r}, which is not text; rename it")
        if names.count(name) > 1:
            raise UserError(f"the frame has two columns named {name!r}; rename one of them")
    levels = [level for level in frame.index.names if level is not None]
    if levels:
        unnamed = [i for i, level in enumerate(frame.index.names) if level is None]
        frame = (frame.droplevel(unnamed) if unnamed else frame).reset_index()
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        column = getattr(error, "args", ("", ""))[-1]
        raise UserError(
            f"the frame cannot be read ({first_line(Exception(column))}); give each column one type"
        ) from error
    return TableSource(table.replace_schema_metadata(None), kind="pandas")


def from_polars(frame: Any) -> TableSource:
    """A polars frame. Raises UserError for a lazy one and for columns without an Arrow type."""
    if type(frame).__name__ == "LazyFrame":
        raise UserError("a lazy polars frame has no rows yet; pass frame.collect()")
    try:
        return TableSource(frame.to_arrow(), kind="polars")
    except Exception as error:
        raise UserError(f"the polars frame cannot be read ({first_line(error)}); cast its columns") from error
