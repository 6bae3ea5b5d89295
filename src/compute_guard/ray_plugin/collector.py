"""Looks at the running cluster of a home: the effectful half of :mod:`compute_guard.monitoring.holdings`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compute_guard.admission.workload import WorkloadState
from compute_guard.cluster.connection import Cluster, load_cluster
from compute_guard.ledger.store import Entry, Ledger
from compute_guard.monitoring.holdings import (
    ClusterSnapshot,
    Grant,
    Holding,
    Node,
    Worker,
    holdings,
    leases,
    renewed,
)
from compute_guard.quota.limits import GPU
from compute_guard.ray_plugin.origin import Origins, own_addresses
from compute_guard.usage.attribution import LeaseBook
from compute_guard.usage.samples import Device
from guard_core.clock import to_ns
from guard_core.errors import Undecidable, UserError

if TYPE_CHECKING:
    from compute_guard.ray_plugin.gcs import Gcs
    from guard_core.home import Home

KINDS = frozenset({"batch", "notebook", "service", "simulation"})
_SUPERVISOR = "_ray_internal_job_actor_"


def collect(home: Home, gcs: Gcs, token: Callable[[], str], at_ns: int, origins: Origins) -> ClusterSnapshot:
    """Ray and the ledger now. A node that does not answer is named, not guessed. Raises Undecidable."""
    from compute_guard.ray_plugin.raylet import workers

    here = own_addresses()
    seen: list[Worker] = []
    unreachable = []
    nodes = []
    for row in gcs.nodes():
        local = row.address in here
        nodes.append(
            Node(
                node_id=row.node_id,
                address=row.address,
                hostname=row.hostname,
                metrics_port=row.metrics_port,
                resources=row.resources,
                local=local,
                labels=row.labels,
            )
        )
        try:
            seen += workers(row.node_id, f"{row.address}:{row.port}", token)
        except Undecidable:
            unreachable.append(row.node_id)
    local_nodes = {node.node_id for node in nodes if node.local}
    ledger = Ledger(home.storage, home.clock)
    reserved = ledger.reservations()
    entries = ledger.entries(states=[WorkloadState.ADMITTED, WorkloadState.RUNNING])
    return ClusterSnapshot(
        at_ns=at_ns,
        nodes=tuple(nodes),
        workers=tuple(seen),
        drivers=tuple(origins.judged(gcs.drivers(living=True))),
        grants=tuple(_grant(entry, reserved[entry.id][GPU]) for entry in entries if entry.id in reserved),
        supervisors={
            actor.actor_id: actor.name.removeprefix(_SUPERVISOR)
            for actor in gcs.actors()
            if actor.name.startswith(_SUPERVISOR)
        },
        children=descendants(w.pid for w in seen if w.node_id in local_nodes),
        unreachable=tuple(unreachable),
    )


def descendants(pids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Each process that lives here and its descendants, itself included; one pass over the process table."""
    import psutil

    wanted = set(pids)
    parents: dict[int, list[int]] = {}
    alive = set()
    for process in psutil.process_iter(["ppid"]):
        alive.add(process.pid)
        parents.setdefault(int(process.info["ppid"] or 0), []).append(process.pid)
    found = {}
    for pid in sorted(wanted & alive):
        line, queue = {pid}, [pid]
        while queue:
            more = [child for child in parents.get(queue.pop(), []) if child not in line]
            line.update(more)
            queue += more
        found[pid] = tuple(sorted(line))
    return found


def _grant(entry: Entry, gpu_milli: int) -> Grant:
    metadata = entry.workload.spec.get("metadata") or {}
    kind = str(metadata.get("kind", "batch"))
    return Grant(
        submission_id=entry.id,
        tenant=entry.workload.tenant,
        user=entry.workload.user,
        queue=entry.workload.queue,
        gpu_milli=gpu_milli,
        ray_job_id=entry.ray_job_id or "",
        kind=kind if kind in KINDS else "batch",
        entrypoint=entry.workload.entrypoint,
    )


@dataclass(slots=True)
class LiveBook:
    """The lease book of a running cluster, renewed by a look each time it is asked: an ``Attribution``.

    When Ray does not answer (a head restarts), the last book stays in force and ``failures`` counts: an empty
    book would make a stranger of every process. ``devices`` are the telemetry's, told with :meth:`see`.
    ``host_names``: a node's host name by its address and id, where no other node has the same one.
    """

    home: Home
    failures: int = 0
    problem: str = ""
    unreachable: tuple[str, ...] = ()
    held: tuple[Holding, ...] = ()
    host_names: Mapping[str, str] = field(default_factory=dict)
    _devices: dict[Device, None] = field(default_factory=dict)
    _book: LeaseBook = field(default_factory=LeaseBook)
    _looked_ns: int = 0
    _cluster: Cluster | None = None
    _gcs: Gcs | None = None
    _origins: Origins | None = None

    def see(self, devices: Iterable[Device]) -> None:
        """Devices that telemetry speaks of."""
        self._devices.update(dict.fromkeys(devices))

    def __call__(self, at_ns: int) -> LeaseBook:
        """The book at ``at_ns``."""
        try:
            snapshot = self.look(at_ns)
        except (Undecidable, UserError) as error:
            self.failures += 1
            self.problem = str(error)
            self.close()
            return self._book
        self.problem = ""
        self._book = renewed(
            self._book, leases(self.held, self._devices, at_ns), looked_ns=self._looked_ns, at_ns=at_ns
        )
        self._looked_ns = at_ns
        self.unreachable = snapshot.unreachable
        return self._book

    def look(self, at_ns: int | None = None) -> ClusterSnapshot:
        """One look, which also renews ``held``. Raises Undecidable, or UserError without a cluster."""
        gcs, cluster, origins = self._connected()
        moment = to_ns(self.home.clock()) if at_ns is None else at_ns
        snapshot = collect(self.home, gcs, lambda: cluster.token, moment, origins)
        self.held = self._kept(snapshot)
        once = Counter(node.hostname for node in snapshot.nodes)
        self.host_names = {
            name: node.hostname
            for node in snapshot.nodes
            if node.hostname and once[node.hostname] == 1
            for name in node.names
        }
        return snapshot

    def close(self) -> None:
        """Give the connection back; the next look makes a new one."""
        if self._gcs is not None:
            self._gcs.close()
        self._gcs = None

    def _kept(self, snapshot: ClusterSnapshot) -> tuple[Holding, ...]:
        """What is held now; of a node that did not answer, what it held before."""
        silent = set(snapshot.unreachable)
        return (*(h for h in self.held if h.node.node_id in silent), *holdings(snapshot))

    def _connected(self) -> tuple[Gcs, Cluster, Origins]:
        from compute_guard.ray_plugin.gcs import Gcs

        cluster = load_cluster(self.home.path("ray"))
        if cluster is None:
            raise UserError("there is no cluster of this home; start one: trainguard compute up")
        if self._gcs is None or self._origins is None or cluster != self._cluster:
            self.close()
            self._cluster = cluster
            self._gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
            self._origins = Origins(cluster.gcs_address, self._gcs.supervisors)
        return self._gcs, cluster, self._origins
