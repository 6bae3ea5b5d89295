"""How memory for a batch of rows is had: kept for the next one, and in pages of the usual size.

Arrow's allocator gives back what a batch needed after a second, and the system clears each page before it
hands it out again. numpy asks for huge pages, and where memory is fragmented (behind a page cache full of
data) the kernel looks for them in vain, at a tenth of a registration's CPU time (docs/measures/leakage.md).
Both read what they are told once, from the environment, when they are loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PURGE_DELAY = "MIMALLOC_PURGE_DELAY"
"""How long Arrow's allocator waits, in milliseconds; 1000 without it."""
HUGE_PAGES = "NUMPY_MADVISE_HUGEPAGE"
"""Whether numpy asks for huge pages; it does without it."""
_TOLD = {"pyarrow": (PURGE_DELAY, "10000"), "numpy": (HUGE_PAGES, "0")}


@contextmanager
def memory_for_batches() -> Iterator[None]:
    """pyarrow and numpy, if loaded in this block, are told; not where somebody has told them otherwise."""
    told = {
        variable: value
        for library, (variable, value) in _TOLD.items()
        if library not in sys.modules and variable not in os.environ
    }
    os.environ.update(told)
    try:
        yield
    finally:
        for variable in told:
            os.environ.pop(variable, None)  # no business of processes that are started later
