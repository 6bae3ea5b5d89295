"""Which workload may go next, and the numbers that say why not. Pure: a snapshot in, an assessment out.

Lines are strict first-in-first-out within a queue and priority, so a large job is not starved by small ones
that slip past it; queues do not wait for each other. The order between the heads of the lines, fair share and
reclaim are those of :mod:`compute_guard.admission.cycle`. A workload that waits for its own user's cap keeps
nobody else waiting, and one that waits for a spent budget nobody who asks for no GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from compute_guard.admission.snapshot import Snapshot
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import GPU, HOUR_MS, MEMORY, NOTHING, Way, base_of, total
from compute_guard.quota.tree import place_among, room

QUEUE_ON_HOLD = "queue-on-hold"
QUEUE_ORDER = "queue-order"
NO_ROOM = "quota-busy"
USER_CAP = "user-busy"
BUDGET_SPENT = "budget-spent"
MAINTENANCE = "pool-maintenance"
KEPT = "kept-for-owner"


class ResourceAssessment(NamedTuple):
    """One resource of one workload against its queue's quota, all in that resource's integer unit."""

    nominal: int
    used: int
    borrowing_limit: int | None
    available: int
    requested: int
    potential: int
    user_limit: int | None = None
    user_used: int = 0
    """What the user holds, where there is a limit."""

    @property
    def fits(self) -> bool:
        """True when the queue has room for the request now. A request of nothing always fits."""
        return self.requested == 0 or self.requested <= self.available

    @property
    def ever_fits(self) -> bool:
        """True when the request could be reserved with the cohort idle."""
        return self.requested <= self.potential

    @property
    def user_fits(self) -> bool:
        """True when the request stays within what one user may hold in the queue."""
        within = self.user_limit is None or self.user_used + self.requested <= self.user_limit
        return self.requested == 0 or within

    @property
    def user_ever_fits(self) -> bool:
        """True when the request alone stays within what one user may hold in the queue."""
        return self.user_limit is None or self.requested <= self.user_limit

    @property
    def borrows(self) -> bool:
        """True when reserving the request would take the queue past its nominal quota."""
        return self.requested > 0 and self.used + self.requested > self.nominal

    def to_input(self) -> dict[str, Any]:
        """The documented policy input, plus ``potential``, and the user's part where the queue caps users."""
        user = {
            "user_limit": self.user_limit,
            "user_used": self.user_used,
            "user_fits": self.user_fits,
            "user_ever_fits": self.user_ever_fits,
        }
        return {
            "nominal": self.nominal,
            "used": self.used,
            "borrowing_limit": self.borrowing_limit,
            "available": self.available,
            "requested": self.requested,
            "fits": self.fits,
            "ever_fits": self.ever_fits,
            "potential": self.potential,
            **({} if self.user_limit is None else user),
        }


