"""Data that is in no file is kept in the home when it is registered, so that it can be read again.

It is written as Parquet; as Arrow IPC when Parquet would change a type (unions, intervals, run-end
encoding), because what is read back must have the fingerprint that was signed.
"""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa

from dataset_guard.hashing.canonical import canonical_schema
from dataset_guard.reading import Source, open_source
from guard_core.errors import UserError


def keep(source: Source, folder: Path) -> Source:
    """Write ``source`` below ``folder`` and return the kept copy. Raises OSError, UserError."""
    folder.mkdir()
    if _parquet_holds(source.schema):
        import pyarrow.parquet as pq

        path = folder / "part-0.parquet"
        with pq.ParquetWriter(path, source.schema, compression="zstd", compression_level=1) as writer:
            for batch in source.batches():
                writer.write_batch(batch)
    else:
        path = folder / "part-0.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, source.schema) as writer:
            for batch in source.batches():
                writer.write_batch(batch)
    return open_source(folder)


def _parquet_holds(schema: pa.Schema) -> bool:
    """Whether a Parquet file with this schema is read back with the same logical types."""
    import pyarrow.parquet as pq

    if not len(schema):
        raise UserError("data without columns cannot be registered; give it at least one column")
    sink = io.BytesIO()
    try:
        pq.write_table(schema.empty_table(), sink)
        found = pq.read_schema(pa.BufferReader(sink.getvalue()))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return [(c.name, c.type) for c in canonical_schema(found)] == [
        (c.name, c.type) for c in canonical_schema(schema)
    ]
