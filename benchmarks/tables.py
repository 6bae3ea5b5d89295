"""Generated tables for benchmarks. Everything here is synthetic and says so; nothing is real data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORDS = np.array(
    """
    alpha beta gamma delta model train token layer batch epoch shard loss rate drift label image text audio
    river stone cloud paper light night green metal quiet amber north south signal market garden engine
    """.split()  # noqa: SIM905  # forty quoted strings would not be read
)


def batches(rows: int, *, seed: int = 7, batch_rows: int = 250_000) -> Iterator[pa.RecordBatch]:
    """``rows`` x 13 columns: ints, floats, bool, timestamp, strings, nulls; 170 bytes a row in Arrow."""
    rng = np.random.default_rng(seed)
    for first in range(0, rows, batch_rows):
        n = min(batch_rows, rows - first)
        text = [" ".join(WORDS[picks]) for picks in rng.integers(0, len(WORDS), size=(n, 11))]
        nullable = rng.normal(size=n)
        yield pa.RecordBatch.from_pydict(
            {
                "id": pa.array(np.arange(first, first + n, dtype=np.int64)),
                "user": pa.array(rng.integers(0, 1_000_000, n, dtype=np.int64)),
                "age": pa.array(rng.integers(18, 90, n, dtype=np.int16)),
                "height": pa.array(rng.normal(170, 10, n)),
                "income": pa.array(np.round(rng.lognormal(10, 1, n), 2)),
                "score": pa.array(rng.random(n, dtype=np.float32)),
                "maybe": pa.array(nullable, mask=rng.random(n) < 0.1),
                "active": pa.array(rng.random(n) < 0.5),
                "at": pa.array(
                    rng.integers(1_600_000_000_000_000, 1_760_000_000_000_000, n),
                    type=pa.timestamp("us", "UTC"),
                ),
                "country": pa.array(WORDS[rng.integers(0, 20, n)]),
                "token": pa.array([f"{value:016x}" for value in rng.integers(0, 2**62, n)]),
                "text": pa.array(text),
                "label": pa.array(rng.integers(0, 10, n, dtype=np.int8)),
            }
        )


def parquet(path: Path, rows: int, *, compression: str = "zstd") -> Path:
    """Write the table to ``path`` once; a finished file is reused (the name should say rows and codec)."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    stream = batches(rows)
    first = next(stream)
    with pq.ParquetWriter(part, first.schema, compression=compression) as writer:
        writer.write_batch(first)
        for batch in stream:
            writer.write_batch(batch)
    part.rename(path)
    return path
