"""Telemetry kept as Parquet under ``<home>/telemetry``, one directory per UTC hour.

A flush writes one new file, atomically (temporary file, fsync, rename), named by its content: writing the
same frame twice leaves one file. Reading selects by time. Retention removes whole hours.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from compute_guard.usage.samples import SCHEMA, Frame, from_table, to_table
from guard_core.errors import UserError
from guard_core.files import write_atomic

_HOUR_NS: Final = 3_600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class History:
    """The telemetry store in ``folder``. ``keep`` is the retention."""

    folder: Path
    keep: timedelta = timedelta(days=30)

    def append(self, frame: Frame) -> tuple[Path, ...]:
        """Store ``frame``; returns the files written, one per hour it touches.

        Raises UserError when the disk refuses; the caller decides whether to go on without history.
        """
        written = []
        hours = frame.ts_ns // _HOUR_NS
        for hour in np.unique(hours).tolist():
            table = to_table(frame.take(np.flatnonzero(hours == hour)))
            written.append(write_parquet(self.folder / _hour_name(hour), table))
        return tuple(written)

    def read(self, start_ns: int, end_ns: int, *, gpu_uuids: frozenset[str] | None = None) -> Frame:
        """Samples with ``start_ns <= ts < end_ns``, of ``gpu_uuids`` only if given, in time order."""
        keep = (pc.field("ts_ns") >= start_ns) & (pc.field("ts_ns") < end_ns)
        if gpu_uuids is not None:
            keep &= pc.field("gpu_uuid").isin(sorted(gpu_uuids))
        tables = []
        first, last = _hour_name(start_ns // _HOUR_NS), _hour_name((end_ns - 1) // _HOUR_NS)
        for folder in sorted(self.folder.glob("hour=*")):
            for path in sorted(folder.glob("*.parquet")) if first <= folder.name <= last else ():
                try:
                    tables.append(pq.read_table(path, filters=keep, schema=SCHEMA))
                except (pa.ArrowInvalid, OSError) as error:
                    raise UserError(
                        f"telemetry file {path} is damaged ({error}); remove it to go on"
                    ) from error
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        return from_table(
            table.sort_by([("ts_ns", "ascending"), ("gpu_uuid", "ascending")]), origin="history"
        )

    def expire(self, now: datetime) -> int:
        """Remove the hours that ended before ``now - keep``; returns how many files went."""
        limit = _hour_name(int((now - self.keep).timestamp()) // 3_600)
        removed = 0
        for folder in sorted(self.folder.glob("hour=*")):
            if folder.name < limit:
                for path in folder.glob("*.parquet"):
                    path.unlink()
                    removed += 1
                if not any(folder.iterdir()):
                    folder.rmdir()
        return removed


def _hour_name(hour: int) -> str:
    return f"hour={datetime.fromtimestamp(hour * 3_600, UTC):%Y-%m-%dT%H}"


def write_parquet(folder: Path, table: pa.Table) -> Path:
    """Write ``table`` into ``folder`` under a name made of its content. Raises UserError as :func:`write`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    body = sink.getvalue().to_pybytes()
    target = folder / f"{hashlib.sha256(body).hexdigest()[:32]}.parquet"
    write(target, body)
    return target


def write(target: Path, body: bytes) -> None:
    """``body`` is at ``target`` whole or not at all. Raises UserError when the disk refuses."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, body)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror}); free space or permissions"
        ) from error
