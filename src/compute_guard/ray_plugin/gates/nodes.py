"""The nodes of the cluster as the gates know them: a node joins only with a lease gate of its own in front.

A raylet registers the port it listens on; what the GCS, and with it everybody else, is told is its gate's
port. A raylet whose gate has not reported is a rogue node and is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray.core.generated import common_pb2
from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.admission.ray_body import POOL_LABEL
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.files import write_atomic

_ALIVE = 0
GATES_FILE = "gates.json"
_NODE_INFO = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
_UNREGISTER = "/ray.rpc.NodeInfoGcsService/UnregisterNode"


@dataclass(frozen=True, slots=True)
class Gatehouse:
    """A node's gate as it reported itself."""

    address: str
    raylet_port: int
    gate_port: int
    pool: str
    limits: bool = False
    """Whether tenants' workers there run in cgroups as wide as their leases."""

    @property
    def name(self) -> str:
        """What the lease book calls the node: known before Ray gives it an id."""
        return f"{self.address}:{self.gate_port}"


@dataclass(frozen=True, slots=True)
class NodeFact:
    """A living node in the GCS's table."""

    id: bytes
    name: str
    pool: str
    is_head: bool
    total: Mapping[str, float]


class Nodes:
    """Gates that reported, and the GCS's table of nodes, read again at most once a second."""

    def __init__(self, upstream: Upstream, file: Path) -> None:
        self._upstream = upstream
        self._file = file
        self._gates: dict[tuple[str, int], Gatehouse] = {}
        self._facts: dict[bytes, NodeFact] = {}
        self._pools: dict[bytes, str] = {}
        self._heads: dict[frozenset[str], bytes] = {}
        self._read_at = 0.0

    def reported(self, gate: Gatehouse) -> None:
        """A node's gate is up. It is written down too, for `doctor`, who knocks at every gate there is."""
        if self._gates.get((gate.address, gate.raylet_port)) == gate:
            return
        self._gates[gate.address, gate.raylet_port] = gate
        rows = [asdict(known) for known in self._gates.values()]
        write_atomic(self._file, json.dumps(rows).encode(), mode=0o600)

    def gatehouse(self, name: str) -> Gatehouse | None:
        """The gate of a node by its name."""
        return next((gate for gate in self._gates.values() if gate.name == name), None)

    def registered(self, request: Any) -> bytes:
        """``RegisterNode`` with the gate's port in place of the raylet's. Raises Refusal for a rogue node."""
        info = request.node_info
        gate = self._gates.get((info.node_manager_address, info.node_manager_port))
        if gate is None:
            raise Refusal(
                f"node {info.node_manager_address}:{info.node_manager_port} has no gate; start it with "
                "RAY_START_HOOK=compute_guard.ray_plugin.start.hook"
            )
        if info.labels.get(POOL_LABEL) != gate.pool:
            raise Refusal(f"node {gate.name} says pool {info.labels.get(POOL_LABEL)}, its gate {gate.pool}")
        info.node_manager_port = gate.gate_port
        self._facts[info.node_id] = NodeFact(
            info.node_id, gate.name, gate.pool, info.is_head_node, dict(info.resources_total)
        )
        self._pools[info.node_id] = gate.pool
        raw: bytes = request.SerializeToString()
        return raw

    def gone(self, node_id: bytes) -> None:
        """A node left."""
        self._facts.pop(node_id, None)

    async def lost(self, name: str) -> None:
        """A node's own gate says that its raylet has died: let the GCS know at once."""
        for fact in [fact for fact in self._facts.values() if fact.name == name]:
            request = pb.UnregisterNodeRequest(node_id=fact.id)
            request.node_death_info.reason = common_pb2.NodeDeathInfo.UNEXPECTED_TERMINATION
            request.node_death_info.reason_message = "TrainGuard: the node's gate found its raylet gone"
            await self._upstream.call(_UNREGISTER, request.SerializeToString(), timeout=5.0)
            self.gone(fact.id)

    def living(self) -> dict[str, Gatehouse]:
        """Gates that reported, of nodes in the GCS's table, by the node's name."""
        alive = {fact.name for fact in self._facts.values()}
        return {gate.name: gate for gate in self._gates.values() if gate.name in alive}

    def ids_in(self, pools: Iterable[str]) -> frozenset[bytes]:
        """Ids of the living nodes in ``pools``."""
        wanted = frozenset(pools)
        return frozenset(fact.id for fact in self._facts.values() if fact.pool in wanted)

    def could_take(
        self, needs: Mapping[str, float], pools: Iterable[str], closed: frozenset[str] = frozenset()
    ) -> bool:
        """Whether a living node in ``pools``, but for those ``closed`` (ids in hex), has all of ``needs``."""
        wanted = frozenset(pools)
        return any(
            all(fact.total.get(name, 0.0) >= amount for name, amount in needs.items())
            for fact in self._facts.values()
            if fact.pool in wanted and fact.id.hex() not in closed
        )

    def seen_in(self, pools: Iterable[str]) -> frozenset[bytes]:
        """Ids of all nodes in ``pools`` that the GCS remembers, the dead ones too.

        Whoever had objects or leases on a node must hear of its death, and hears of it after it left.
        """
        wanted = frozenset(pools)
        return frozenset(node_id for node_id, pool in self._pools.items() if pool in wanted)

    def head_for(self, pools: Iterable[str], closed: frozenset[str] = frozenset()) -> str:
        """The node (id in hex) that stands for the head for whoever may use ``pools``; empty without one.

        The same one as long as it lives; while it is one of ``closed`` (ids in hex), another.
        """
        wanted = frozenset(pools)
        alive = self.ids_in(wanted)
        if self._heads.get(wanted) not in alive:
            self._heads[wanted] = min(alive, default=b"")
        head = self._heads[wanted].hex()
        if head in closed:
            return min((node.hex() for node in alive if node.hex() not in closed), default=head)
        return head

    async def refresh(self) -> tuple[str, ...]:
        """Read the GCS's table. Names of nodes that are gone since the last look."""
        if time.monotonic() - self._read_at < 1.0:
            return ()
        self._read_at = time.monotonic()
        raw = await self._upstream.call(
            _NODE_INFO, pb.GetAllNodeInfoRequest().SerializeToString(), timeout=5.0
        )
        rows = pb.GetAllNodeInfoReply.FromString(raw).node_info_list
        before = {fact.name for fact in self._facts.values()}
        self._pools = {node.node_id: node.labels.get(POOL_LABEL, "") for node in rows}
        self._facts = {
            node.node_id: NodeFact(
                node.node_id,
                f"{node.node_manager_address}:{node.node_manager_port}",
                node.labels.get(POOL_LABEL, ""),
                node.is_head_node,
                dict(node.resources_total),
            )
            for node in rows
            if node.state == _ALIVE
        }
        return tuple(before - {fact.name for fact in self._facts.values()})
