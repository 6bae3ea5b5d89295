"""The CPU share of a node's forked workers, put back when one of them has lowered it for all.

They are one session, and where Linux shares the CPU among sessions (sched(7), autogroups) anybody in it may
set the session's nice value, for whoever comes later, too.
"""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")
_FAIR = "nice 0"


def restore(pid: int, proc: Path = _PROC) -> bool:
    """Give the session of process ``pid`` its fair share again. Whether it had another."""
    file = proc / str(pid) / "autogroup"
    try:
        if file.read_text().strip().endswith(_FAIR):
            return False
        file.write_text("0")
    except OSError:  # a kernel without autogroups, or the process has just ended
        return False
    return True
