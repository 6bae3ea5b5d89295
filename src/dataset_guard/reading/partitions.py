"""Hive partitions: folders named ``column=value``, whose names are data.

Types and values are taken as ``pyarrow.dataset.dataset(path, partitioning="hive")`` takes them: int32 where
every value is a whole number that fits, else string; ``__HIVE_DEFAULT_PARTITION__`` is null; names are
percent-decoded. So a folder and its pyarrow dataset have one fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from dataset_guard.reading.places import Place
from guard_core.errors import UserError

if TYPE_CHECKING:
    from dataset_guard.reading.files import File

_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"^-?\d+$", re.ASCII)


@dataclass(frozen=True, slots=True)
class PartitionedFile:
    """A data file with the columns that its folders' names hold."""

    file: File
    schema: pa.Schema
    values: tuple[tuple[str, Any], ...]

    @property
    def path(self) -> Place:
        """The file's own."""
        return self.file.path

    @property
    def num_rows(self) -> int:
        """The file's own."""
        return self.file.num_rows

    def batches(
        self, columns: Sequence[str] | None, first_row: int, rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        """The file's batches with the partition's columns; one of the file's is read for its row count."""
        constants = dict(self.values)
        wanted = self.schema.names if columns is None else list(columns)
        own = [name for name in wanted if name not in constants]
        # Of partition columns alone, the row count still comes from the file.
        asked = own or list(self.file.schema.names[:1])
        schema = pa.schema([self.schema.field(name) for name in wanted])
        for batch in self.file.batches(asked, first_row, rows):
            arrays = [
                pa.repeat(constants[name], batch.num_rows) if name in constants else batch.column(name)
                for name in wanted
            ]
            yield pa.record_batch(arrays, schema=schema)


def partitioned(files: Sequence[File], root: Place) -> Sequence[File]:
    """``files`` with their partition columns; as they are when no folder below ``root`` is a partition.

    Raises UserError when files disagree about the partition columns, or hold one themselves.
    """
    folders = [str(file.path.relative_to(root).parent.as_posix()) for file in files]  # type: ignore[arg-type]
    keys = [_keys(folder) for folder in folders]
    if not any(keys):
        return files
    for file, found in zip(files, keys, strict=True):
        if found != keys[0]:
            said = ", ".join(found) or "no partition"
            raise UserError(
                f"{file.path} lies in {said} where {files[0].path} lies in {', '.join(keys[0]) or 'none'}; "
                "give all files the same partition columns"
            )
        inside = next((name for name in found if name in file.schema.names), None)
        if inside is not None:
            raise UserError(
                f"{file.path} holds a column {inside!r} that the name of its folder holds, too; "
                "drop it from the file, or rename the folder"
            )
    return [_with_values(file, values) for file, values in zip(files, _values(folders), strict=True)]


def _keys(folder: str) -> list[str]:
    return [key for key, _ in _segments(folder)]


def _segments(folder: str) -> list[tuple[str, str | None]]:
    found = [part.partition("=") for part in folder.split("/") if "=" in part]
    return [(unquote(key), None if value == _NULL else unquote(value)) for key, _, value in found]


def _values(folders: Sequence[str]) -> Iterator[list[tuple[str, Any]]]:
    """For each folder its (column, pyarrow scalar) pairs, in the order of the path."""
    found = [_segments(folder) for folder in folders]
    columns = [[values[i][1] for values in found] for i in range(len(found[0]))]
    types = [pa.int32() if all(map(_whole, column)) else pa.string() for column in columns]
    types = [t if any(v is not None for v in c) else pa.string() for t, c in zip(types, columns, strict=True)]
    for values in found:
        yield [
            (name, pa.scalar(value if value is None or t == pa.string() else int(value), t))
            for (name, value), t in zip(values, types, strict=True)
        ]


def _whole(value: str | None) -> bool:
    return value is None or (_INTEGER.match(value) is not None and -(2**31) <= int(value) < 2**31)


def _with_values(file: File, values: Sequence[tuple[str, Any]]) -> PartitionedFile:
    fields = [*file.schema, *(pa.field(name, value.type) for name, value in values)]
    return PartitionedFile(file, pa.schema(fields), tuple(values))
