"""Taking a node out of scheduling, and back, without touching what runs on it.

A raylet can be told how much of a resource it lends out (``ResizeLocalResourceInstances``). Told 0 CPU, it
keeps what is in use and lends no more; what has ended since stays back when it is told again, which the
monitor does at every scrape. Ray's own ``DrainNode`` is no cordon: the node dies at its deadline. GPUs cannot
be resized (2.60): work that asks for no CPU is kept away by the gates, where there are any (`gates.cordons`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from compute_guard.cluster.connection import Cluster
from compute_guard.ray_plugin.gcs import Gcs, NodeRow
from compute_guard.ray_plugin.raylet import resize
from guard_core.errors import UserError

CPU: Final = "CPU"
SEEN_WITHIN_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lending:
    """CPUs that a node lends out. ``verified``: the scheduler was seen to have none (or all) to give."""

    node: str
    node_id: str
    verified: bool
    cpus: float
    registered_cpus: float

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {name: getattr(self, name) for name in self.__slots__}


def cordon(cluster: Cluster, name: str, *, pause: Callable[[float], None] = time.sleep) -> Lending:
    """Lend no CPU of the node called ``name`` (host name, address or id). Idempotent.

    Raises UserError when no node, or more than one, is called so; Undecidable when Ray does not answer.
    """
    return _lend(cluster, name, False, pause)


def uncordon(cluster: Cluster, name: str, *, pause: Callable[[float], None] = time.sleep) -> Lending:
    """Lend all CPUs again that the node registered with. Idempotent; raises as :func:`cordon`."""
    return _lend(cluster, name, True, pause)


def _lend(cluster: Cluster, name: str, everything: bool, pause: Callable[[float], None]) -> Lending:
    gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
    try:
        row = _called(gcs.nodes(), name)
        registered = row.resources.get(CPU, 0.0)
        wanted = registered if everything else 0.0
        lent = resize(f"{row.address}:{row.port}", {CPU: wanted}, lambda: cluster.token)
        deadline = time.monotonic() + SEEN_WITHIN_SECONDS
        while not (seen := _is_seen(gcs, row, everything)) and time.monotonic() < deadline:
            pause(0.1)
    finally:
        gcs.close()
    return Lending(
        node=row.hostname,
        node_id=row.node_id,
        verified=seen,
        cpus=lent.get(CPU, 0.0),
        registered_cpus=registered,
    )


def _is_seen(gcs: Gcs, row: NodeRow, everything: bool) -> bool:
    """Whether the scheduler's own table shows the node so."""
    if everything:
        return gcs.totals().get(row.node_id, {}).get(CPU, 0.0) == row.resources.get(CPU, 0.0)
    return gcs.available().get(row.node_id, {}).get(CPU, 0.0) == 0.0


def _called(rows: list[NodeRow], name: str) -> NodeRow:
    found = [row for row in rows if name in (row.node_id, row.hostname, row.address)]
    if not found:
        raise UserError(f"Ray knows no living node {name!r}; see: trainguard compute status")
    if len(found) > 1:
        raise UserError(f"{len(found)} nodes are called {name!r}; cordon one with Ray's own tools")
    return found[0]
