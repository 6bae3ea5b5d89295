"""The files of a log: segments named for their first record, each a run of whole lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_SEGMENT = re.compile(r"^\d{12}\.jsonl$")


def segments(directory: Path) -> list[Path]:
    """The segment files of a log in order; empty when there is none."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if _SEGMENT.match(path.name))


def first_of(path: Path) -> int:
    """Number of the first record of a segment, by its name."""
    return int(path.name.split(".")[0])


def lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The lines of a segment from byte ``offset``, each with its newline (a torn last line has none)."""
    with path.open("rb", buffering=1 << 20) as file:
        if offset:  # a pipe cannot be positioned, and need not be
            file.seek(offset)
        yield from file
