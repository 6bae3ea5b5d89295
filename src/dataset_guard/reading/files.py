"""Files and folders of files, of one format each, on disk or on a remote filesystem.

A folder's files are taken in the order of their relative paths (as UTF-8 bytes, ``/`` between parts).
Names that begin with ``.`` or ``_`` are bookkeeping of other tools and are left out; every other file
must be data, because a file that was left out silently would not be covered by the fingerprint.
Folders named ``column=value`` are Hive partitions (:mod:`dataset_guard.reading.partitions`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Protocol

import pyarrow as pa

from dataset_guard.hashing.canonical import canonical_schema
from dataset_guard.reading.memory import first_line
from dataset_guard.reading.places import Place, RemotePath
from dataset_guard.reading.source import Source, checked_columns
from guard_core.errors import UserError


class File(Protocol):
    """One open-able data file: its schema, its row count, its rows."""

    @property
    def path(self) -> Place:
        """Where it lies."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""

    @property
    def num_rows(self) -> int:
        """Its rows."""

    def batches(
        self, columns: Sequence[str] | None, first_row: int, rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        """As :meth:`Source.stream`."""


Opener = Callable[[Sequence[Place]], Sequence[File]]
"""Opens all files of a source together, because text formats settle their types together."""


def _columnar(paths: Sequence[Place]) -> Sequence[File]:
    from dataset_guard.reading.columnar import open_columnar

    return open_columnar(paths)


def _csv(paths: Sequence[Place]) -> Sequence[File]:
    from dataset_guard.reading.delimited import open_delimited

    return open_delimited(paths)


def _json(paths: Sequence[Place]) -> Sequence[File]:
    from dataset_guard.reading.json_lines import open_json_lines

    return open_json_lines(paths)


def _images(paths: Sequence[Place]) -> Sequence[File]:
    from dataset_guard.reading.images import open_images

    return open_images(paths)


FORMATS: dict[str, tuple[str, Opener]] = {
    ".parquet": ("parquet", _columnar),
    ".pq": ("parquet", _columnar),
    ".arrow": ("arrow", _columnar),
    ".feather": ("arrow", _columnar),
    ".ipc": ("arrow", _columnar),
    ".arrows": ("arrow", _columnar),
    ".orc": ("orc", _columnar),
    ".csv": ("csv", _csv),
    ".tsv": ("csv", _csv),
    ".jsonl": ("jsonl", _json),
    ".ndjson": ("jsonl", _json),
    ".json": ("jsonl", _json),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"), ("images", _images)),
}
"""File name extension -> (kind, opener). Text formats may also end in ``.gz``."""


def extension_of(path: Place) -> str:
    """The extension that decides the format; that of ``x.csv.gz`` is ``.csv``."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz" and len(suffixes) > 1 and suffixes[-2] in FORMATS:
        if FORMATS[suffixes[-2]][0] in ("csv", "jsonl"):
            return suffixes[-2]
        return ".gz"
    return suffixes[-1] if suffixes else ""


class FilesSource(Source):
    """One file, or the files of a folder end to end."""

    def __init__(self, path: Place, root: Place, kind: str, files: Sequence[File]) -> None:
        self.uri = str(path.absolute())
        self.kind = kind
        self.root = root
        self._parts = files
        self.files = tuple(f.path for f in files)
        self.file_rows = tuple(f.num_rows for f in files)
        self.schema = files[0].schema
        self.seek_rows = max(getattr(f, "seek_rows", 1) for f in files)
        self.num_rows = sum(self.file_rows)
        self.num_bytes = sum(f.stat().st_size for f in self.files)

    def stream(
        self, *, columns: Sequence[str] | None = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches as the files give them; files (and row groups) outside the window are not opened."""
        names = checked_columns(self.schema, columns)
        start, end = first_row, None if rows is None else first_row + rows
        at = 0
        for part, count in zip(self._parts, self.file_rows, strict=True):
            skip = max(0, start - at)
            stop = count if end is None else min(count, end - at)
            at += count
            if skip < stop:
                with refusing(part.path):
                    yield from part.batches(names, skip, stop - skip)


class refusing:  # noqa: N801 - reads as a clause: ``with refusing(path):``
    """Turns what pyarrow and the system say about a bad file into one sentence that names it."""

    def __init__(self, path: Place) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, UserError):
            return
        if isinstance(error, FileNotFoundError):
            raise UserError(f"there is no file or folder {self._path}; check the path") from error
        if isinstance(error, PermissionError):
            raise UserError(f"{self._path} may not be read by this user; change its permissions") from error
        if isinstance(error, OSError) and isinstance(self._path, RemotePath):
            raise UserError(
                f"{self._path} cannot be read ({_reason(error)}); check the URL, the credentials, the store"
            ) from error
        if isinstance(error, pa.ArrowException | OSError | EOFError | UnicodeDecodeError):
            raise UserError(
                f"{self._path} is damaged or not what its name says ({_reason(error)}); "
                "restore it, or write it again"
            ) from error


