"""The file manifest: which bytes held the data when it was registered.

Each file is named by its path relative to the data's root and known by BLAKE3 and size. It is the fast
path of verification: unchanged bytes need no decoding. Times of modification are recorded nowhere and
prove nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from dataset_guard.reading.files import listed
from dataset_guard.reading.places import Place, RemotePath
from dataset_guard.reading.source import Source
from guard_core.errors import Tampered, UserError


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its relative path, BLAKE3 (64 hex), bytes, and how many rows it holds."""

    path: str
    blake3: str
    bytes: int
    rows: int

    def to_json(self) -> dict[str, Any]:
        """The record's form."""
        return {"path": self.path, "blake3": self.blake3, "bytes": self.bytes, "rows": self.rows}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FileEntry:
        """Inverse of :meth:`to_json`."""
        return cls(value["path"], value["blake3"], int(value["bytes"]), int(value["rows"]))


_READ_BYTES = 8 << 20
_SMALL_BYTES = 1 << 20
"""Below this, waking other threads costs more than they save."""


def file_digest(path: Place, *, threads: int = blake3.AUTO) -> str:
    """BLAKE3 of a file's bytes, 64 hex: of a local one through a memory map on all cores. Raises OSError."""
    if isinstance(path, RemotePath):
        return _streamed_digest(path, threads)
    size = path.stat().st_size
    if size <= _SMALL_BYTES:
        return blake3(path.read_bytes()).hexdigest()
    return blake3(max_threads=threads).update_mmap(path).hexdigest()


def file_digests(files: Sequence[Place]) -> list[str]:
    """The digests of ``files``. Of many, a core takes one each: that splits better than single files do.

    Raises UserError, naming the file.
    """
    cores = os.cpu_count() or 1
    if len(files) < 2 * cores:
        return [_readable_digest(file) for file in files]
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(partial(_readable_digest, threads=1), files))


def _readable_digest(file: Place, threads: int = blake3.AUTO) -> str:
    try:
        return file_digest(file, threads=threads)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error}); try again") from error


def _streamed_digest(path: RemotePath, threads: int) -> str:
    hasher = blake3(max_threads=threads)
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def manifest_of(source: Source) -> tuple[FileEntry, ...]:
    """The manifest of ``source``, in row order; empty for data that is in no file. Raises UserError."""
    digests = file_digests(source.files)
    return tuple(
        FileEntry(source.name_of(file), digest, file.stat().st_size, rows)
        for file, digest, rows in zip(source.files, digests, source.file_rows, strict=True)
    )


@dataclass(frozen=True, slots=True)
class FileChanges:
    """How files on disk differ from a manifest; all empty when every byte is as it was."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    different: tuple[str, ...]
    moved: tuple[tuple[str, str], ...] = ()
    """(name now, name it was registered under) of extra or different files with registered bytes."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.different)

    def sentences(self) -> list[str]:
        """One sentence per file."""
        was = {now: f", those of {before}" for now, before in self.moved}
        return (
            [f"{name} is missing" for name in self.missing]
            + [
                f"{name} was added" + was.get(name, "").replace("those", "with the bytes")
                for name in self.extra
            ]
            + [f"{name} has other bytes than were registered" + was.get(name, "") for name in self.different]
        )


def compare(entries: Sequence[FileEntry], path: Place) -> FileChanges:
    """``entries`` against what lies at ``path`` now: a file, or the folder that ``entries`` are relative to.

    Every file is read; sizes only save the reading of files that cannot be the same.
    """
    found = _found_at(path, entries)
    there = [entry for entry in entries if entry.path in found]
    fits = [entry for entry in there if found[entry.path].stat().st_size == entry.bytes]
    digests = file_digests([found[entry.path] for entry in fits])
    same = {entry.path for entry, digest in zip(fits, digests, strict=True) if digest == entry.blake3}
    different = [entry.path for entry in there if entry.path not in same]
    names = {entry.path for entry in entries}
    extra = sorted(name for name in found if name not in names)
    return FileChanges(
        missing=tuple(e.path for e in entries if e.path not in found),
        extra=tuple(extra),
        different=tuple(different),
        moved=tuple(_moved(entries, {name: found[name] for name in (*extra, *different)})),
    )


def _moved(entries: Sequence[FileEntry], files: Mapping[str, Place]) -> Iterator[tuple[str, str]]:
    """Which of ``files`` hold what was registered under another name; read only where a size fits."""
    known = {entry.blake3: entry.path for entry in entries}
    sizes = {entry.bytes for entry in entries}
    for name, file in files.items():
        if file.stat().st_size in sizes:
            before = known.get(file_digest(file))
            if before is not None and before != name:
                yield name, before


def _found_at(path: Place, entries: Sequence[FileEntry]) -> dict[str, Place]:
    if path.is_file():  # many registered files may have been joined into one: then none of them is there
        return {entries[0].path: path} if len(entries) == 1 else {}
    try:
        return {file.relative_to(path).as_posix(): file for file in listed(path)}  # type: ignore[arg-type]
    except UserError:  # no data files at all
        return {}


def place_in(root: Path, entry: FileEntry, entries: Sequence[FileEntry]) -> Path:
    """Where one of ``entries`` lies: below ``root``, or ``root`` itself when that is the one file."""
    return root if root.is_file() and len(entries) == 1 else root / entry.path


def sha256_of(ref: str, entry: FileEntry, path: Path) -> str:
    """SHA-256 (64 hex) of bytes of ``ref`` whose BLAKE3 was signed: both over the same read.

    Raises Tampered for other bytes, UserError for a file that cannot be read.
    """
    outward, signed = hashlib.sha256(), blake3()
    try:
        with path.open("rb") as file:
            while piece := file.read(_SMALL_BYTES):
                outward.update(piece)
                signed.update(piece)
    except OSError as error:
        raise UserError(
            f"{entry.path} of {ref} cannot be read ({error.strerror or error}); restore it, then export again"
        ) from error
    if signed.hexdigest() != entry.blake3:
        raise Tampered(f"{entry.path} of {ref} has other bytes than were registered")
    return outward.hexdigest()


def file_of_row(entries: Sequence[FileEntry], row: int) -> str | None:
    """The file that holds ``row``; None when there are no files, the last one for a row past the end."""
    for entry in entries:
        if row < entry.rows:
            return entry.path
        row -= entry.rows
    return entries[-1].path if entries else None
