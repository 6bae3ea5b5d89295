"""Quota arithmetic in Kueue's words: queues, cohorts, flavors, nominal quota, borrowing and lending limits.

Every amount is an integer (thousandths of a CPU or GPU, bytes, jobs); Python's integers do not
overflow, and `Amounts` refuses anything else, so a sum can be neither rounded nor wrapped. The formulas
are those of Kueue's ``pkg/cache/scheduler/resource_node.go``, for cohorts in cohorts too; they stand in
:mod:`compute_guard.quota.tree`, because the compiled replay uses the same lines.

* guaranteed = max(0, nominal - lending limit): what a queue never lends;
* a cohort offers its own nominal quota and the sum of its members' (nominal - guaranteed), and is used by
  what each member uses beyond its guaranteed part;
* available = own guaranteed rest + min(cohort rest, what the borrowing limit still permits).

`available` may be negative after an administrator lowered a quota below what runs. A resource of a flavor is
written ``gpu_milli@a100``: each flavor of a resource has a quota of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from compute_guard.quota.amounts import (
    CPU,
    GPU,
    JOBS,
    MEMORY,
    NOTHING,
    STORAGE_LIMIT,
    WORKERS,
    Amounts,
    base_of,
    flavor_of,
    gpu_rate,
    total,
)
from compute_guard.quota.queues import (
    HOUR_MS,
    NO_QUOTA,
    Budget,
    Cohort,
    FairShare,
    Flavor,
    Preemption,
    Queue,
    ResourceQuota,
)
from compute_guard.quota.tree import NO_LIMIT, Tree, grown, room, take
from guard_core.errors import UserError

__all__ = [
    "CPU",
    "GPU",
    "HOUR_MS",
    "JOBS",
    "MEMORY",
    "NOBODYS",
    "NOTHING",
    "STORAGE_LIMIT",
    "WAYS_KEPT",
    "WORKERS",
    "Amounts",
    "Budget",
    "Cohort",
    "FairShare",
    "Flavor",
    "Preemption",
    "Queue",
    "Quotas",
    "ResourceQuota",
    "Usage",
    "Way",
    "base_of",
    "flavor_of",
    "gpu_rate",
    "total",
]

WAYS_KEPT = 4096
NOBODYS = "?"
"""The column of `Quotas.resources` for what no queue has quota of: it never fits."""
Usage = Mapping[str, Amounts]
"""Reserved amounts by queue name."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to place a request: its flavor, what it then takes, and that in the order of
    `Quotas.resources`."""

    flavor: str
    amounts: Amounts
    vector: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request comes to in one resource of a queue, as far as that does not change with use.

    ``place`` is the column of `Quotas.resources`, None for what nobody has quota of; ``potential`` the most
    the queue could ever hold, with its whole cohort idle.
    """

    resource: str
    place: int | None
    requested: int
    quota: ResourceQuota
    potential: int
    user_limit: int | None


