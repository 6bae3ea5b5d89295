"""Python's cyclic garbage collector, asked to look less often while a scan is at work.

A scan imports large libraries and makes many small objects that live; at its usual threshold the collector
looks through all of them again and again and finds nothing (a twentieth of a scan of 2 M rows).
"""

from __future__ import annotations

import gc
import threading
from types import TracebackType

YOUNG_OBJECTS = 50_000
"""New containers until the collector looks; Python's own figure is 700."""


class collecting_seldom:  # noqa: N801 - reads as a clause: ``with collecting_seldom():``
    """The threshold is the process's, so scans that overlap share it, and the last to end puts it back."""

    _lock = threading.Lock()
    _at_work = 0
    _before = (0, 0, 0)

    def __enter__(self) -> None:
        kind = type(self)
        with kind._lock:
            if not kind._at_work:
                kind._before = gc.get_threshold()
                young, *older = kind._before
                if young:  # 0: switched off, which is nobody's to change
                    gc.set_threshold(max(young, YOUNG_OBJECTS), *older)
            kind._at_work += 1

    def __exit__(
        self, kind_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kind = type(self)
        with kind._lock:
            kind._at_work -= 1
            if not kind._at_work:
                gc.set_threshold(*kind._before)
