"""Registered versions for the tests of readers: real data, really registered."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_guard.hashing.fingerprint import BLOCK_ROWS

ROWS = 2 * BLOCK_ROWS + 100


def table(rows=ROWS, *, seed=0):
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "x": random.normal(size=rows),
            "name": pa.array(np.char.add("n", (np.arange(rows) % 97).astype(str))),
            "label": random.integers(0, 3, rows),
        }
    )


def write_changed(path, row, column="label"):
    """Write ``path`` again with one cell changed: same schema, same number of rows."""
    data = pq.read_table(path)
    values = data[column].to_pylist()
    values[row] = values[row] + 1
    place = data.schema.get_field_index(column)
    pq.write_table(
        data.set_column(place, column, pa.array(values, data[column].type)), path, row_group_size=50_000
    )


def reads(home):
    """The audit events of reads so far."""
    return list(home.audit.records(kind="dataset.read"))