@dataclass(frozen=True)
class Quotas:
    """All queues, immutable. The arithmetic of who may still reserve how much."""

    queues: Mapping[str, Queue]
    cohorts: Mapping[str, Cohort] = field(default_factory=dict)
    flavors: Mapping[str, Flavor] = field(default_factory=dict)
    fair_share: FairShare = field(default_factory=FairShare)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Quotas:
        """Read ``data.guard.config.quotas``. Raises UserError naming the queue and the fault."""
        from compute_guard.quota.file import read_quotas

        return read_quotas(config)

    @cached_property
    def resources(self) -> tuple[str, ...]:
        """Every resource that a queue or a cohort names, in a fixed order; last, what nobody has quota of."""
        named = {JOBS, CPU, GPU, MEMORY}
        for queue in self.queues.values():
            named |= set(queue.resources)
        for cohort in self.cohorts.values():
            named |= set(cohort.resources)
        return (*sorted(named), NOBODYS)

    @cached_property
    def nodes(self) -> Mapping[str, int]:
        """Queue name -> its place in `tree`; cohorts come after all queues."""
        return {name: place for place, name in enumerate(self.queues)}

    @cached_property
    def tree(self) -> Tree:
        """Queues and cohorts as integers, for :mod:`compute_guard.admission.cycle`."""
        places = {("queue", name): place for name, place in self.nodes.items()}
        implied = {q.cohort: Cohort(q.cohort) for q in self.queues.values() if q.cohort is not None}
        for name in {**implied, **self.cohorts}:
            places["cohort", name] = len(places)
        cohorts = {**implied, **self.cohorts}
        parents: list[int] = []
        own: list[Mapping[str, ResourceQuota]] = []
        absent: list[ResourceQuota] = []
        for queue in self.queues.values():
            parents.append(-1 if queue.cohort is None else places["cohort", queue.cohort])
            own.append(queue.resources)
            absent.append(NO_QUOTA)
        for cohort in cohorts.values():
            parents.append(-1 if cohort.parent is None else places["cohort", cohort.parent])
            own.append(cohort.resources)
            absent.append(
                ResourceQuota(0)
            )  # a cohort without quota of its own hides nothing from its members
        rows = [
            [node.get(name, none) for name in self.resources] for node, none in zip(own, absent, strict=True)
        ]

        def limit(value: int | None) -> int:
            return NO_LIMIT if value is None else value

        return grown(
            parents,
            [[quota.nominal for quota in row] for row in rows],
            [[limit(quota.borrowing_limit) for quota in row] for row in rows],
            [[limit(quota.lending_limit) for quota in row] for row in rows],
        )

    def usage_of(self, usage: Usage) -> list[list[int]]:
        """Reserved amounts by queue as use of every node of `tree`, one list of `resources` for each."""
        dense = [[0] * len(self.resources) for _ in self.tree.parent]
        for name, amounts in usage.items():
            node = self.nodes.get(name)
            if node is None:
                continue  # a queue that was deleted while work of it runs: nobody's quota is charged
            for place, resource in enumerate(self.resources):
                if amounts[resource]:
                    take(self.tree, dense, node, place, amounts[resource])
        return dense

    @cached_property
    def _idle(self) -> list[list[int]]:
        return self.usage_of({})

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.resources)}

    def vector(self, amounts: Amounts) -> tuple[int, ...]:
        """``amounts`` in the order of `resources`."""
        foreign = sum(value for name, value in amounts.items() if name not in self._places)
        return (*(amounts[resource] for resource in self.resources[:-1]), min(foreign, STORAGE_LIMIT))

    @cached_property
    def _ways(self) -> dict[tuple[str, Amounts, tuple[str, ...]], tuple[Way, ...]]:
        return {}

    def ways(self, name: str, requests: Amounts, wanted: tuple[str, ...] = ()) -> tuple[Way, ...]:
        """The ways to place ``requests`` in queue ``name``, in the order they are tried (Kueue's flavors)."""
        key = (name, requests, wanted)
        found = self._ways.get(key)
        if found is None:
            found = tuple(
                Way(flavor, amounts, self.vector(amounts))
                for flavor, amounts in self.queues[name].assignments(requests, wanted)
            )
            if len(self._ways) >= WAYS_KEPT:
                self._ways.clear()
            self._ways[key] = found
        return found

    @cached_property
    def _asked(self) -> dict[tuple[str, Amounts], tuple[Asked, ...]]:
        return {}

    def asked(self, name: str, amounts: Amounts) -> tuple[Asked, ...]:
        """``amounts``, named with their flavors, one by one beside the quotas of queue ``name``.

        The four resources that every job is told about come first, whether it asks for them or not.
        """
        found = self._asked.get((name, amounts))
        if found is None:
            queue, rows = self.queues[name], dict[str, Asked]()
            for resource in dict.fromkeys((JOBS, CPU, GPU, MEMORY, *sorted(amounts))):
                base = base_of(resource)
                if base not in rows or resource in amounts:
                    rows[base] = Asked(
                        resource=base,
                        place=self.place(resource),
                        requested=amounts[resource],
                        quota=queue.quota(resource),
                        potential=self.potential(name, resource),
                        user_limit=queue.per_user.get(base),
                    )
            found = tuple(rows.values())
            if len(self._asked) >= WAYS_KEPT:
                self._asked.clear()
            self._asked[name, amounts] = found
        return found

    def place(self, resource: str) -> int | None:
        """The column of ``resource`` in dense use, None for what nobody has quota of."""
        return self._places.get(resource)

    def room(self, name: str, resource: str, dense: list[list[int]]) -> int:
        """How much more of ``resource`` queue ``name`` may reserve with use ``dense`` (:meth:`usage_of`)."""
        place = self._places.get(resource)
        return 0 if place is None else room(self.tree, dense, self.nodes[name], place)

    def top_of(self, name: str) -> str:
        """The cohort at the top of a queue's tree; the queue itself without a cohort."""
        above = self.queues[name].cohort
        if above is None:
            return name
        while above in self.cohorts and self.cohorts[above].parent is not None:
            above = self.cohorts[above].parent or above
        return above

    @cached_property
    def _trees(self) -> Mapping[int, tuple[str, ...]]:
        found: dict[int, list[str]] = {}
        for name, node in self.nodes.items():
            found.setdefault(self.tree.root[node], []).append(name)
        return {root: tuple(names) for root, names in found.items()}

    def queues_of(self, root: int) -> tuple[str, ...]:
        """The queues of the tree of cohorts whose top is the node ``root`` of `tree`."""
        return self._trees[root]

    def members(self, queue: Queue) -> tuple[Queue, ...]:
        """The queues that share a tree of cohorts with ``queue``, itself included."""
        if queue.cohort is None:
            return (queue,)
        return tuple(self.queues[name] for name in self.queues_of(self.tree.root[self.nodes[queue.name]]))

    def queue_of(self, tenant: str, name: str = "") -> Queue:
        """The queue ``name`` of ``tenant``, or its own one. Raises UserError when it has no such queue."""
        own = sorted(queue.name for queue in self.queues.values() if queue.tenant == tenant)
        if not own:
            raise UserError(f"tenant {tenant} has no queue; add one to opa_policies/data/quotas.yaml")
        if name and name not in own:
            raise UserError(f"tenant {tenant} has no queue {name!r}; its queues are {', '.join(own)}")
        return self.queues[name or (tenant if tenant in own else own[0])]

    def available(self, name: str, resource: str, usage: Usage) -> int:
        """How much more of ``resource`` queue ``name`` may reserve now; negative after a cut below use."""
        return self.room(name, resource, self.usage_of(usage))

    def potential(self, name: str, resource: str) -> int:
        """The most queue ``name`` could ever hold of ``resource``, with its whole cohort idle."""
        return self.room(name, resource, self._idle)

    def borrowed(self, name: str, resource: str, usage: Usage) -> int:
        """How much of ``resource`` queue ``name`` uses beyond its own nominal quota."""
        return max(0, usage.get(name, NOTHING)[resource] - self.queues[name].quota(resource).nominal)
