"""Where work that asks for no CPU may not land: nodes under a cordon.

A cordoned raylet lends out no CPU (:mod:`compute_guard.ray_plugin.cordon`), which stops all other work. Ray
lets nobody change a node's GPUs, so a lease that asks for GPUs alone, or for nothing, is kept away here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from compute_guard.actions import Actions
from compute_guard.quota import CPU, Amounts
from compute_guard.ray_plugin.gates.book import Lease
from compute_guard.ray_plugin.gates.nodes import Nodes
from guard_core.home import Home

REFRESH_SECONDS = 1.0
ASK_AGAIN_SECONDS = 0.5
REASON = "the nodes that could take it are cordoned; see: trainguard incident list"


class Cordons:
    """The cordons in force, read again at most once a second. Call from one event loop.

    ``changed`` is called when there are others than before: answers that nodes remember rest on them.
    """

    def __init__(self, home: Home, nodes: Nodes, changed: Callable[[], None]) -> None:
        self._home = home
        self._nodes = nodes
        self._changed = changed
        self._ids: frozenset[str] = frozenset()
        self._read_at = 0.0
        self._waiting: dict[str, Lease] = {}

    async def refresh(self) -> None:
        """Read the responses' table. Raises GuardError; what was in force then stays so."""
        if time.monotonic() - self._read_at >= REFRESH_SECONDS:
            self._read_at = time.monotonic()
            before, self._ids = self._ids, await asyncio.to_thread(self._read)
            if self._ids != before:
                self._changed()

    def _read(self) -> frozenset[str]:
        now = self._home.clock()
        steps = Actions(self._home.storage, self._home.clock).of(states=["done"], name="cordon")
        return frozenset(
            str(step.result["node_id"])
            for step in steps
            if "node_id" in step.result and (step.expires_at is None or step.expires_at > now)
        )

    def closed_to(self, amounts: Amounts) -> frozenset[str]:
        """Nodes (ids in hex) where work that asks for ``amounts`` may not land: none if it asks for CPU."""
        return self._ids if self._ids and not amounts.get(CPU) else frozenset()

    async def keep_away(
        self,
        lease: Lease,
        pools: Sequence[str],
        needs: Sequence[tuple[Amounts, Mapping[str, float]]],
        still_wanted: Callable[[], Awaitable[object]],
    ) -> tuple[frozenset[str], ...]:
        """Where each part of ``lease`` may not land; ``needs``: what a part asks for, as amounts and as told.

        Returns when each part has a node that is large enough: a raylet that is given what only a closed node
        could take, with that node excluded, never looks at it again. Until the cordon ends such a lease is
        kept here; ``still_wanted`` is asked meanwhile and raises when its workload has ended.
        """
        try:
            while True:
                closed = tuple(self.closed_to(amounts) for amounts, _ in needs)
                parts = zip(closed, needs, strict=True)
                if not any(ids and self._only_there(told, pools, ids) for ids, (_, told) in parts):
                    return closed
                self._waiting[lease.id] = lease
                await asyncio.sleep(ASK_AGAIN_SECONDS)
                await still_wanted()
        finally:
            self._waiting.pop(lease.id, None)

    def _only_there(self, needs: Mapping[str, float], pools: Sequence[str], closed: frozenset[str]) -> bool:
        could_take = self._nodes.could_take
        return could_take(needs, pools) and not could_take(needs, pools, closed)

    def held(self) -> dict[str, tuple[int, Amounts, str]]:
        """As ``Credit.held``: what waits for the end of a cordon."""
        found: dict[str, tuple[int, Amounts, str]] = {}
        for lease in self._waiting.values():
            count, amounts, _ = found.get(lease.workload, (0, lease.amounts, ""))
            found[lease.workload] = (count + 1, amounts, REASON)
        return found