@dataclass(frozen=True, slots=True)
class BudgetAssessment:
    """A queue's GPU-hours: what it may have used, and what it has, decayed. Thousandths of a GPU-hour."""

    limit: int
    used: int
    half_life_hours: int

    @property
    def fits(self) -> bool:
        """True while some of the budget is left."""
        return self.used < self.limit

    def to_input(self) -> dict[str, Any]:
        """``input.quota.budget``."""
        return {
            "limit_milli_gpu_hours": self.limit,
            "used_milli_gpu_hours": self.used,
            "half_life_hours": self.half_life_hours,
            "fits": self.fits,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """How one workload stands: its numbers, who is ahead of it, and whether its queue is on hold.

    ``resources`` are named without their flavor; ``way`` is the flavor judged, and what it takes.
    """

    workload: Workload
    cohort: str | None
    resources: dict[str, ResourceAssessment]
    ahead: tuple[str, ...]
    hold: str | None
    way: Way
    budget: BudgetAssessment | None = None
    maintenance: str | None = None
    pending: int = 0
    max_pending: int | None = None
    kept_for: tuple[str, ...] = ()
    """Queues whose jobs wait for what is theirs: room that is free is kept for them."""
    in_line: bool = True
    """Whether the workload waits already, so that it needs no new place in the line."""

    @property
    def fits(self) -> bool:
        """True when every resource fits now, in the queue and within the user's cap."""
        return all(resource.fits for resource in self.resources.values()) and self.user_fits

    @property
    def user_fits(self) -> bool:
        """True when no cap of the user is in the way now."""
        return all(resource.user_fits for resource in self.resources.values())

    @property
    def ever_fits(self) -> bool:
        """True when every resource could fit some day, in the queue and within the user's cap."""
        return all(r.ever_fits and r.user_ever_fits for r in self.resources.values())

    @property
    def borrows(self) -> bool:
        """True when admission would take quota from the cohort."""
        return any(resource.borrows for resource in self.resources.values())

    def to_input(self) -> dict[str, Any]:
        """``input.quota`` of guard/compute/admission."""
        return {
            "queue": self.workload.queue,
            "cohort": self.cohort,
            "resources": {name: resource.to_input() for name, resource in self.resources.items()},
            "ahead": len(self.ahead),
            "hold": self.hold,
            **({"flavor": self.way.flavor} if self.way.flavor else {}),
            **({"budget": self.budget.to_input()} if self.budget is not None else {}),
            **({"maintenance": self.maintenance} if self.maintenance is not None else {}),
            **(
                {"pending": self.pending, "max_pending": self.max_pending, "in_line": self.in_line}
                if self.max_pending is not None
                else {}
            ),
        }

    @property
    def numbers(self) -> tuple[object, ...]:
        """All that :meth:`to_input` says, to be compared."""
        pending = (self.pending, self.max_pending, self.in_line) if self.max_pending is not None else None
        place = (len(self.ahead), self.hold, self.way.flavor, self.budget, self.maintenance, pending)
        return (*self.resources.items(), *place)

    def waits_for(self) -> tuple[tuple[str, str], ...]:
        """(rule, sentence) for each thing in the way; empty when the workload may be reserved now."""
        found: list[tuple[str, str]] = []
        queue = self.workload.queue
        if self.hold is not None:
            found.append((QUEUE_ON_HOLD, f"queue {queue} is on hold: {self.hold}"))
        if self.maintenance is not None:
            found.append((MAINTENANCE, f"flavor {self.way.flavor}: {self.maintenance}"))
        if self.budget is not None and not self.budget.fits:
            found.append(
                (
                    BUDGET_SPENT,
                    f"queue {queue} has used {amount(GPU, self.budget.used)} of "
                    f"{amount(GPU, self.budget.limit)} "
                    f"GPU-hours; half of it is forgotten in {self.budget.half_life_hours} h",
                )
            )
        found += [
            (
                NO_ROOM,
                f"{spoken(self.named(name))}: asks {amount(name, r.requested)}, queue {queue} has "
                f"{amount(name, max(0, r.available))} free "
                f"({amount(name, r.used)} of {amount(name, r.nominal)} in use)",
            )
            for name, r in self.resources.items()
            if not r.fits
        ]
        found += [
            (
                USER_CAP,
                f"{spoken(name)}: asks {amount(name, r.requested)}, user {self.workload.user} may hold "
                f"{amount(name, r.user_limit or 0)} in queue {queue} and holds {amount(name, r.user_used)}",
            )
            for name, r in self.resources.items()
            if not r.user_fits
        ]
        if self.kept_for and not found:
            names = ", ".join(self.kept_for)
            found.append((KEPT, f"what is free is kept for jobs within their own quota, in queue {names}"))
        if self.ahead:
            names = ", ".join(self.ahead[:3]) + (" ..." if len(self.ahead) > 3 else "")
            found.append((QUEUE_ORDER, f"{len(self.ahead)} ahead in queue {queue}: {names}"))
        return tuple(found)

    def named(self, resource: str) -> str:
        """The resource with its flavor, where it has one."""
        flavored = f"{resource}@{self.way.flavor}"
        return flavored if flavored in self.way.amounts else resource


def assess(
    snapshot: Snapshot,
    workload: Workload,
    *,
    ahead: Sequence[Workload] | None = None,
    dense: list[list[int]] | None = None,
    way: Way | None = None,
) -> Assessment:
    """Compare ``workload``, in the line or not, with its queue's quota in ``snapshot``.

    ``ahead`` saves looking for who is before it, where the caller walks the line anyway; ``dense`` is use
    that differs from the snapshot's (within a round), ``way`` the flavor, where it is known.
    """
    quotas, queue = snapshot.quotas, snapshot.quotas.queues[workload.queue]
    use = snapshot.dense if dense is None else dense
    node = quotas.nodes[workload.queue]
    if way is None:
        way = _way(snapshot, workload, use)
    mine = snapshot.user_usage.get((workload.queue, workload.user), NOTHING)
    resources = {
        asked.resource: ResourceAssessment(
            nominal=asked.quota.nominal,
            used=0 if asked.place is None else use[node][asked.place],
            borrowing_limit=asked.quota.borrowing_limit,
            available=0 if asked.place is None else room(quotas.tree, use, node, asked.place),
            requested=asked.requested,
            potential=asked.potential,
            user_limit=asked.user_limit,
            user_used=0 if asked.user_limit is None else total(mine, asked.resource),
        )
        for asked in quotas.asked(workload.queue, way.amounts)
    }
    before = snapshot.ahead_of(workload) if ahead is None else ahead
    aside = kept_by_user_cap if kept_by_budget(snapshot, workload) else steps_aside
    kept_for = _owners_waiting(snapshot, workload) if ahead is None else ()
    return Assessment(
        workload=workload,
        cohort=queue.cohort,
        resources=resources,
        ahead=tuple(
            [other.id for other in before if not aside(snapshot, other)]
            if queue.per_user or queue.budget
            else [other.id for other in before]
        ),
        hold=snapshot.holds.get(workload.queue),
        way=way,
        budget=_budget(snapshot, workload),
        maintenance=snapshot.shut.get(way.flavor) if way.flavor else None,
        pending=len(snapshot.waiting_in(workload.queue)),
        max_pending=queue.max_pending,
        kept_for=kept_for,
    )


def _owners_waiting(snapshot: Snapshot, workload: Workload) -> tuple[str, ...]:
    """Other queues of the tree whose first job is within its nominal quota and does not fit now."""
    found = []
    for other in snapshot.quotas.members(snapshot.quotas.queues[workload.queue]):
        line = snapshot.waiting_in(other.name) if other.name != workload.queue else ()
        first = next((one for one in line if not steps_aside(snapshot, one)), None)
        if first is not None and other.name not in snapshot.holds:
            head = assess(snapshot, first, ahead=())
            if not head.fits and not head.borrows:
                found.append(other.name)
    return tuple(found)


def open_ways(snapshot: Snapshot, workload: Workload) -> tuple[Way, ...]:
    """The ways to place ``workload`` that are not under maintenance; all of them when every one is."""
    ways = snapshot.quotas.ways(workload.queue, workload.requests, workload.flavors)
    if not snapshot.shut:
        return ways
    return tuple(way for way in ways if way.flavor not in snapshot.shut) or ways


def never_fits(snapshot: Snapshot, workload: Workload) -> bool:
    """Whether some resource could not be reserved even with the cohort idle and nothing else of the user."""
    way = _way(snapshot, workload, snapshot.dense)
    return any(
        asked.requested > asked.potential
        or (asked.user_limit is not None and asked.requested > asked.user_limit)
        for asked in snapshot.quotas.asked(workload.queue, way.amounts)
    )


def _way(snapshot: Snapshot, workload: Workload, use: list[list[int]]) -> Way:
    """The way the cycle would choose (:func:`compute_guard.admission.cycle.placed`)."""
    ways = open_ways(snapshot, workload)
    if len(ways) == 1:
        return ways[0]
    tree, node = snapshot.quotas.tree, snapshot.quotas.nodes[workload.queue]
    chosen, _, _ = place_among(tree, use, node, [way.vector for way in ways], 0, len(ways))
    return ways[chosen]


def _budget(snapshot: Snapshot, workload: Workload) -> BudgetAssessment | None:
    budget = snapshot.quotas.queues[workload.queue].budget
    if budget is None or not workload.requests[GPU]:
        return None
    used = snapshot.budget_used(workload.queue) // HOUR_MS
    return BudgetAssessment(budget.limit // HOUR_MS, used, budget.half_life_hours)


def kept_by_user_cap(snapshot: Snapshot, workload: Workload) -> bool:
    """Whether ``workload`` waits for its own user's other jobs, so that others may pass it."""
    queue = snapshot.quotas.queues.get(workload.queue)
    if queue is None or not queue.per_user:
        return False
    mine = snapshot.user_usage.get((workload.queue, workload.user), NOTHING)
    return queue.keeps_user(workload.requests, mine)


def kept_by_budget(snapshot: Snapshot, workload: Workload) -> bool:
    """Whether ``workload`` asks for GPUs and its queue's budget is spent; those without may pass it."""
    queue = snapshot.quotas.queues.get(workload.queue)
    if queue is None or queue.budget is None or not workload.requests[GPU]:
        return False
    return snapshot.budget_spent(workload.queue)


def steps_aside(snapshot: Snapshot, workload: Workload) -> bool:
    """Whether ``workload`` waits for something of its own and keeps no other waiting meanwhile."""
    return kept_by_user_cap(snapshot, workload) or kept_by_budget(snapshot, workload)


def spoken(resource: str) -> str:
    """The name that goes with :func:`amount`: ``gpu@a100`` for ``gpu_milli@a100``."""
    base, at, flavor = resource.partition("@")
    return base.removesuffix("_milli") + at + flavor


def amounts_text(amounts: Mapping[str, int]) -> str:
    """``cpu 1.5, jobs 1``."""
    return ", ".join(f"{spoken(name)} {amount(name, value)}" for name, value in amounts.items())


def amount(resource: str, value: int) -> str:
    """``value`` for a person: ``1.5`` CPUs rather than 1500, ``2 GiB`` rather than bytes."""
    if base_of(resource).endswith("_milli") or resource.startswith("custom_"):
        whole, rest = divmod(value, 1000)
        return f"{whole}.{rest:03d}".rstrip("0").rstrip(".") if rest else str(whole)
    if base_of(resource) == MEMORY:
        for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if value >= 1 << shift:
                text = f"{value / (1 << shift):.1f}".rstrip("0").rstrip(".")
                return f"{text} {unit}"
        return f"{value} B"
    return str(value)
