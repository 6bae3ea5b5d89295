"""Row hashes of a whole table, in row order, within a memory bound.

Up to ``memory_bytes`` they stay in memory; after that they go to an unnamed temporary file and are handed
back as memory maps, whose pages the system may drop (:func:`forget` asks it to). So checks can hold on to
what they are given. When the number of rows is known beforehand they lie in one array, and :func:`joined`
puts its slices together without a copy.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

DEFAULT_MEMORY_BYTES = 256 << 20
_WINDOW_ROWS = 1 << 20


class HashStore:
    """Hashes, shape (rows, 2), added batch by batch."""

    def __init__(self, *, rows: int | None = None, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        """``rows`` is how many will come, if that is known; another number is no mistake, only slower."""
        self._memory = memory_bytes
        self._rows = 0
        self._held = 0
        self._parts: list[Hashes] = []
        self._file: IO[bytes] | None = None
        self._whole: Hashes | None = None
        if rows and 16 * rows <= memory_bytes:
            self._whole = np.empty((rows, 2), np.uint64)
        elif rows:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its map
            self._file.truncate(16 * rows)
            self._whole = np.memmap(self._file, np.uint64, "r", shape=(rows, 2))

    def add(self, hashes: Hashes) -> Hashes:
        """Keep ``hashes`` of the next rows; returns them, in memory or mapped. Raises OSError."""
        start, stop = self._rows, self._rows + len(hashes)
        if self._whole is not None and stop <= len(self._whole):
            if self._file is None:
                self._whole[start:stop] = hashes
            else:  # never through the map: on a full disk that would end the process
                self._file.seek(16 * start)
                self._file.write(np.ascontiguousarray(hashes).data)
                self._file.flush()
            hashes = self._whole[start:stop]
        elif self._held + hashes.nbytes > self._memory and len(hashes):
            hashes = self._spilled(hashes)
        else:
            self._held += hashes.nbytes
        self._rows = stop
        self._parts.append(hashes)
        return hashes

    def _spilled(self, hashes: Hashes) -> Hashes:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its maps
        return _mapped(self._file, [hashes])

    def extend(self, other: HashStore) -> None:
        """Keep the hashes of the rows that follow these."""
        for part in other._parts:
            self.add(np.asarray(part))

    def __getstate__(self) -> dict[str, object]:
        """Pickled by its parts: neither the room that is left nor the temporary file."""
        return {"parts": [np.asarray(p) for p in self._parts], "memory": self._memory}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(memory_bytes=state["memory"])  # type: ignore[misc]
        for part in state["parts"]:  # type: ignore[attr-defined]
            self.add(part)

    def all(self) -> Hashes:
        """All hashes in row order, shape (rows, 2); mapped from a file when they outgrew the memory."""
        return joined(self._parts, memory_bytes=self._memory)


def joined(parts: Sequence[Hashes], *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> Hashes:
    """``parts`` as one array; without a copy when they are consecutive slices of one.

    A copy of more than ``memory_bytes`` is mapped from a file.
    """
    if not parts:
        return np.empty((0, 2), np.uint64)
    if len(parts) == 1:
        return parts[0]
    base = parts[0].base
    if isinstance(base, np.ndarray) and base.shape[1:] == (2,) and all(p.base is base for p in parts):
        first = (parts[0].ctypes.data - base.ctypes.data) // base.strides[0]
        at = parts[0].ctypes.data
        for part in parts:
            if part.ctypes.data != at:
                break
            at += part.nbytes
        else:
            return base[first : first + sum(map(len, parts))]
    if sum(part.nbytes for part in parts) > memory_bytes:
        return _mapped(tempfile.TemporaryFile(), parts)
    return np.concatenate(parts)


def _mapped(file: IO[bytes], parts: Sequence[Hashes]) -> Hashes:
    """Write ``parts`` to the end of ``file``; returns them as one array, mapped from there."""
    start = file.seek(0, 2)
    for part in parts:
        file.write(np.ascontiguousarray(part).data)
        forget(part)
    file.flush()
    return np.memmap(file, np.uint64, "r", offset=start, shape=(sum(map(len, parts)), 2))


def windows(hashes: Hashes) -> Iterator[tuple[int, Hashes]]:
    """``(first row, hashes)`` of consecutive rows; mapped ones take memory while they are at hand only."""
    size = _WINDOW_ROWS if _map_of(hashes) is not None else max(1, len(hashes))
    for start in range(0, len(hashes), size):
        part = hashes[start : start + size]
        yield start, part
        forget(part)


def forget(hashes: Hashes) -> None:
    """Have the system drop the pages of a mapped file that were read; they are read again when needed."""
    found = _map_of(hashes)
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


def _map_of(hashes: Hashes) -> Any:
    return getattr(hashes, "_mmap", None)
