"""Quota arithmetic in Kueue's words: queues, cohorts, flavors, nominal quota, borrowing and lending limits.

Every amount is an integer (thousandths of a CPU or GPU, bytes, jobs); Python's integers do not
overflow, and `Amounts` refuses anything else, so a sum can be neither rounded nor wrapped. The formulas
are those of Kueue's ``pkg/cache/scheduler/resource_node.go``, for cohorts in cohorts too; they stand in
:mod:`compute_guard.cycle`, because the compiled replay uses the same lines.

* guaranteed = max(0, nominal - lending limit): what a queue never lends;
* a cohort offers its own nominal quota and the sum of its members' (nominal - guaranteed), and is used by
what
  each member uses beyond its guaranteed part;
* available = own guaranteed rest + min(cohort rest, what the borrowing limit still permits).

`available` may be negative after an administrator lowered a quota below what runs. A resource of a flavor is
written ``gpu_milli@a100``: each flavor of a resource has a quota of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from compute_guard.quota_tree import NO_LIMIT, Tree, grown, room, take
from guard_core.errors import UserError

JOBS = "jobs"
CPU = "cpu_milli"
GPU = "gpu_milli"
MEMORY = "memory_bytes"
WORKERS = "workers"
STORAGE_LIMIT = 2**63 - 1
"""Largest amount a reservation can hold: the ledger's columns are signed 64-bit."""

_RESOURCE = re.compile(r"^[a-z][a-z0-9_]*(@[a-z0-9][a-z0-9._-]*)?$")
HOUR_MS = 3_600_000
WAYS_KEPT = 4096
NOBODYS = "?"
"""The column of `Quotas.resources` for what no queue has quota of: it never fits."""


class Amounts(Mapping[str, int]):
    """Immutable resource amounts; a resource that is not named is zero. Zeros are not stored.

    Raises UserError for a name that is not ``[a-z][a-z0-9_]*`` (with ``@flavor`` where there are flavors), a
    non-integer or an amount outside 0..2**63-1.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, int] | None = None) -> None:
        kept: dict[str, int] = {}
        for name in sorted(values or {}):
            amount = (values or {})[name]
            if not _RESOURCE.match(name):
                raise UserError(f"resource {name!r} must be lower-case letters, digits and underscores")
            if isinstance(amount, bool) or not isinstance(amount, int):
                raise UserError(f"amount of {name} must be an integer, got {amount!r}")
            if not 0 <= amount <= STORAGE_LIMIT:
                raise UserError(f"amount of {name} must be from 0 to {STORAGE_LIMIT}, got {amount}")
            if amount:
                kept[name] = amount
        self._values: Mapping[str, int] = MappingProxyType(kept)

    def __getitem__(self, name: str) -> int:
        return self._values.get(name, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __add__(self, other: Amounts) -> Amounts:
        return self._with(other, 1)

    def __sub__(self, other: Amounts) -> Amounts:
        return self._with(other, -1)

    def _with(self, other: Amounts, sign: int) -> Amounts:
        """The names are known to be good; only the amounts are looked at."""
        values = dict(self._values)
        for name, amount in other._values.items():
            values[name] = values.get(name, 0) + sign * amount
        if any(not 0 < amount <= STORAGE_LIMIT for amount in values.values()):
            return Amounts(values)  # drops zeros, refuses the rest
        result = object.__new__(Amounts)
        result._values = MappingProxyType(dict(sorted(values.items())))
        return result

    def __or__(self, other: Amounts) -> Amounts:
        """The larger of the two, resource by resource."""
        return Amounts({name: max(self[name], other[name]) for name in {*self, *other}})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Amounts) and dict(self._values) == dict(other._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return f"Amounts({dict(self._values)})"

    def __reduce__(self) -> tuple[type[Amounts], tuple[dict[str, int]]]:
        return (Amounts, (dict(self._values),))


@dataclass(frozen=True, slots=True)
class ResourceQuota:
    """One queue's quota of one resource. ``None`` as a limit means "no limit"."""

    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("nominal", "borrowing_limit", "lending_limit"):
            value = getattr(self, name)
            if value is None and name != "nominal":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= STORAGE_LIMIT:
                raise UserError(f"quota {name} must be a non-negative integer, got {value!r}")

    @property
    def guaranteed(self) -> int:
        """The part of the nominal quota that is never lent."""
        return 0 if self.lending_limit is None else max(0, self.nominal - self.lending_limit)

    @property
    def lendable(self) -> int:
        """The part of the nominal quota that the cohort may use while it is idle."""
        return self.nominal - self.guaranteed

    def beyond_guaranteed(self, used: int) -> int:
        """How much of ``used`` counts against the cohort."""
        return max(0, used - self.guaranteed)


