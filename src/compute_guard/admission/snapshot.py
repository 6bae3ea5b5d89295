"""The state one admission decision is made on: quotas, reservations and the waiting line, all immutable.

A decision never looks at live state (Kueue's snapshot); the ledger checks the arithmetic once more in the
transaction that reserves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from compute_guard.admission.fair_meter import advance
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import Amounts, Quotas
from compute_guard.quota.tree import take_all


def queue_order(workload: Workload) -> tuple[int, int, str]:
    """Sort key of a waiting line: higher priority first, then the older, then the id so that it is total."""
    return (-workload.priority, workload.created_ns, workload.id)


@dataclass(frozen=True, slots=True)
class Meter:
    """Decayed use: ``value`` at ``at_ms``, growing by ``rate`` a millisecond since (`cycle.advance`)."""

    value: int = 0
    rate: int = 0
    at_ms: int = 0

    def shown(self, now_ms: int, half_life_ms: int) -> int:
        """What it shows at ``now_ms``."""
        return advance(self.value, self.rate, self.at_ms, now_ms, half_life_ms)

    def changed(self, rate: int, now_ms: int, half_life_ms: int) -> Meter:
        """The meter brought to ``now_ms`` with its rate changed by ``rate``."""
        return Meter(self.shown(now_ms, half_life_ms), self.rate + rate, max(self.at_ms, now_ms))


@dataclass(frozen=True, slots=True)
class Holder:
    """A workload that holds quota: what, of which flavor, since when, and whether it is on its way out.

    ``lease_token`` is the id of its job credential.
    """

    workload: Workload
    amounts: Amounts
    flavor: str = ""
    admitted_ms: int = 0
    evicting: bool = False
    lease_token: str | None = None


NO_METER = Meter()


@dataclass(frozen=True)
class Snapshot:
    """Quotas, usage by queue and by (queue, user), the pending in queue order, and queues on hold.

    ``holders`` hold quota now; ``used`` and ``budgets`` are meters by queue (fair share; GPU-hours);
    ``shut`` are flavors under maintenance at ``now_ms``, with the reason.
    """

    quotas: Quotas
    usage: Mapping[str, Amounts] = field(default_factory=dict)
    pending: tuple[Workload, ...] = field(default_factory=tuple)
    holds: Mapping[str, str] = field(default_factory=dict)
    user_usage: Mapping[tuple[str, str], Amounts] = field(default_factory=dict)
    holders: tuple[Holder, ...] = ()
    used: Mapping[str, Meter] = field(default_factory=dict)
    budgets: Mapping[str, Meter] = field(default_factory=dict)
    shut: Mapping[str, str] = field(default_factory=dict)
    now_ms: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pending", tuple(sorted(self.pending, key=queue_order)))

    @classmethod
    def of_lines(cls, lines: Mapping[str, tuple[Workload, ...]], **fields: Any) -> Snapshot:
        """A snapshot whose waiting lines are in order already; `pending` is put together when asked for."""
        snapshot = cls(**fields)
        del snapshot.__dict__["pending"]
        snapshot.__dict__["lines"] = lines
        return snapshot

    if not TYPE_CHECKING:  # a type checker would take every name for an attribute

        def __getattr__(self, name: str) -> Any:
            if name != "pending" or "lines" not in self.__dict__:
                raise AttributeError(f"a Snapshot has no {name!r}")
            self.__dict__["pending"] = tuple(chain.from_iterable(self.lines.values()))
            return self.pending

    @cached_property
    def lines(self) -> Mapping[str, tuple[Workload, ...]]:
        """The waiting line of each queue that has one, first to go first."""
        found: dict[str, list[Workload]] = {}
        for workload in self.pending:
            found.setdefault(workload.queue, []).append(workload)
        return {queue: tuple(line) for queue, line in found.items()}

    @cached_property
    def dense(self) -> list[list[int]]:
        """Use of every node of the quotas' tree. Not to be changed: copy it first."""
        return self.quotas.usage_of(self.usage)

    def waiting_in(self, queue: str) -> tuple[Workload, ...]:
        """The waiting line of one queue, first to go first."""
        return self.lines.get(queue, ())

    def ahead_of(self, workload: Workload) -> tuple[Workload, ...]:
        """Who is before ``workload`` in its own queue, whether or not it is in the line yet."""
        mark = queue_order(workload)
        return tuple(
            other
            for other in self.waiting_in(workload.queue)
            if other.id != workload.id and queue_order(other) < mark
        )

    def share(self, queue: str) -> int:
        """What a queue had, for its weight: the key of fair share (`cycle.share_of`)."""
        meter, fair = self.used.get(queue, NO_METER), self.quotas.fair_share
        had = meter.shown(self.now_ms, fair.half_life_ms)
        return (had + meter.rate * fair.half_life_ms) // self.quotas.queues[queue].weight

    def budget_used(self, queue: str) -> int:
        """What a queue has used of its budget, decayed, in thousandths of a GPU times milliseconds."""
        budget = self.quotas.queues[queue].budget
        if budget is None:
            return 0
        meter = self.budgets.get(queue, NO_METER)
        return meter.shown(self.now_ms, budget.half_life_ms)

    def budget_spent(self, queue: str) -> bool:
        """Whether a queue with a budget has used all of it."""
        budget = self.quotas.queues[queue].budget
        return budget is not None and self.budget_used(queue) >= budget.limit

    def with_reserved(self, workload: Workload, flavor: str = "", amounts: Amounts | None = None) -> Snapshot:
        """This state after ``workload`` got its reservation."""
        held = workload.requests if amounts is None else amounts
        used = self.usage.get(workload.queue, Amounts()) + held
        own = (workload.queue, workload.user)
        fair = self.quotas.fair_share
        meter = self.used.get(workload.queue, NO_METER)
        after = replace(
            self,
            usage={**self.usage, workload.queue: used},
            user_usage={**self.user_usage, own: self.user_usage.get(own, Amounts()) + held},
            pending=tuple(other for other in self.pending if other.id != workload.id),
            holders=(*self.holders, Holder(workload, held, flavor, self.now_ms)),
            used={
                **self.used,
                workload.queue: meter.changed(fair.rate(held), self.now_ms, fair.half_life_ms),
            },
        )
        if "dense" in self.__dict__:  # carried on: adding it up anew costs more than all the rest
            use = [list(row) for row in self.dense]
            take_all(self.quotas.tree, use, self.quotas.nodes[workload.queue], self.quotas.vector(held))
            after.__dict__["dense"] = use
        return after

    def with_released(self, workload: Workload) -> Snapshot:
        """This state after ``workload`` gave its reservation back."""
        held = next((h.amounts for h in self.holders if h.workload.id == workload.id), workload.requests)
        used = self.usage.get(workload.queue, Amounts()) - held
        own = (workload.queue, workload.user)
        fair = self.quotas.fair_share
        meter = self.used.get(workload.queue, NO_METER)
        return replace(
            self,
            usage={**self.usage, workload.queue: used},
            user_usage={**self.user_usage, own: self.user_usage.get(own, Amounts()) - held},
            holders=tuple(other for other in self.holders if other.workload.id != workload.id),
            used={
                **self.used,
                workload.queue: meter.changed(-fair.rate(held), self.now_ms, fair.half_life_ms),
            },
        )
