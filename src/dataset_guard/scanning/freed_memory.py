"""Memory that a batch of rows gives back, kept for the next batch.

Two allocators give memory of that size back to the system, at once or after a second. The system clears each
page before it hands it out again: a tenth of a registration's CPU time. Both can be told to wait. They never
hold more than what was in use at one time, and what they hold serves whatever the process does next.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PURGE_DELAY = "MIMALLOC_PURGE_DELAY"
"""How long Arrow's allocator waits, in milliseconds (1000 without it); read when pyarrow is loaded."""

_WAIT = "10000"
_LARGEST = 32 << 20
"""Bytes of the largest block whose size glibc takes, once it was freed, for one that comes again."""


@contextmanager
def arrow_waits() -> Iterator[None]:
    """If pyarrow is loaded in this block, its allocator waits, unless somebody has said how long."""
    if "pyarrow" in sys.modules or PURGE_DELAY in os.environ:
        yield
        return
    os.environ[PURGE_DELAY] = _WAIT
    try:
        yield
    finally:
        os.environ.pop(PURGE_DELAY, None)  # no business of processes that are started later


def heap_waits() -> None:
    """Have glibc keep what numpy frees, as it does by itself once a block of 32 MiB was freed.

    So one is: no page of it is ever touched. (mallopt(3), M_MMAP_THRESHOLD: the threshold is dynamic, and
    twice as much stays in the heap. Other libraries of C take it for nothing.)
    """
    import numpy as np

    np.empty(_LARGEST - (64 << 10), np.uint8)