NO_QUOTA = ResourceQuota(0, 0, 0)
"""A resource a queue does not name: it has none of it and may borrow none."""


@dataclass(frozen=True, slots=True)
class Preemption:
    """What a queue may take back, and how its own work is taken out (Kueue's ``preemption``).

    ``reclaim_within_cohort``: whose borrowed quota the queue may take back for what is its own (``never``,
    ``lower_priority``, ``any``). ``within_queue``: whether a higher priority ends a lower one in the same
    queue (``never``, ``lower_priority``). The rest is for the queue's own jobs when they have to go: the
    time between notice and stop, whether they wait again (``requeue``) or end (``end``), and whether a quota
    that was lowered below what runs takes jobs out (``lowered_quota``: ``keep`` or ``preempt``).
    """

    reclaim_within_cohort: str = "never"
    within_queue: str = "never"
    grace_seconds: int = 30
    then: str = "requeue"
    lowered_quota: str = "keep"


@dataclass(frozen=True, slots=True)
class Budget:
    """GPU-hours a queue may have used, as decayed by half-life: a spent budget refills by itself."""

    gpu_hours: int
    half_life_hours: int

    @property
    def half_life_ms(self) -> int:
        """The half-life in milliseconds."""
        return self.half_life_hours * HOUR_MS

    @property
    def limit(self) -> int:
        """The budget in the meter's unit: thousandths of a GPU times milliseconds."""
        return self.gpu_hours * 1000 * HOUR_MS


@dataclass(frozen=True, slots=True)
class FairShare:
    """How use is remembered. ``cost`` is what a thousandth of a resource counts."""

    half_life_hours: int = 168
    cost: Mapping[str, int] = field(default_factory=lambda: {GPU: 32, CPU: 1})
    patience_seconds: int = 3600
    """A job that would borrow and has waited so long keeps room from those behind it."""
    preempt: bool = False
    """Whether a borrower takes from one whose queue would still have had more for its weight."""

    @property
    def half_life_ms(self) -> int:
        """The half-life in milliseconds."""
        return self.half_life_hours * HOUR_MS

    def rate(self, amounts: Mapping[str, int]) -> int:
        """What holding ``amounts`` costs in one millisecond."""
        return sum(self.cost.get(base_of(name), 0) * value for name, value in amounts.items())


