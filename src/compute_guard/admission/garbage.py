"""Python's collector of cyclic garbage waits while many jobs are decided, recorded and written at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_waits() -> Iterator[None]:
    """No collection within; as before afterwards, exceptions included.

    A batch makes thousands of rows and records that live until it is written, and hardly a cycle. The
    collector goes by how many objects are new: it would look at these some twenty times, and every so often
    at everything in the process, for a fifth of what a job costs (docs/measures/admission.md).
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
