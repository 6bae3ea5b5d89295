"""A folder of image files: one row per file, its bytes and the name of the folder it lies in.

Columns: ``image`` (binary: the file's bytes, never decoded, because two decoders give two pictures) and, when
files lie in folders, ``label`` (string: the name of the innermost folder). Row order is that of the relative
paths. File names are no column: a picture under another name is the same row, so duplicates are found; which
file a row is, the manifest says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from dataset_guard.reading.files import FilesSource, refusing
from dataset_guard.reading.places import Place
from dataset_guard.reading.source import checked_columns

IMAGE, LABEL = "image", "label"
_BATCH_BYTES = 32 << 20
_BATCH_FILES = 1024
_BYTES_ONLY = pa.schema([(IMAGE, pa.binary())])
_LABELLED = pa.schema([(IMAGE, pa.binary()), (LABEL, pa.string())])


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image: a row of its own."""

    path: Place
    label: str | None = None
    schema: pa.Schema = _BYTES_ONLY
    num_rows: int = 1

    def batches(
        self, columns: Sequence[str] | None, first_row: int, rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        """One row."""
        if first_row == 0 and (rows is None or rows > 0):
            yield rows_of([self], columns)


def open_images(paths: Sequence[Place]) -> list[ImageFile]:
    """The images at ``paths``, without labels yet (:func:`labelled`)."""
    return [ImageFile(path) for path in paths]


def labelled(paths: Sequence[Place], root: Place) -> list[ImageFile]:
    """The images at ``paths`` with the names of their folders below ``root``; null directly in it."""
    files = open_images(paths)
    parents = [path.relative_to(root).parent.name for path in paths]  # type: ignore[arg-type]
    if not any(parents):
        return files
    return [
        replace(file, label=parent or None, schema=_LABELLED)
        for file, parent in zip(files, parents, strict=True)
    ]


def rows_of(files: Sequence[ImageFile], columns: Sequence[str] | None) -> pa.RecordBatch:
    """One batch with a row for each of ``files``. Reads them only when their bytes are asked for."""
    schema = files[0].schema
    names = schema.names if columns is None else list(columns)
    arrays = []
    for name in names:
        if name == LABEL:
            arrays.append(pa.array([file.label for file in files], pa.string()))
        else:
            arrays.append(pa.array([_bytes_of(file.path) for file in files], pa.binary()))
    return pa.record_batch(arrays, schema=pa.schema([schema.field(name) for name in names]))


def _bytes_of(path: Place) -> bytes:
    with refusing(path), path.open("rb") as raw:
        content: bytes = raw.read()
    return content


class ImagesSource(FilesSource):
    """A folder of images, some thousand at a time."""

    def __init__(self, path: Place, root: Place, kind: str, files: Sequence[ImageFile]) -> None:
        super().__init__(path, root, kind, files)
        self._images = files

    def stream(
        self, *, columns: Sequence[str] | None = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of up to 1,024 images or about 32 MiB."""
        names = checked_columns(self.schema, columns)
        end = None if rows is None else first_row + rows
        waiting: list[ImageFile] = []
        held = 0
        for file in self._images[first_row:end]:
            size = file.path.stat().st_size
            if waiting and (held + size > _BATCH_BYTES or len(waiting) == _BATCH_FILES):
                yield rows_of(waiting, names)
                waiting, held = [], 0
            waiting.append(file)
            held += size
        if waiting:
            yield rows_of(waiting, names)
