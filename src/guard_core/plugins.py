"""What installed packages offer under an entry-point group, read again only after something was installed."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any


def offered(group: str) -> EntryPoints:
    """The entry points of ``group``, as ``importlib.metadata`` gives them.

    That reads the metadata of every distribution, some 20 ms each time it is asked; a scan and an admission
    ask. Installing or removing a package changes the folder that it lies in, and so is seen.
    """
    found: EntryPoints = _all(tuple((place, _changed(place)) for place in sys.path)).select(group=group)
    return found


@lru_cache(maxsize=4)
def _all(places: tuple[tuple[str, int], ...]) -> Any:  # noqa: ARG001 - what the answer depends on
    return entry_points()  # of two types, before Python 3.12 and since; both select


def _changed(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns  # the empty place is the working directory
    except OSError:
        return 0
