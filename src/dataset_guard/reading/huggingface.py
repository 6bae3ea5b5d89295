"""Hugging Face ``datasets.Dataset``: its rows as Arrow tables, in the order the dataset gives them.

Its own fingerprint names the file and the code it came from; nothing of that is used here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from dataset_guard.reading.source import BATCH_ROWS, Source, checked_columns, windowed
from guard_core.errors import UserError


class HuggingFaceSource(Source):
    """A ``datasets.Dataset`` in memory or mapped from its cache; selections and shuffles are followed."""

    def __init__(self, dataset: Any) -> None:
        self.uri = "memory:huggingface"
        self.kind = "huggingface"
        self._dataset = dataset.with_format("arrow")
        self.schema = pa.schema(list(dataset.features.arrow_schema))  # without Hugging Face's metadata
        self.num_rows = dataset.num_rows
        self.num_bytes = dataset.data.nbytes

    def stream(
        self, *, columns: Sequence[str] | None = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of about 65,536 rows."""
        names = checked_columns(self.schema, columns)
        found = self._dataset if names is None else self._dataset.select_columns(names)
        tables = found.iter(batch_size=BATCH_ROWS)
        batches = (batch for table in tables for batch in table.to_batches())
        yield from windowed(batches, first_row, rows)


def from_huggingface(data: Any) -> HuggingFaceSource:
    """A source over a ``datasets.Dataset``. Raises UserError for what holds several, or streams."""
    kind = type(data).__name__
    if kind.endswith("DatasetDict"):
        known = ", ".join(repr(name) for name in data)
        raise UserError(f"this holds several splits ({known}); pass one of them")
    if kind == "IterableDataset":
        raise UserError(
            "a streaming dataset can be read only once, and its data must be read again to be verified; "
            "load it without streaming=True"
        )
    return HuggingFaceSource(data)
