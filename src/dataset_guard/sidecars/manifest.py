"""The file manifest: which bytes held the data when it was registered.

Each file is named by its path relative to the data's root and known by BLAKE3 and size. It is the fast path
of verification: unchanged bytes need no decoding. Times of modification are recorded nowhere and prove
nothing. Where tags under the tenant's key are at hand (:mod:`dataset_guard.sidecars.file_tags`), they say
which files are unchanged; BLAKE3 has the last word on all others.
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
from dataset_guard.sidecars.file_tags import LEAST_BYTES, Expected, FileTags
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
_SMALL_BYTES = LEAST_BYTES
"""Below this, waking other threads costs more than they save."""


def file_digest(path: Place, *, threads: int = blake3.AUTO, tags: FileTags | None = None) -> str:
    """BLAKE3 of a file's bytes, 64 hex: of a local one through a memory map on all cores. Raises OSError.

    ``tags`` get those of a large local file.
    """
    if isinstance(path, RemotePath):
        return _streamed_digest(path, threads)
    size = path.stat().st_size
    if size <= _SMALL_BYTES:
        return blake3(path.read_bytes()).hexdigest()
    if tags is not None and tags.fast:
        return tags.digest(path, threads=threads)
    return blake3(max_threads=threads).update_mmap(path).hexdigest()


def file_digests(files: Sequence[Place], tags: FileTags | None = None) -> list[str]:
    """The digests of ``files``. Of many, a core takes one each: that splits better than single files do.

    ``tags`` get those of the large ones. Raises UserError, naming the file.
    """
    cores = os.cpu_count() or 1
    if len(files) < 2 * cores:
        return [_readable_digest(file, tags=tags) for file in files]
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(partial(_readable_digest, threads=1, tags=tags), files))


def _readable_digest(file: Place, *, threads: int = blake3.AUTO, tags: FileTags | None) -> str:
    try:
        return file_digest(file, threads=threads, tags=tags)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error}); try again") from error


def _streamed_digest(path: RemotePath, threads: int) -> str:
    hasher = blake3(max_threads=threads)
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def manifest_of(
    source: Source, *, tags: FileTags | None = None, before: Sequence[FileEntry] = ()
) -> tuple[FileEntry, ...]:
    """The manifest of ``source``, in row order; empty for data that is in no file.

    Files of ``before`` are recognised by their ``tags``, which get those of the others. Raises UserError.
    """
    names = [source.name_of(file) for file in source.files]
    sizes = [file.stat().st_size for file in source.files]
    named, sized = {entry.path: entry for entry in before}, {entry.bytes: entry for entry in before}
    may_be = [
        named[name] if name in named and named[name].bytes == size else sized.get(size)
        for name, size in zip(names, sizes, strict=True)
    ]
    known = _same(source.files, may_be, tags)
    unknown = [file for file, same in zip(source.files, known, strict=True) if same is None]
    others = iter(file_digests(unknown, tags))
    return tuple(
        FileEntry(name, next(others) if same is None else same.blake3, size, rows)
        for name, same, size, rows in zip(names, known, sizes, source.file_rows, strict=True)
    )


def _same(
    files: Sequence[Place], may_be: Sequence[FileEntry | None], tags: FileTags | None
) -> list[FileEntry | None]:
    """For each file the entry of equal size that it ``may_be``, where it has the tags of that; else None."""
    known: list[FileEntry | None] = [None] * len(files)
    pairs = zip(files, may_be, strict=True)
    asked = [(i, f, e) for i, (f, e) in enumerate(pairs) if e is not None and isinstance(f, Path)]
    if tags is not None:
        said = tags.same([Expected(file, entry.blake3, entry.bytes) for _, file, entry in asked])
        for (i, _, entry), same in zip(asked, said, strict=True):
            known[i] = entry if same else None
    return known


@dataclass(frozen=True, slots=True)
class FileChanges:
    """How files on disk differ from a manifest; all empty when every byte is as it was."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    different: tuple[str, ...]
    moved: tuple[tuple[str, str], ...] = ()
    """(name now, name it was registered under) of extra or different files with registered bytes."""
    by_tag: int = 0
    """How many files were recognised by the tenant's tags; all others by BLAKE3."""

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


def compare(entries: Sequence[FileEntry], path: Place, *, tags: FileTags | None = None) -> FileChanges:
    """``entries`` against what lies at ``path`` now: a file, or the folder that ``entries`` are relative to.

    Every file is read; sizes only save the reading of files that cannot be the same. BLAKE3 decides where
    ``tags`` do not show that a file is the same.
    """
    found = _found_at(path, entries)
    there = [entry for entry in entries if entry.path in found]
    fits = [entry for entry in there if found[entry.path].stat().st_size == entry.bytes]
    tagged = _same([found[entry.path] for entry in fits], fits, tags)
    same = {entry.path for entry in tagged if entry is not None}
    hashed = [entry for entry in fits if entry.path not in same]
    digests = file_digests([found[entry.path] for entry in hashed])
    same |= {entry.path for entry, digest in zip(hashed, digests, strict=True) if digest == entry.blake3}
    different = [entry.path for entry in there if entry.path not in same]
    names = {entry.path for entry in entries}
    extra = sorted(name for name in found if name not in names)
    return FileChanges(
        missing=tuple(e.path for e in entries if e.path not in found),
        extra=tuple(extra),
        different=tuple(different),
        moved=tuple(_moved(entries, {name: found[name] for name in (*extra, *different)})),
        by_tag=len(fits) - len(hashed),
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
