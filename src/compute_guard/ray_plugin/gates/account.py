"""A living workload's credit, and its leases in line."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.book import Lease

if TYPE_CHECKING:
    from compute_guard.ledger.store import Entry


@dataclass(slots=True)
class Waiter:
    """A lease in line."""

    lease: Lease
    granted: asyncio.Future[None]


@dataclass(slots=True)
class Account:
    """A living workload: its credit, and its leases in line. ``reason`` says what they wait for.

    ``tight``: since the last round the ledger refused it more than the first in line needs.
    """

    entry: Entry
    credit: Amounts
    waiting: deque[Waiter] = field(default_factory=deque)
    reason: str = ""
    growing: bool = False
    blocked: bool = False
    blocked_at: float = 0.0
    tight: bool = False
    idle_since: float = 0.0
