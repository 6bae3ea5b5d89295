"""Parquet, Arrow IPC (Feather 2) and ORC files: their schema and row count are in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from dataset_guard.reading.files import File, extension_of, refusing
from dataset_guard.reading.places import Place, RemotePath, random_access
from dataset_guard.reading.source import BATCH_ROWS, on_threads, windowed
from guard_core.errors import UserError


def open_columnar(paths: Sequence[Place]) -> list[File]:
    """The files at ``paths``. Raises UserError for a damaged one."""
    makers: dict[str, type[ParquetFile | ArrowFile | OrcFile]] = {
        ".parquet": ParquetFile,
        ".pq": ParquetFile,
        ".orc": OrcFile,
    }
    files: list[File] = []
    for path in paths:
        with refusing(path):
            files.append(makers.get(extension_of(path), ArrowFile)(path))
    return files


class ParquetFile:
    """A Parquet file; row groups outside the window are skipped."""

    def __init__(self, path: Place) -> None:
        self.path = path
        with self._open() as file:
            self.schema = file.schema_arrow
            self.num_rows = file.metadata.num_rows
            self._group_rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self.seek_rows = max(self._group_rows, default=1)

    def _open(self) -> Any:
        import pyarrow.parquet as pq

        if isinstance(self.path, RemotePath):
            # Column chunks of a row group in few large requests; the file is closed with the reader.
            return pq.ParquetFile(self.path.path, filesystem=self.path.filesystem, pre_buffer=True)
        return pq.ParquetFile(self.path, memory_map=False)

    def batches(
        self, columns: Sequence[str] | None, first_row: int, rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of about 65,536 rows."""
        groups, at, skip = [], 0, first_row
        for i, count in enumerate(self._group_rows):
            if at + count > first_row and (rows is None or at < first_row + rows):
                groups.append(i)
            elif at + count <= first_row:
                skip -= count
            at += count
        if not groups:
            return
        with self._open() as file:
            # A name is a whole column: iter_batches would take "a.b" for a member of a struct column a.
            wanted = None if columns is None else [c for c in columns if c in self.schema.names]
            # One row group at a time: asked for all at once, pyarrow 25 keeps many of them decoded (eight
            # times the memory on a file of 40 groups) and spends nearly twice the CPU.
            found = (
                batch
                for group in groups
                for batch in file.iter_batches(
                    BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=on_threads()
                )
            )
            selected = found if wanted is None else (batch.select(wanted) for batch in found)
            yield from windowed(selected, skip, rows)


class ArrowFile:
    """An Arrow IPC file or stream; Feather version 2 is the file format."""

    def __init__(self, path: Place) -> None:
        self.path = path
        with path.open("rb") as handle:
            magic = handle.read(6)
        if magic.startswith(b"FEA1"):
            raise UserError(f"{path} is Feather version 1, which is obsolete; write it again as version 2")
        self._is_file = magic == b"ARROW1"
        with random_access(path) as raw:
            reader = self._reader(raw)
            self.schema = reader.schema
            self.num_rows = sum(batch.num_rows for batch in self._all(reader))

    def _reader(self, raw: Any) -> Any:
        return pa.ipc.open_file(raw) if self._is_file else pa.ipc.open_stream(raw)

    def _all(self, reader: Any) -> Iterator[pa.RecordBatch]:
        if self._is_file:
            return (reader.get_batch(i) for i in range(reader.num_record_batches))
        return iter(reader)

    def batches(
        self, columns: Sequence[str] | None, first_row: int, rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        """The file's own batches, from mapped memory where the file is local."""
        remote = isinstance(self.path, RemotePath)
        with random_access(self.path) if remote else pa.memory_map(str(self.path)) as raw:
            found = self._all(self._reader(raw))
            selected = found if columns is None else (batch.select(columns) for batch in found)
            yield from windowed(selected, first_row, rows)


class OrcFile:
    """An ORC file, stripe by stripe."""

    def __init__(self, path: Place) -> None:
        self.path = path
        file = self._open()
        self.schema = file.schema
        self.num_rows = file.nrows

    def _open(self) -> Any:
        from pyarrow import orc

        return orc.ORCFile(random_access(self.path))

    def batches(
        self, columns: Sequence[str] | None, first_row: int, rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        """One batch for each stripe."""
        file = self._open()
        wanted = None if columns is None else list(columns)
        stripes = (file.read_stripe(i, columns=wanted) for i in range(file.nstripes))
        yield from windowed(stripes, first_row, rows)
