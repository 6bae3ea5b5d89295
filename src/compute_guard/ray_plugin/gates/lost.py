"""Nodes whose raylet has died, told by its closed port.

Ray's health checks are patient here, so that a gate that is away kills no node; a closed port leaves no
doubt. A node's own gate looks when its raylet does not answer, and the head looks when a node's gate has
fallen silent (the two often end together). A raylet that hangs, or a machine that cannot be reached at all,
is left to the health checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

SILENT_SECONDS = 3.0
"""A gate that was killed is back before."""
_SECONDS = 1.0


async def is_closed(address: str, port: int) -> bool:
    """Whether the machine at ``address`` says that nobody listens on ``port``."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), _SECONDS)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return False


class Silence:
    """Since when the gates of nodes have said nothing."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def of(self, names: Iterable[str], connected: Iterable[str], now: float) -> list[str]:
        """Those of ``names`` that were not among ``connected`` for `SILENT_SECONDS`; again after as long."""
        quiet = set(names) - set(connected)
        self._since = {name: self._since.get(name, now) for name in quiet}
        due = sorted(name for name, since in self._since.items() if now - since >= SILENT_SECONDS)
        self._since |= dict.fromkeys(due, now)
        return due