def _reason(error: BaseException) -> str:
    return first_line(error).partition(": '")[0][:160]


def open_path(path: Place, *, only: Collection[str] | None = None) -> FilesSource:
    """The source at ``path``. Raises UserError.

    Of a folder in which all files named ``only`` (relative to it) are there, these alone.
    """
    from dataset_guard.reading.images import ImagesSource, labelled
    from dataset_guard.reading.partitions import partitioned

    with refusing(path):
        if path.is_dir():
            names = listed(path)
            root = path
            if only is not None:
                wanted = set(only)
                kept = [name for name in names if name.relative_to(path).as_posix() in wanted]  # type: ignore[arg-type]
                names = kept if len(kept) == len(wanted) else names
        else:
            path.stat()
            names, root = [path], path.parent
        kind, opener = _format(path, names)
        for name in names:
            if name.stat().st_size == 0:
                raise UserError(f"{name} is empty (0 bytes); remove it or write it again")
            if isinstance(name, Path):
                with name.open("rb"):
                    pass  # permission is asked here, where the answer is plain
    if kind == "images":
        return ImagesSource(path, root, kind, labelled(names, root))
    files = partitioned(opener(names), root)
    _refuse_mixed(files)
    return FilesSource(path, root, kind, files)


def listed(folder: Place) -> list[Place]:
    """The data files of ``folder`` in row order. Raises UserError for none."""
    found = _below(folder) if isinstance(folder, Path) else _remote_below(folder)
    if not found:
        raise UserError(f"the folder {folder} holds no data files; check the path")
    return [file for _, file in sorted((name.as_posix().encode(), file) for name, file in found)]


def _remote_below(folder: RemotePath) -> list[tuple[PurePath, Place]]:
    named = [(file.relative_to(folder), file) for file in folder.files()]
    return [(n, f) for n, f in named if not any(part.startswith((".", "_")) for part in n.parts)]


def _below(folder: Path) -> list[tuple[PurePath, Place]]:
    found: list[tuple[PurePath, Place]] = []

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith((".", "_"))]
        kept = [Path(parent, f) for f in files if not f.startswith((".", "_"))]
        found += [(file.relative_to(folder), file) for file in kept]
    return found


def _format(path: Place, files: Sequence[Place]) -> tuple[str, Opener]:
    if {file.name for file in files} >= {"dataset_info.json", "state.json"}:
        raise UserError(
            f"{path} was saved by Hugging Face's save_to_disk; open it with datasets.load_from_disk and "
            "register the dataset from Python"
        )
    first: tuple[str, Opener] | None = None
    for file in files:
        extension = extension_of(file)
        if extension not in FORMATS:
            known = ", ".join(sorted(FORMATS))
            raise UserError(
                f"{file} has the extension {extension or '(none)'!r}, which is not a known data format; "
                f"known are {known}"
            )
        found = FORMATS[extension]
        if first is not None and found[0] != first[0]:
            raise UserError(
                f"{file} is {found[0]} but {files[0]} is {first[0]}; keep one format in the folder {path}"
            )
        first = first or found
    if first is None:  # a path always has files here
        raise UserError(f"{path} holds no data")
    return first


def _refuse_mixed(files: Sequence[File]) -> None:
    wanted: dict[str, str] | None = None
    for file in files:
        try:
            found = {c.name: c.type for c in canonical_schema(file.schema)}
        except UserError as error:
            raise UserError(f"{file.path}: {error}") from error
        if wanted is None:
            wanted = found
        elif found != wanted:
            raise UserError(
                f"{file.path} {_difference(found, wanted)}, unlike {files[0].path}; give all files one schema"
            )


def _difference(found: dict[str, str], wanted: dict[str, str]) -> str:
    for name, kind in wanted.items():
        if name not in found:
            return f"has no column {name!r}"
        if found[name] != kind:
            return f"has column {name!r} as {found[name]} instead of {kind}"
    extra = next(name for name in found if name not in wanted)
    return f"has an extra column {extra!r}"
