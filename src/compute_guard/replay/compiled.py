"""The scheduling cycle and the event loop of replays as machine code, from the lines that also run as they
stand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, Final

from compute_guard.admission import board, cycle, fair_meter, victims
from compute_guard.quota import tree
from compute_guard.replay import agenda, course, lines, loop

SOURCES: Final = (
    tree,
    board,
    fair_meter,
    victims,
    cycle,
    course,
    agenda,
    lines,
    loop,
)
KERNEL: Final = (
    *cycle.KERNEL,
    *agenda.AGENDA_KERNEL,
    *lines.LINES_KERNEL,
    *loop.LOOP_KERNEL,
)
"""Every function that is compiled, each after those it calls."""
INLINED: Final = frozenset(
    {
        tree.room,
        tree.fits,
        tree.borrows,
        tree.place_among,
        board.placed,
        cycle.user_state,
        cycle.goes_before,
        cycle.next_head,
    }
)
"""What every cycle asks of the head of every line. A call takes and drops a reference to each array of each
container it is given, dozens of them, which costs more than these do; with more of them inlined the loop got
slower again (measured on congested Philly: 0.39 s without, 0.30 s with these, 0.39 s with twice as many)."""


@cache
def compiled() -> SimpleNamespace:
    """The same functions, compiled; the machine code is kept beside their files for the next process."""
    import numba

    scope: dict[str, Any] = {}
    for source in SOURCES:
        scope |= vars(source)
    # numba judges by the age of a function's own file whether kept code is stale; these call across files.
    files = [*(str(source.__file__) for source in SOURCES), __file__]
    text = b"".join(Path(file).read_bytes() for file in files)
    mark = hashlib.sha256(text).hexdigest()[:12]
    for function in KERNEL:
        own: Callable[..., Any] = FunctionType(function.__code__, scope, function.__name__)
        own.__module__ = function.__module__
        own.__qualname__ = f"{function.__name__}_{mark}"
        # Only what Python calls needs a way in from Python: unpacking so many arrays is a sixth of compiling.
        inner = function not in (loop.replay, cycle.cycle)
        scope[function.__name__] = numba.njit(
            cache=True,
            no_cpython_wrapper=inner,
            no_cfunc_wrapper=True,
            inline="always" if function in INLINED else "never",
        )(own)
    return SimpleNamespace(replay=scope["replay"], cycle=scope["cycle"])
