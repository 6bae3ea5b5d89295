"""Telemetry from a file: Parquet or CSV, replayed scrape by scrape.

The columns are those of :data:`compute_guard.usage.samples.SCHEMA`; metric columns may be missing,
``ts_ns``, ``node``, ``gpu_uuid`` and ``synthetic`` may not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from compute_guard.usage.samples import METRICS, SCHEMA, Frame, from_table
from guard_core.errors import UserError


@dataclass(frozen=True, slots=True)
class ReplaySource:
    """Frames of ``step_ns`` each from a recording. Raises UserError for a file it cannot read."""

    path: Path
    step_ns: int = 15_000_000_000
    name: str = "replay"

    def read(self) -> Frame:
        """The whole recording as one frame."""
        return from_table(self._table(), origin=self.path.name)

    def frames(self) -> Iterator[Frame]:
        """The recording cut at multiples of ``step_ns``, oldest first."""
        yield from by_step(self.read(), self.step_ns)

    def _table(self) -> pa.Table:
        if not self.path.is_file():
            raise UserError(f"telemetry file {self.path} does not exist; give a .parquet or .csv file")
        try:
            if self.path.suffix == ".csv":
                return _read_csv(self.path)
            return pq.read_table(self.path)
        except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
            raise UserError(
                f"telemetry file {self.path} is not readable as Parquet or CSV ({error}); record it again"
            ) from error


def _read_csv(path: Path) -> pa.Table:
    """CSV has no lists, so processes are left out; words in a number column are an error."""
    types = {name: SCHEMA.field(name).type for name in SCHEMA.names if name != "processes"}
    table = csv.read_csv(
        path, convert_options=csv.ConvertOptions(column_types=types, null_values=["", "nan"])
    )
    known = [name for name in table.column_names if name in {*types, *METRICS}]
    return table.select(known)


def by_step(frame: Frame, step_ns: int) -> Iterator[Frame]:
    """``frame`` cut into frames of one time step each, oldest first, samples in time order within each."""
    if not len(frame):
        return
    order = np.argsort(frame.ts_ns, kind="stable")
    cell = frame.ts_ns[order] // step_ns
    edges = np.flatnonzero(np.r_[True, cell[1:] != cell[:-1], True])
    seen = frame.processes_by_sample()
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        rows = order[first:last]
        yield frame.take(rows, seen)
