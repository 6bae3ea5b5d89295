"""Where work that asks for no CPU may not land: nodes under a cordon.

A cordoned raylet lends out no CPU (:mod:`compute_guard.ray_plugin.cordon`), which stops all other work. Ray
lets nobody change a node's GPUs, so a lease that asks for GPUs alone, or for nothing, is kept away here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from compute_guard.quota.limits import CPU, Amounts
from compute_guard.ray_plugin.gates.book import Lease
from compute_guard.ray_plugin.gates.nodes import Nodes
from compute_guard.ray_plugin.gates.wire import Refusal
from compute_guard.response.actions import Actions
from guard_core.errors import GuardError
from guard_core.home import Home

ASK_AGAIN_SECONDS = 0.5
REASON = "the nodes that could take it are cordoned; see: trainguard incident list"
_NONE: frozenset[str] = frozenset()


def concerned(amounts: Amounts) -> bool:
    """Whether work that asks for ``amounts`` is kept away here: what asks for CPU, a raylet keeps away."""
    return not amounts.get(CPU)


class Cordons:
    """The cordons in force, read whenever work is asked for that they concern. Call from one event loop."""

    def __init__(self, home: Home, nodes: Nodes) -> None:
        self._actions = Actions(home.storage, home.clock)
        self._clock = home.clock
        self._nodes = nodes
        self._ids: frozenset[str] = frozenset()
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._waiting: dict[str, Lease] = {}

    async def in_force(self) -> frozenset[str]:
        """Nodes (ids in hex) as of now or later: a cordon that is said to be done is known here.

        Who asks while another's question is being read shares the next one. Raises Refusal.
        """
        asked = time.monotonic()
        async with self._reading:
            if self._read_at < asked:
                began = time.monotonic()
                try:
                    self._ids = await asyncio.to_thread(self._read)
                except GuardError as error:
                    raise Refusal(f"the cordons cannot be read: {error}") from error
                self._read_at = began
            return self._ids

    def _read(self) -> frozenset[str]:
        now = self._clock()
        return frozenset(
            str(step.result["node_id"])
            for step in self._actions.of(states=["done"], name="cordon")
            if "node_id" in step.result and (step.expires_at is None or step.expires_at > now)
        )

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
            while any(concerned(amounts) for amounts, _ in needs):
                ids = await self.in_force()
                closed = tuple(ids if concerned(amounts) else _NONE for amounts, _ in needs)
                parts = zip(closed, needs, strict=True)
                if not any(ids and self._only_there(told, pools, ids) for ids, (_, told) in parts):
                    return closed
                self._waiting[lease.id] = lease
                await asyncio.sleep(ASK_AGAIN_SECONDS)
                await still_wanted()
            return tuple(_NONE for _ in needs)
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
