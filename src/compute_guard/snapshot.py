"""The state one admission decision is made on: quotas, reservations and the waiting line, all immutable.

A decision never looks at live state (Kueue's snapshot); the ledger checks the arithmetic once more in the
transaction that reserves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from compute_guard.quota import Amounts, Quotas
from compute_guard.workload import Workload


def queue_order(workload: Workload) -> tuple[int, int, str]:
    """Sort key of a waiting line: higher priority first, then the older, then the id so that it is total."""
    return (-workload.priority, workload.created_ns, workload.id)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Quotas, usage by queue and by (queue, user), the pending in queue order, and queues on hold."""

    quotas: Quotas
    usage: Mapping[str, Amounts] = field(default_factory=dict)
    pending: tuple[Workload, ...] = ()
    holds: Mapping[str, str] = field(default_factory=dict)
    user_usage: Mapping[tuple[str, str], Amounts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pending", tuple(sorted(self.pending, key=queue_order)))

    def waiting_in(self, queue: str) -> tuple[Workload, ...]:
        """The waiting line of one queue, first to go first."""
        return tuple(workload for workload in self.pending if workload.queue == queue)

    def ahead_of(self, workload: Workload) -> tuple[Workload, ...]:
        """Who is before ``workload`` in its own queue, whether or not it is in the line yet."""
        mark = queue_order(workload)
        return tuple(
            other
            for other in self.waiting_in(workload.queue)
            if other.id != workload.id and queue_order(other) < mark
        )

    def with_reserved(self, workload: Workload) -> Snapshot:
        """This state after ``workload`` got its reservation."""
        used = self.usage.get(workload.queue, Amounts()) + workload.requests
        own = (workload.queue, workload.user)
        return replace(
            self,
            usage={**self.usage, workload.queue: used},
            user_usage={
                **self.user_usage,
                own: self.user_usage.get(own, Amounts()) + workload.requests,
            },
            pending=tuple(other for other in self.pending if other.id != workload.id),
        )

    def with_released(self, workload: Workload) -> Snapshot:
        """This state after ``workload`` gave its reservation back."""
        used = self.usage.get(workload.queue, Amounts()) - workload.requests
        own = (workload.queue, workload.user)
        return replace(
            self,
            usage={**self.usage, workload.queue: used},
            user_usage={
                **self.user_usage,
                own: self.user_usage.get(own, Amounts()) - workload.requests,
            },
        )
