"""Processes that a tenant left behind on a node (daemons) are ended once it runs nothing any more.

Told by Unix user, which a process without privileges cannot change: so this works in profile *hardened* only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")
ROUNDS = 3
"""How many looks in a row must show the tenant without a living workload."""


class Reaper:
    """Counts looks by tenant."""

    def __init__(self) -> None:
        self._idle: dict[str, int] = {}

    def round(self, users: Mapping[str, int], living: frozenset[str]) -> list[int]:
        """Kill processes of tenants that have run nothing for `ROUNDS` looks. Their process ids."""
        for tenant in users:
            self._idle[tenant] = 0 if tenant in living else self._idle.get(tenant, 0) + 1
        idle = {uid for tenant, uid in users.items() if self._idle[tenant] >= ROUNDS}
        ended = []
        for pid in processes_of(idle):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            ended.append(pid)
        return ended


def processes_of(users: set[int]) -> list[int]:
    """Living processes of these Unix users on this node."""
    found = []
    for entry in _PROC.iterdir() if users else ():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid in users:
                found.append(int(entry.name))
        except OSError:
            continue
    return found
