"""Typed spellings of ``numba.njit``, with the options every kernel here wants.

``cache=True`` keeps the machine code beside the module (or in the user's cache directory when that
is not writable), so only the first process on a machine compiles; ``nogil`` lets threads overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile ``function`` at its first call for the types it is given."""
    return cast("F", numba.njit(cache=True, nogil=True, boundscheck=False)(function))


def inlined(function: F) -> F:
    """Compile ``function`` into each kernel that calls it."""
    return cast("F", numba.njit(inline="always")(function))
