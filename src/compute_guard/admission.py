"""Which workload may go next, and the numbers that say why not. Pure: a snapshot in, an assessment out.

Lines are strict first-in-first-out within a queue and priority, so a large job is not starved by small ones
that slip past it; queues do not wait for each other. Between the heads of the lines, those within their own
nominal quota go before those that would borrow (Kueue's order), so borrowing never delays an owner. A
workload that waits only for its own user's cap keeps nobody else waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compute_guard.quota import CPU, GPU, JOBS, MEMORY, Amounts
from compute_guard.snapshot import Snapshot, queue_order
from compute_guard.workload import Workload

QUEUE_ON_HOLD = "queue-on-hold"
QUEUE_ORDER = "queue-order"
NO_ROOM = "quota-busy"
USER_CAP = "user-busy"
_NOTHING = Amounts()


@dataclass(frozen=True, slots=True)
class ResourceAssessment:
    """One resource of one workload against its queue's quota, all in that resource's integer unit."""

    nominal: int
    used: int
    borrowing_limit: int | None
    available: int
    requested: int
    potential: int
    user_limit: int | None = None
    user_used: int = 0

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
class Assessment:
    """How one workload stands: its numbers, who is ahead of it, and whether its queue is on hold."""

    workload: Workload
    cohort: str | None
    resources: dict[str, ResourceAssessment]
    ahead: tuple[str, ...]
    hold: str | None

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
        }

    def waits_for(self) -> tuple[tuple[str, str], ...]:
        """(rule, sentence) for each thing in the way; empty when the workload may be reserved now."""
        found: list[tuple[str, str]] = []
        queue = self.workload.queue
        if self.hold is not None:
            found.append((QUEUE_ON_HOLD, f"queue {queue} is on hold: {self.hold}"))
        found += [
            (
                NO_ROOM,
                f"{name}: asks {amount(name, r.requested)}, queue {queue} has "
                f"{amount(name, max(0, r.available))} free "
                f"({amount(name, r.used)} of {amount(name, r.nominal)} in use)",
            )
            for name, r in self.resources.items()
            if not r.fits
        ]
        found += [
            (
                USER_CAP,
                f"{name}: asks {amount(name, r.requested)}, user {self.workload.user} may hold "
                f"{amount(name, r.user_limit or 0)} in queue {queue} and holds {amount(name, r.user_used)}",
            )
            for name, r in self.resources.items()
            if not r.user_fits
        ]
        if self.ahead:
            names = ", ".join(self.ahead[:3]) + (" ..." if len(self.ahead) > 3 else "")
            found.append((QUEUE_ORDER, f"{len(self.ahead)} ahead in queue {queue}: {names}"))
        return tuple(found)

    def would_fit_now(self) -> str:
        """The largest request of this shape that could be reserved now, for ``compute why``."""
        return ", ".join(f"{name} {amount(name, max(0, r.available))}" for name, r in self.resources.items())


def assess(snapshot: Snapshot, workload: Workload, *, ahead: Sequence[Workload] | None = None) -> Assessment:
    """Compare ``workload``, in the line or not, with its queue's quota in ``snapshot``.

    ``ahead`` saves looking for who is before it, where the caller walks the line anyway.
    """
    queue = snapshot.quotas.queues[workload.queue]
    used = snapshot.usage.get(workload.queue)
    mine = snapshot.user_usage.get((workload.queue, workload.user))
    resources = {}
    for name in [*dict.fromkeys((JOBS, CPU, GPU, MEMORY, *sorted(workload.requests)))]:
        quota = queue.quota(name)
        resources[name] = ResourceAssessment(
            nominal=quota.nominal,
            used=used[name] if used is not None else 0,
            borrowing_limit=quota.borrowing_limit,
            available=snapshot.quotas.available(workload.queue, name, snapshot.usage),
            requested=workload.requests[name],
            potential=snapshot.quotas.potential(workload.queue, name),
            user_limit=queue.per_user.get(name),
            user_used=mine[name] if mine is not None else 0,
        )
    before = snapshot.ahead_of(workload) if ahead is None else ahead
    return Assessment(
        workload=workload,
        cohort=queue.cohort,
        resources=resources,
        ahead=tuple(other.id for other in before if not kept_by_user_cap(snapshot, other)),
        hold=snapshot.holds.get(workload.queue),
    )


def kept_by_user_cap(snapshot: Snapshot, workload: Workload) -> bool:
    """Whether ``workload`` waits for its own user's other jobs, so that others may pass it."""
    queue = snapshot.quotas.queues.get(workload.queue)
    if queue is None or not queue.per_user:
        return False
    mine = snapshot.user_usage.get((workload.queue, workload.user), _NOTHING)
    asked = {name: workload.requests[name] for name in queue.per_user}
    possible = all(asked[name] <= cap for name, cap in queue.per_user.items())
    now = all(not asked[name] or mine[name] + asked[name] <= cap for name, cap in queue.per_user.items())
    return possible and not now


def heads_of_line(snapshot: Snapshot) -> tuple[Workload, ...]:
    """The first workload of each queue, in the order they may try: not borrowing, then priority, then age."""
    heads: dict[str, Workload] = {}
    for workload in snapshot.pending:
        if workload.queue in snapshot.quotas.queues and not kept_by_user_cap(snapshot, workload):
            heads.setdefault(workload.queue, workload)
    return tuple(
        sorted(
            heads.values(),
            key=lambda head: (assess(snapshot, head).borrows, *queue_order(head)),
        )
    )


def next_admissible(snapshot: Snapshot, *, passed: frozenset[str] = frozenset()) -> Workload | None:
    """The next workload that fits, or None. ``passed`` are ids just refused, whose lines wait this round."""
    for head in heads_of_line(snapshot):
        if head.id in passed:
            continue
        assessment = assess(snapshot, head)
        if assessment.hold is None and assessment.fits:
            return head
    return None


def amount(resource: str, value: int) -> str:
    """``value`` for a person: ``1.5`` CPUs rather than 1500, ``2 GiB`` rather than bytes."""
    if resource.endswith("_milli") or resource.startswith("custom_"):
        whole, rest = divmod(value, 1000)
        return f"{whole}.{rest:03d}".rstrip("0").rstrip(".") if rest else str(whole)
    if resource == MEMORY:
        for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if value >= 1 << shift:
                text = f"{value / (1 << shift):.1f}".rstrip("0").rstrip(".")
                return f"{text} {unit}"
        return f"{value} B"
    return str(value)
