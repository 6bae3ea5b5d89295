"""Staging: a version is prepared in a folder of its own and appears by one rename.

The folder belongs to a living process: it holds a lock on ``.held`` in it, which the system drops when the
process dies, however it dies. What no process holds is a leftover and may be swept.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from guard_core.files import sync_directory

_HELD = ".held"
_YOUNG_SECONDS = 3600.0
"""A folder without ``.held`` may be one that is just being made."""


@dataclass(frozen=True, slots=True)
class Staging:
    """A folder that belongs to this process while ``handle`` holds its lock."""

    folder: Path
    handle: int

    @classmethod
    def make(cls, root: Path) -> Staging:
        """A new one under ``root``."""
        root.mkdir(parents=True, exist_ok=True)
        folder = root / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        # Its name comes with the lock: a sweep would take a folder with an unlocked one for a dead one's.
        unlocked = folder / f"{_HELD}.new"
        handle = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        unlocked.rename(folder / _HELD)
        return cls(folder, handle)

    def release(self) -> None:
        """Let go; removes the folder if it is still here."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.handle)

    def publish(self, target: Path) -> None:
        """Make the folder ``target`` in one step. Raises OSError; FileExistsError when it is there."""
        if target.exists():
            raise FileExistsError(f"{target} exists already")
        sync_directory(self.folder)
        self.folder.rename(target)
        sync_directory(target.parent)
        (target / _HELD).unlink(missing_ok=True)  # gone when it was published before

    def take_back(self, target: Path) -> None:
        """Undo :meth:`publish`, for what nobody knows of yet. Raises OSError."""
        target.rename(self.folder)  # without the lock's file: sweeps spare it for an hour


def _abandoned(folder: Path) -> bool:
    """Whether no living process holds ``folder``."""
    try:
        handle = os.open(folder / _HELD, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            return time.time() - folder.stat().st_mtime > _YOUNG_SECONDS
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def sweep(root: Path) -> list[str]:
    """Remove what dead processes left under ``root``; returns the names of what was removed."""
    removed = []
    for folder in sorted(root.glob("*")):
        if _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed
