"""Ray Data datasets: executed once, in row order, then read block by block from the object store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from dataset_guard.reading.source import Source, checked_columns, windowed


class RayDatasetSource(Source):
    """A ``ray.data.Dataset``. It is materialised, so that reading it again gives the same rows.

    ``blocks`` are (object reference of an Arrow table, its rows) in row order; a reader holds one of them.
    """

    def __init__(self, dataset: Any) -> None:
        import ray

        self.uri = "memory:ray"
        self.kind = "ray"
        refs = _in_row_order(dataset).to_arrow_refs()
        described = ray.get([ray.remote(_described).options(num_cpus=0.1).remote(ref) for ref in refs])
        self.blocks = tuple((ref, rows) for ref, (_, rows, _) in zip(refs, described, strict=True) if rows)
        schemas = [schema for schema, rows, _ in described if rows] or [s for s, _, _ in described]
        self.schema = schemas[0] if schemas else pa.schema([])
        self.num_rows = sum(rows for _, rows in self.blocks)
        self.num_bytes = sum(size for _, _, size in described)

    def stream(
        self, *, columns: Sequence[str] | None = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The batches of each block; blocks outside the window are not fetched."""
        import ray

        names = checked_columns(self.schema, columns)
        at, end = 0, None if rows is None else first_row + rows
        for ref, count in self.blocks:
            skip, stop = max(0, first_row - at), count if end is None else min(count, end - at)
            at += count
            if skip < stop:
                table = ray.get(ref).replace_schema_metadata(None)
                selected = table if names is None else table.select(names)
                yield from windowed(selected.to_batches(), skip, stop - skip)


def _in_row_order(dataset: Any) -> Any:
    """``dataset``, to be executed with its rows in order, which Ray does not promise by itself."""
    import ray.data

    copied = ray.data.Dataset.copy(dataset, _deep_copy=True)
    copied.context.execution_options.preserve_order = True
    return copied


def _described(table: Any) -> tuple[pa.Schema, int, int]:
    """(schema without metadata, rows, bytes) of a block, found out where it lies."""
    return table.schema.remove_metadata(), table.num_rows, table.nbytes
