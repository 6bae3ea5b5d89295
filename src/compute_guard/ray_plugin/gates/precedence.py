"""A gate goes first: all that a cluster decides waits for it, and it needs a CPU for less than a millisecond.

In the slowest twentieth of placement groups, 12 of 20 ms went by while the head's gate was ready to run and
something else had the CPU (docs/measures/ray_overhead.md). Linux lets who asks for short slices run sooner
after it wakes (from 6.12 on, and anybody may ask), and who has a lower nice value (root, or CAP_SYS_NICE).
Where neither is to be had, a gate waits like everybody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

SLICE_NS = 100_000
"""The shortest that Linux gives."""
NICE = -5
_SHARE = Path("/proc/self/autogroup")
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
"""The number of sched_setattr(2), which Python does not have."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""``struct sched_attr``: size, policy, flags, nice value, priority, slice (ns), and what is not for us."""


def go_first() -> None:
    """Run before others from now on: this thread, and those it starts."""
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) == 0:  # whoever set another value meant it
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
            if os.getsid(0) in (os.getpid(), os.getppid()):  # its share may be others', too
                _SHARE.write_text(str(NICE))
    _ask_for_slices(SLICE_NS)


def go_like_others() -> None:
    """Take back what a gate's child inherited; a session of its own has a share of its own already."""
    if os.getpriority(os.PRIO_PROCESS, 0) == NICE:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    _ask_for_slices(0)


def _ask_for_slices(nanoseconds: int) -> None:
    """Of so many for this thread, 0: as all others have. A kernel that knows none takes no notice."""
    number = _SET_ATTRIBUTES.get(os.uname().machine)
    if number is not None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, nanoseconds, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, asked, 0)
