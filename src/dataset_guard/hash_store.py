"""Row hashes of a whole table, in row order, within a memory bound.

Up to ``memory_bytes`` they stay in memory; after that they go to an unnamed temporary file and are handed
back as memory maps, whose pages the system may drop. So checks can hold on to what they are given.
"""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

DEFAULT_MEMORY_BYTES = 768 << 20


class HashStore:
    """Hashes, shape (rows, 2), added batch by batch."""

    def __init__(self, *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._memory = memory_bytes
        self._held = 0
        self._parts: list[Hashes] = []
        self._file: IO[bytes] | None = None

    def add(self, hashes: Hashes) -> Hashes:
        """Keep ``hashes`` of the next rows; returns them, in memory or mapped from the file."""
        if self._held + hashes.nbytes > self._memory and len(hashes):
            hashes = self._spilled(hashes)
        else:
            self._held += hashes.nbytes
        self._parts.append(hashes)
        return hashes

    def _spilled(self, hashes: Hashes) -> Hashes:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its maps
        start = self._file.seek(0, 2)
        hashes.tofile(self._file)
        self._file.flush()
        return np.memmap(self._file, np.uint64, "r", offset=start, shape=hashes.shape)

    def all(self) -> Hashes:
        """All hashes in row order, shape (rows, 2)."""
        if not self._parts:
            return np.empty((0, 2), np.uint64)
        return np.concatenate(self._parts)
