"""Who holds which GPU and which node now: pure functions from a snapshot of Ray and the ledger.

Ray's raylets say which worker process of which Ray job holds which slots; Ray's job table says which
submission that job belongs to; the ledger says which tenant was admitted with that submission. A holder that
cannot be followed to an admitted job is *unattributed*: its lease carries no tenant and explains no process.
Which tenant a job belongs to is never taken from what the job says of itself.

Label `detective`: this is a look from outside, true at the moment of the look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from compute_guard.ledger.reconcile import INTERNAL_NAMESPACE, Driver
from compute_guard.usage.attribution import WHOLE_MILLI, Lease, LeaseBook
from compute_guard.usage.samples import Device

GPU: Final = "GPU"
KEEP_ENDED_NS: Final = 300 * 1_000_000_000
"""A lease that ended stays in the book this long: the interval in which it ended is still to be divided."""
_GROUP = re.compile(r"^(?P<base>.+?)_group_(?:\d+_)?[0-9a-f]{36}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker or driver process and what it holds: resource -> ((slot, thousandths), ...)."""

    node_id: str
    pid: int
    job_id: str
    actor_id: str = ""
    is_driver: bool = False
    held: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def slots(self, resource: str) -> dict[int, int]:
        """Thousandths by slot. A placement group names one holding twice (with and without the bundle's

        number), so the larger of both counts, never the sum.
        """
        found: dict[int, int] = {}
        for name, slots in self.held.items():
            match = _GROUP.match(name)
            if (match["base"] if match else name) == resource:
                for slot, milli in slots:
                    found[slot] = max(found.get(slot, 0), milli)
        return {slot: milli for slot, milli in sorted(found.items()) if milli > 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A living node; ``local`` when its processes can be seen from here."""

    node_id: str
    address: str
    hostname: str = ""
    metrics_port: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    local: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """What telemetry may call this node."""
        return frozenset({self.node_id, self.address, self.hostname} - {""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the ledger knows of an admitted job. ``gpu_milli`` is what it reserved."""

    submission_id: str
    tenant: str
    user: str = ""
    queue: str = ""
    gpu_milli: int = 0
    ray_job_id: str = ""
    kind: str = "batch"
    entrypoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """Ray and the ledger at one moment.

    ``supervisors``: actor id of Ray's own job supervisor -> submission. ``children``: process id -> itself
    and its descendants, on local nodes only. ``unreachable``: nodes whose raylet did not answer.
    """

    at_ns: int
    nodes: tuple[Node, ...] = ()
    workers: tuple[Worker, ...] = ()
    drivers: tuple[Driver, ...] = ()
    grants: tuple[Grant, ...] = ()
    supervisors: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    unreachable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one job holds on one node. ``grant`` None: nobody was admitted with it.

    ``gpus``: thousandths by GPU index; ``cpu_milli``: thousandths of a CPU; ``pids``: its processes, empty
    when the node's processes cannot be seen.
    """

    node: Node
    job: str
    grant: Grant | None
    gpus: Mapping[int, int]
    cpu_milli: int
    pids: frozenset[int]

    @property
    def tenant(self) -> str:
        """The tenant, empty when nobody was admitted with this job."""
        return self.grant.tenant if self.grant else ""


def grants_by_ray_job(snapshot: ClusterSnapshot) -> dict[str, Grant]:
    """Ray job id -> grant. What the ledger recorded wins over what a driver claims, and a driver that

    certainly was not started by its submission (``origin`` False) gets nothing.
    """
    by_submission = {grant.submission_id: grant for grant in snapshot.grants}
    found = {}
    for driver in snapshot.drivers:
        grant = by_submission.get(driver.submission_id)
        if grant is not None and driver.origin is not False:
            found[driver.job_id] = grant
    refused = {driver.job_id for driver in snapshot.drivers if driver.origin is False}
    for grant in snapshot.grants:
        if grant.ray_job_id and grant.ray_job_id not in refused:
            found[grant.ray_job_id] = grant
    return found


def holdings(snapshot: ClusterSnapshot) -> tuple[Holding, ...]:
    """Who holds what, one per (node, job), sorted. Ray's own workers without GPUs are left out."""
    grants = grants_by_ray_job(snapshot)
    by_submission = {grant.submission_id: grant for grant in snapshot.grants}
    internal = {
        d.job_id
        for d in snapshot.drivers
        if d.namespace.startswith(INTERNAL_NAMESPACE) and not d.submission_id and d.origin is not False
    }
    nodes = {node.node_id: node for node in snapshot.nodes}
    grouped: dict[tuple[str, str], list[tuple[Worker, Grant | None]]] = {}
    for worker in snapshot.workers:
        if worker.node_id not in nodes:
            continue
        grant, job = grants.get(worker.job_id), worker.job_id
        if worker.job_id in internal:
            # Ray's supervisor holds what the entrypoint asked for, in the name of the dashboard's own job.
            job = snapshot.supervisors.get(worker.actor_id, "")
            grant = by_submission.get(job)
            if not job:
                continue
        grouped.setdefault((worker.node_id, grant.submission_id if grant else job), []).append(
            (worker, grant)
        )
    return tuple(
        _holding(nodes[node_id], job, members, snapshot.children)
        for (node_id, job), members in sorted(grouped.items())
    )


def _holding(
    node: Node, job: str, members: list[tuple[Worker, Grant | None]], children: Mapping[int, tuple[int, ...]]
) -> Holding:
    gpus: dict[int, int] = {}
    for worker, _ in members:
        for slot, milli in worker.slots(GPU).items():
            gpus[slot] = gpus.get(slot, 0) + milli
    pids = {pid for w, _ in members for pid in (w.pid, *children.get(w.pid, ()))} if node.local else set()
    return Holding(
        node=node,
        job=job,
        grant=members[0][1],
        gpus=dict(sorted(gpus.items())),
        cpu_milli=sum(milli for w, _ in members for milli in w.slots("CPU").values()),
        pids=frozenset(pids),
    )


def leases(held: Iterable[Holding], devices: Iterable[Device], at_ns: int) -> tuple[Lease, ...]:
    """Leases on the telemetry's ``devices``, beginning at ``at_ns``, sorted.

    A device is found by node name and GPU index. Where one index has several devices (MIG slices), it cannot
    say which: the job gets a lease on each, so two jobs there are *contested* unless accounting divides.
    """
    by_place: dict[tuple[str, int], list[Device]] = {}
    for device in devices:
        by_place.setdefault((device.node, device.index), []).append(device)
    found = []
    for holding in held:
        for index, milli in holding.gpus.items():
            places = {d for name in holding.node.names for d in by_place.get((name, index), [])}
            for number, device in enumerate(sorted(places)):
                grant = holding.grant
                found.append(
                    Lease(
                        device.key,
                        holding.tenant,
                        holding.job,
                        start_ns=at_ns,
                        gpu_milli=WHOLE_MILLI if len(places) > 1 else milli,
                        quota_milli=milli if number == 0 else 0,
                        user=grant.user if grant else "",
                        kind=grant.kind if grant else "batch",
                        entrypoint=grant.entrypoint if grant else "",
                        pids=holding.pids,
                        granted_milli=grant.gpu_milli if grant else None,
                    )
                )
    return tuple(sorted(found, key=lambda lease: (lease.device, lease.tenant, lease.job)))


def renewed(before: LeaseBook, now: Iterable[Lease], *, looked_ns: int, at_ns: int) -> LeaseBook:
    """The book after a look at ``at_ns``; the look before was at ``looked_ns`` (0: there was none).

    Within the interval between two looks the moment of a change is not known: what is new is taken to have
    begun at the previous look, and what is gone to have ended now. So a job answers for at most one interval
    too much, and its own processes are never a stranger's.
    """
    fresh = {_key(lease): lease for lease in now}
    book = []
    for lease in before.leases:
        current = fresh.pop(_key(lease), None) if lease.end_ns is None else None
        if current is not None:
            book.append(replace(current, start_ns=lease.start_ns))
        elif lease.end_ns is None:
            book.append(replace(lease, end_ns=at_ns))
        elif at_ns - lease.end_ns <= KEEP_ENDED_NS:
            book.append(lease)
    book += [replace(lease, start_ns=looked_ns or at_ns) for lease in fresh.values()]
    ordered = tuple(sorted(book, key=lambda x: (x.device, x.start_ns, x.tenant, x.job)))
    # The very same book when nothing changed: what readers worked out from it is still right.
    return before if ordered == before.leases else LeaseBook(ordered)


def _key(lease: Lease) -> tuple[str, str, str]:
    return (lease.device, lease.tenant, lease.job)
