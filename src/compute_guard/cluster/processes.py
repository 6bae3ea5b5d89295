"""Finding and ending exactly the processes that belong to one cluster (Linux, ``/proc``).

Every process of a cluster is started with a marker in its environment. Workers rewrite their title, and with
it the memory that shows their environment, so descendants of marked processes count too. A process is told by
id *and* start time: an id that was given to somebody else meanwhile is never signalled.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MARKER = "COMPUTE_GUARD_CLUSTER"
KILLED_SECONDS = 30.0
"""How long one that was killed may take to be gone: on a busy machine it must get a CPU to end."""
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """A process, told apart from a later one with the same id by its start time (clock ticks since boot)."""

    pid: int
    started: int


def of_cluster(marker: str) -> set[Process]:
    """The living processes of the cluster ``marker``, this process and its ancestors excepted."""
    wanted = f"{MARKER}={marker}".encode()
    table = _table()
    found = _with_children(table, {pid for pid in table if wanted in _of(pid, "environ").split(b"\0")})
    return {Process(pid, table[pid][1]) for pid in found - _own_line(table)}


def below(pid: int, program: str) -> set[Process]:
    """The living descendants of ``pid`` that run ``program`` (its file's name)."""
    table = _table()
    wanted = program.encode()
    return {
        Process(found, table[found][1])
        for found in _with_children(table, {pid} & set(table)) - {pid}
        if _of(found, "cmdline").partition(b"\0")[0].rpartition(b"/")[2] == wanted
    }


def alive(processes: Iterable[Process]) -> set[Process]:
    """Those that still run."""
    table = _table()
    return {p for p in processes if p.pid in table and table[p.pid][1] == p.started}


def end(processes: Iterable[Process], *, grace_seconds: float = 3.0) -> set[Process]:
    """Ask, wait, then kill. Returns what could not be ended."""
    left = alive(processes)
    _signal(left, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while (left := alive(left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(left, signal.SIGKILL)
    deadline = time.monotonic() + KILLED_SECONDS
    while (left := alive(left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _signal(processes: Iterable[Process], number: int) -> None:
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue


def _table() -> dict[int, tuple[int, int]]:
    """(parent, start time) of every process that is not a zombie, by id."""
    found = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The command name is in parentheses and may hold anything; what follows it is plain.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(entry.name)] = (int(fields[1]), int(fields[19]))
    return found


def _with_children(table: dict[int, tuple[int, int]], found: set[int]) -> set[int]:
    """``found`` and all their descendants."""
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in table.items() if parent in found} - found
        grown = bool(more)
        found = found | more
    return found


def _of(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


def _own_line(table: dict[int, tuple[int, int]]) -> set[int]:
    line, pid = set(), os.getpid()
    while pid in table:
        line.add(pid)
        pid = table[pid][0]
    return line
