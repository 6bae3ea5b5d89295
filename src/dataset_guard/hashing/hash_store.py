"""Row hashes of a whole table, in row order, within a memory bound.

Up to ``memory_bytes`` they stay in memory; after that they go to an unnamed temporary file and are handed
back as memory maps, whose pages the system may drop. So checks can hold on to what they are given. When the
number of rows is known beforehand they lie in one array, and :func:`joined` puts its slices together
without a copy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

DEFAULT_MEMORY_BYTES = 768 << 20


class HashStore:
    """Hashes, shape (rows, 2), added batch by batch."""

    def __init__(self, *, rows: int | None = None, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        """``rows`` is how many will come, if that is known; another number is no mistake, only slower."""
        self._memory = memory_bytes
        fits = rows is not None and 16 * rows <= memory_bytes
        self._whole = np.empty((rows or 0, 2), np.uint64) if fits else None
        self._rows = 0
        self._held = 0
        self._parts: list[Hashes] = []
        self._file: IO[bytes] | None = None

    def add(self, hashes: Hashes) -> Hashes:
        """Keep ``hashes`` of the next rows; returns them, in memory or mapped from the file."""
        stop = self._rows + len(hashes)
        if self._whole is not None and stop <= len(self._whole):
            self._whole[self._rows : stop] = hashes
            hashes = self._whole[self._rows : stop]
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
        start = self._file.seek(0, 2)
        hashes.tofile(self._file)
        self._file.flush()
        return np.memmap(self._file, np.uint64, "r", offset=start, shape=hashes.shape)

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
        if self._file is None:
            return joined(self._parts)
        whole = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its map
        for part in self._parts:
            part.tofile(whole)
        whole.flush()
        return np.memmap(whole, np.uint64, "r", shape=(self._rows, 2))


def joined(parts: Sequence[Hashes]) -> Hashes:
    """``parts`` as one array; without a copy when they are consecutive slices of one."""
    if not parts:
        return np.empty((0, 2), np.uint64)
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
    return np.concatenate(parts)
