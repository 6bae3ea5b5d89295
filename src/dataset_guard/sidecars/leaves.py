"""``leaves.arrow``: the leaves of a version, one row for each block and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from dataset_guard.hashing.fingerprint import Leaves


def write_leaves(path: Path, leaves: Leaves) -> None:
    """Write leaves of shape (blocks, columns, 32). Raises OSError."""
    blocks, columns = leaves.shape[:2]
    block, column = np.meshgrid(np.arange(blocks), np.arange(columns), indexing="ij")
    digests = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), blocks * columns, [None, pa.py_buffer(np.ascontiguousarray(leaves).tobytes())]
    )
    batch = pa.record_batch(
        [pa.array(block.ravel(), pa.uint32()), pa.array(column.ravel(), pa.uint32()), digests],
        names=["block", "column", "leaf"],
    )
    shape = {"blocks": str(blocks), "columns": str(columns)}
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema.with_metadata(shape)) as writer,
    ):
        writer.write_batch(batch.replace_schema_metadata(shape))


def read_leaves(path: Path) -> Leaves:
    """Leaves of shape (blocks, columns, 32), as written."""
    with pa.OSFile(str(path)) as raw:
        reader = pa.ipc.open_file(raw)
        table = reader.read_all()
        metadata = reader.schema.metadata
    shape = int(metadata[b"blocks"]), int(metadata[b"columns"]), 32
    parts = [
        np.frombuffer(c.buffers()[1], np.uint8)[: len(c) * 32] for c in table.column("leaf").chunks if len(c)
    ]
    return np.concatenate(parts).reshape(shape) if parts else np.empty(shape, np.uint8)
