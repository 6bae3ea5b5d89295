"""Whether the files of the policy folder are still those that were read; asked before every decision.

Names, times and sizes are a reason to read again, never evidence. Where no folder was touched, its files are
those that are known, and a look costs one system call for each.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _Seen:
    """``folders``: time by path; ``files``: time and size by path."""

    folders: dict[str, int]
    files: dict[str, tuple[int, int]]


class PolicyWatch:
    """Remembers the state that was last accepted."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._accepted = _scan(self._folder)
        self._latest = self._accepted
        self._same_at = -math.inf
        self.every_seconds = 0.0
        """A service that decides hundreds of times a second need not look each time."""

    def differs(self) -> bool:
        """Whether a file was added, removed or edited since the last :meth:`accept`."""
        now = time.monotonic()
        if now - self._same_at < self.every_seconds:
            return False
        if not _untouched(self._accepted):
            self._latest = _scan(self._folder)
            if self._latest.files != self._accepted.files:
                self._same_at = -math.inf  # look again at once, until it is accepted
                return True
            self._accepted = self._latest  # a folder was touched, and its files are the same
        self._same_at = now
        return False

    def accept(self) -> None:
        """What :meth:`differs` saw has been read."""
        self._accepted = self._latest


def _untouched(seen: _Seen) -> bool:
    try:
        # Path objects would double what this costs.
        return all(os.stat(path).st_mtime_ns == at for path, at in seen.folders.items()) and all(  # noqa: PTH116
            _stamp(os.stat(path)) == stamp  # noqa: PTH116
            for path, stamp in seen.files.items()
        )
    except OSError:
        return False


def _stamp(state: os.stat_result) -> tuple[int, int]:
    return state.st_mtime_ns, state.st_size


def _scan(folder: str) -> _Seen:
    seen = _Seen({}, {})
    left = [folder]
    while left:
        path = left.pop()
        try:
            seen.folders[path] = Path(path).stat().st_mtime_ns
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir():
                        left.append(entry.path)
                    else:
                        seen.files[entry.path] = _stamp(entry.stat())
        except OSError:
            continue
    return seen
