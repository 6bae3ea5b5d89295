"""The lease book: what every workload holds right now, on all nodes. Pure bookkeeping, no I/O.

A workload's *credit* is what the ledger has reserved for it. A lease within the credit needs nobody's
leave; one beyond it waits until the ledger has granted more (:mod:`.credit`). So the sum of all leases
never exceeds what the ledger, the only arbiter of quota, has given out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from compute_guard.quota.limits import Amounts

NOTHING = Amounts()
_IDLE = "idle:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One held lease, or one placement group (``node`` empty). ``worker`` is known once it was granted."""

    id: str
    workload: str
    job: str
    node: str
    amounts: Amounts
    worker: str = ""


class LeaseBook:
    """Leases by id, with running sums by workload. Every method is idempotent."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._by_worker: dict[str, str] = {}
        self._sums: dict[str, dict[str, int]] = defaultdict(dict)
        self._idle: dict[str, set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, lease_id: str) -> Lease | None:
        """The lease with this id."""
        return self._leases.get(lease_id)

    def leases(self) -> tuple[Lease, ...]:
        """All leases."""
        return tuple(self._leases.values())

    def held(self, workload: str) -> Amounts:
        """What a workload's leases come to."""
        return Amounts(self._sums[workload]) if workload in self._sums else NOTHING

    def fits(self, workload: str, more: Amounts, credit: Mapping[str, int]) -> bool:
        """Whether ``more`` stays within ``credit``; a resource that is not in ``more`` is not looked at."""
        sums = self._sums.get(workload, {})
        return all(sums.get(name, 0) + amount <= credit.get(name, 0) for name, amount in more.items())

    def add(self, lease: Lease) -> None:
        """Note a lease; a second one with the same id replaces the first."""
        self.drop(lease.id)
        self._leases[lease.id] = lease
        if lease.worker:
            self._by_worker[lease.worker] = lease.id
        if lease.id.startswith(_IDLE):
            self._idle[lease.workload].add(lease.node)
        sums = self._sums[lease.workload]
        for name, amount in lease.amounts.items():
            sums[name] = sums.get(name, 0) + amount

    def settle(self, lease_id: str, worker: str, node: str = "") -> None:
        """Note which worker got a lease."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            self._leases[lease_id] = replace(lease, worker=worker, node=node or lease.node)
            self._by_worker[worker] = lease_id

    def drop(self, lease_id: str) -> Lease | None:
        """Forget a lease. The lease, None when there was none."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return None
        if lease.worker and self._by_worker.get(lease.worker) == lease_id:
            del self._by_worker[lease.worker]
        if lease_id.startswith(_IDLE):
            self._idle[lease.workload].discard(lease.node)
            if not self._idle[lease.workload]:
                del self._idle[lease.workload]
        sums = self._sums[lease.workload]
        for name, amount in lease.amounts.items():
            sums[name] -= amount
        if not any(sums.values()):
            del self._sums[lease.workload]
        return lease

    def of_worker(self, worker: str) -> Lease | None:
        """The lease that a worker has."""
        return self._leases.get(self._by_worker.get(worker, ""))

    def idle_at(self, workload: str) -> tuple[str, ...]:
        """The nodes that keep something of a workload beyond its leases."""
        return tuple(self._idle.get(workload, ()))

    def change_idle(self, node: str, workload: str, change: Mapping[str, int]) -> bool:
        """Add to what ``node`` keeps of a workload, or take from it. Whether there was as much to take."""
        name = f"{_IDLE}{node}:{workload}"
        before = self.drop(name)
        after = dict(before.amounts if before is not None else {})
        for resource, more in change.items():
            after[resource] = after.get(resource, 0) + more
        kept = Amounts({resource: amount for resource, amount in after.items() if amount > 0})
        if kept:
            self.add(Lease(id=name, workload=workload, job="", node=node, amounts=kept))
        return all(amount >= 0 for amount in after.values())

    def drop_groups(self, job: str) -> int:
        """Forget the placement groups of a job. How many that were."""
        return self._drop_all(lease for lease in self.leases() if lease.job == job and not lease.node)

    def drop_node(self, node: str) -> int:
        """Forget everything on a node that is gone. How many leases that were."""
        return self._drop_all(lease for lease in self.leases() if lease.node == node)

    def _drop_all(self, leases: Iterable[Lease]) -> int:
        return sum(self.drop(lease.id) is not None for lease in leases)

    def replace_node(self, node: str, leases: Iterable[Lease]) -> None:
        """Take a node's own account of its leases, after either side was restarted."""
        fresh = {lease.id: lease for lease in leases}
        for lease in self.leases():
            if lease.node == node and lease.id not in fresh:
                self.drop(lease.id)
        for lease in fresh.values():
            self.add(lease)