@dataclass(frozen=True, slots=True)
class Flavor:
    """A kind of node (a GPU type): the Ray labels its nodes carry, and their pool in nodes.yaml, if any."""

    name: str
    node_labels: Mapping[str, str] = field(default_factory=dict)
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Queues (and cohorts) that lend to each other. ``resources`` is quota of its own, shared by all in
    it."""

    name: str
    parent: str | None = None
    resources: Mapping[str, ResourceQuota] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A tenant's queue and its quotas (Kueue's ClusterQueue). Flavored resources stand in ``resources``

    under ``resource@flavor``; ``flavors`` is the order in which they are tried.
    """

    name: str
    tenant: str
    cohort: str | None
    resources: Mapping[str, ResourceQuota]
    weight: int = 1
    per_user: Mapping[str, int] = field(default_factory=dict)
    """The most that one user may hold in this queue, by resource; a resource not named has no such cap."""
    flavors: tuple[str, ...] = ()
    preemption: Preemption = field(default_factory=Preemption)
    budget: Budget | None = None
    max_pending: int | None = None
    """The most jobs that may wait in this queue; None: no such limit."""

    def __post_init__(self) -> None:
        for resource, cap in self.per_user.items():
            if isinstance(cap, bool) or not isinstance(cap, int) or not 0 <= cap <= STORAGE_LIMIT:
                raise UserError(f"per_user cap of {resource} must be a non-negative integer, got {cap!r}")

    def quota(self, resource: str) -> ResourceQuota:
        """The quota of ``resource``; nothing at all when the queue does not name it."""
        return self.resources.get(resource, NO_QUOTA)

    def assignments(self, requests: Amounts, wanted: Sequence[str] = ()) -> tuple[tuple[str, Amounts], ...]:
        """The ways to place ``requests``: (flavor, amounts), in the order they are tried, never empty.

        A request that no flavor of the queue is about has one way, without a flavor. ``wanted`` narrows the
        flavors; when none is left the first way asks for what cannot be had, so it is refused with its name.
        """
        flavored = {name.partition("@")[0] for name in self.resources if "@" in name}
        if not self.flavors or not flavored & set(requests):
            return (("", requests),)
        names = [name for name in self.flavors if not wanted or name in wanted] or list(wanted)
        return tuple(
            (
                name,
                Amounts({(f"{r}@{name}" if r in flavored else r): value for r, value in requests.items()}),
            )
            for name in names
        )

    def keeps_user(self, requests: Amounts, held: Amounts) -> bool:
        """Whether a user who holds ``held`` may not have ``requests`` too, which alone would be permitted."""
        if not self.per_user:
            return False
        possible = all(total(requests, name) <= cap for name, cap in self.per_user.items())
        now = all(
            not (asked := total(requests, name)) or total(held, name) + asked <= cap
            for name, cap in self.per_user.items()
        )
        return possible and not now


def base_of(resource: str) -> str:
    """``gpu_milli`` of ``gpu_milli@a100``."""
    return resource.partition("@")[0]


def total(amounts: Mapping[str, int], resource: str) -> int:
    """What ``amounts`` hold of ``resource`` in all its flavors; of one flavor where ``resource`` names it."""
    if "@" in resource:
        return amounts.get(resource, 0)
    return sum(value for name, value in amounts.items() if base_of(name) == resource)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to place a request: its flavor, what it then takes, and that in the order of
    `Quotas.resources`."""

    flavor: str
    amounts: Amounts
    vector: tuple[int, ...]


def flavor_of(amounts: Mapping[str, int]) -> str:
    """The flavor that held ``amounts`` name, empty without one."""
    return next((name.partition("@")[2] for name in amounts if "@" in name), "")


def gpu_rate(amounts: Mapping[str, int]) -> int:
    """What holding ``amounts`` takes from a budget in one millisecond: thousandths of a GPU."""
    return total(amounts, GPU)


Usage = Mapping[str, Amounts]
"""Reserved amounts by queue name."""


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
        from compute_guard.quota_file import read_quotas

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
        """Queues and cohorts as integers, for :mod:`compute_guard.cycle`."""
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

    def members(self, queue: Queue) -> tuple[Queue, ...]:
        """The queues that share a tree of cohorts with ``queue``, itself included."""
        if queue.cohort is None:
            return (queue,)
        root = self.tree.root[self.nodes[queue.name]]
        return tuple(q for q in self.queues.values() if self.tree.root[self.nodes[q.name]] == root)

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
        return max(0, usage.get(name, _NONE)[resource] - self.queues[name].quota(resource).nominal)


_NONE = Amounts()
