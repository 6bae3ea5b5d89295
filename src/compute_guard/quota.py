"""Quota arithmetic in Kueue's words: queues, cohorts, nominal quota, borrowing and lending limits.

Every amount is an integer (thousandths of a CPU or GPU, bytes, jobs); Python's integers do not
overflow, and `Amounts` refuses anything else, so a sum can be neither rounded nor wrapped. The formulas
are those of Kueue's ``pkg/cache/scheduler/resource_node.go`` for one level of cohort:

* guaranteed = max(0, nominal - lending limit): what a queue never lends;
* a cohort offers the sum of its queues' (nominal - guaranteed), and is used by what each queue uses
  beyond its guaranteed part;
* available = own guaranteed rest + min(cohort rest, what the borrowing limit still permits).

`available` may be negative after an administrator lowered a quota below what runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from guard_core.errors import UserError

JOBS = "jobs"
CPU = "cpu_milli"
GPU = "gpu_milli"
MEMORY = "memory_bytes"
STORAGE_LIMIT = 2**63 - 1
"""Largest amount a reservation can hold: the ledger's columns are signed 64-bit."""

_RESOURCE = re.compile(r"^[a-z][a-z0-9_]*$")


class Amounts(Mapping[str, int]):
    """Immutable resource amounts; a resource that is not named is zero. Zeros are not stored.

    Raises UserError for a name that is not ``[a-z][a-z0-9_]*``, a non-integer or an amount outside
    0..2**63-1.
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
        return Amounts({name: self[name] + other[name] for name in {*self, *other}})

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts({name: self[name] - other[name] for name in {*self, *other}})

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
class Queue:
    """A tenant's queue and its quotas (Kueue's ClusterQueue)."""

    name: str
    tenant: str
    cohort: str | None
    resources: Mapping[str, ResourceQuota]
    weight: int = 1
    per_user: Mapping[str, int] = field(default_factory=dict)
    """The most that one user may hold in this queue, by resource; a resource not named has no such cap."""

    def __post_init__(self) -> None:
        for resource, cap in self.per_user.items():
            if isinstance(cap, bool) or not isinstance(cap, int) or not 0 <= cap <= STORAGE_LIMIT:
                raise UserError(f"per_user cap of {resource} must be a non-negative integer, got {cap!r}")

    def quota(self, resource: str) -> ResourceQuota:
        """The quota of ``resource``; nothing at all when the queue does not name it."""
        return self.resources.get(resource, NO_QUOTA)


Usage = Mapping[str, Amounts]
"""Reserved amounts by queue name."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """All queues, immutable. The arithmetic of who may still reserve how much."""

    queues: Mapping[str, Queue]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Quotas:
        """Read ``data.guard.config.quotas``. Raises UserError naming the queue and the fault."""
        queues: dict[str, Queue] = {}
        raw_queues = config.get("queues")
        if not isinstance(raw_queues, Mapping):
            raise UserError("quotas: `queues` is missing; see opa_policies/data/quotas.yaml")
        cohorts = config.get("cohorts") or {}
        for name, raw in raw_queues.items():
            try:
                resources = {
                    resource: ResourceQuota(
                        limits["nominal"], limits.get("borrowing_limit"), limits.get("lending_limit")
                    )
                    for resource, limits in raw["resources"].items()
                }
                queue = Queue(
                    name,
                    raw["tenant"],
                    raw.get("cohort"),
                    MappingProxyType(resources),
                    raw.get("weight", 1),
                    MappingProxyType(dict(raw.get("per_user") or {})),
                )
            except (KeyError, TypeError, AttributeError) as error:
                raise UserError(f"quotas: queue {name} is malformed: {error!r}") from error
            except UserError as error:
                raise UserError(f"quotas: queue {name}: {error.message}") from error
            if queue.cohort is not None and queue.cohort not in cohorts:
                raise UserError(f"quotas: queue {name} names cohort {queue.cohort}, which does not exist")
            queues[name] = queue
        return cls(MappingProxyType(queues))

    def queue_of(self, tenant: str, name: str = "") -> Queue:
        """The queue ``name`` of ``tenant``, or its own one. Raises UserError when it has no such queue."""
        own = sorted(queue.name for queue in self.queues.values() if queue.tenant == tenant)
        if not own:
            raise UserError(f"tenant {tenant} has no queue; add one to opa_policies/data/quotas.yaml")
        if name and name not in own:
            raise UserError(f"tenant {tenant} has no queue {name!r}; its queues are {', '.join(own)}")
        return self.queues[name or (tenant if tenant in own else own[0])]

    def members(self, queue: Queue) -> tuple[Queue, ...]:
        """The queues that share a cohort with ``queue``, itself included."""
        if queue.cohort is None:
            return (queue,)
        return tuple(q for q in self.queues.values() if q.cohort == queue.cohort)

    def available(self, name: str, resource: str, usage: Usage) -> int:
        """How much more of ``resource`` queue ``name`` may reserve now; negative after a cut below use."""
        queue = self.queues[name]
        quota = queue.quota(resource)
        used = usage.get(name, _NONE)[resource]
        if queue.cohort is None:
            return quota.nominal - used
        offered = taken = 0
        for member in self.members(queue):
            theirs = member.quota(resource)
            offered += theirs.lendable
            taken += theirs.beyond_guaranteed(usage.get(member.name, _NONE)[resource])
        shared = offered - taken
        if quota.borrowing_limit is not None:
            own_rest = quota.lendable - quota.beyond_guaranteed(used)
            shared = min(shared, own_rest + quota.borrowing_limit)
        return max(0, quota.guaranteed - used) + shared

    def potential(self, name: str, resource: str) -> int:
        """The most queue ``name`` could ever hold of ``resource``, with its whole cohort idle."""
        queue = self.queues[name]
        quota = queue.quota(resource)
        if queue.cohort is None:
            return quota.nominal
        most = quota.guaranteed + sum(member.quota(resource).lendable for member in self.members(queue))
        if quota.borrowing_limit is not None:
            most = min(most, quota.nominal + quota.borrowing_limit)
        return most

    def borrowed(self, name: str, resource: str, usage: Usage) -> int:
        """How much of ``resource`` queue ``name`` uses beyond its own nominal quota."""
        return max(0, usage.get(name, _NONE)[resource] - self.queues[name].quota(resource).nominal)


_NONE = Amounts()
