"""Making room: notice with grace to jobs that have to go, by policy, and what comes after.

The core says who would have to go (:mod:`compute_guard.admission.cycle`); ``guard/compute/preemption`` says
whether they may be made to. A job with notice keeps its quota until it has ended, and may write a checkpoint
until its time is up: it finds the notice in the file that the variable TRAINGUARD_NOTICE names, and in its
status message. Then it is stopped through Ray and waits again, or has ended, as its own queue's
``preemption.then`` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from compute_guard.admission.round import Displacement
from compute_guard.ledger.store import Eviction, Ledger
from compute_guard.notice import notice_file, write_notice
from compute_guard.quota.limits import Quotas
from guard_core.clock import rfc3339
from guard_core.errors import Undecidable
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.policy.decision import Decision

POLICY = "guard/compute/preemption/decision"
RECLAIM = "reclaim"
PRIORITY = "priority"
LOWERED = "lowered_quota"
FAIR_SHARE = "fair_share"


def cause_of(displaced: Displacement) -> str:
    """Why: borrowed quota is wanted back or fairly shared, a higher priority, or a lowered quota."""
    if displaced.cause is None:
        return LOWERED
    if displaced.cause.queue == displaced.holder.workload.queue:
        return PRIORITY
    return FAIR_SHARE if displaced.fair else RECLAIM


class Evictions:
    """Notices of one ledger."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        self._home = home
        self._ledger = ledger

    def give_notice(self, quotas: Quotas, displaced: Sequence[Displacement]) -> list[str]:
        """Decide about each, record it and give notice: the ids that have notice now."""
        from compute_guard.admission.gateway import principal_of

        questions = [
            (
                self._question(quotas, one),
                principal_of(one.holder.workload if one.cause is None else one.cause),
                one.holder.workload.id,
            )
            for one in displaced
        ]
        decisions = self._home.decide_many(POLICY, questions, enforcement=Enforcement.COOPERATIVE)
        given = []
        with self._ledger.posting() as posting:
            for one, decision in zip(displaced, decisions, strict=True):
                eviction = self._eviction(quotas, one, decision)
                if decision.allow and posting.evict(one.holder.workload.id, eviction):
                    given.append((one, eviction))
        self._audit(given)
        for one, eviction in given:
            write_notice(
                notice_file(self._home.settings.home, one.holder.workload.id),
                stop_at=rfc3339(eviction.stop_at),
                reason=eviction.reason,
                requeue=eviction.requeue,
            )
        return [one.holder.workload.id for one, _ in given]

    def _question(self, quotas: Quotas, one: Displacement) -> dict[str, Any]:
        victim, rules = one.holder.workload, quotas.queues[one.holder.workload.queue].preemption
        question: dict[str, Any] = {
            "cause": cause_of(one),
            "victim": {
                "submission_id": victim.id,
                "tenant": victim.tenant,
                "queue": victim.queue,
                "tree": quotas.top_of(victim.queue),
                "priority": victim.priority,
                "held": dict(one.holder.amounts),
                "grace_seconds": rules.grace_seconds,
                "then": rules.then,
            },
        }
        if one.cause is not None:
            question["beneficiary"] = {
                "submission_id": one.cause.id,
                "tenant": one.cause.tenant,
                "queue": one.cause.queue,
                "tree": quotas.top_of(one.cause.queue),
                "priority": one.cause.priority,
                "requests": dict(one.cause.requests),
            }
        return question

    def _eviction(self, quotas: Quotas, one: Displacement, decision: Decision) -> Eviction:
        victim = one.holder.workload
        rules, now = quotas.queues[victim.queue].preemption, self._home.clock()
        stop_at = now + timedelta(seconds=rules.grace_seconds)
        after = "it waits again then" if rules.then == "requeue" else "it ends then"
        return Eviction(
            cause=cause_of(one),
            reason=f"{_why(one)}; stopped at {stop_at:%Y-%m-%d %H:%M:%S} UTC, {after} [{cause_of(one)}]",
            beneficiary=None if one.cause is None else one.cause.id,
            requeue=rules.then == "requeue",
            decision_id=decision.decision_id,
            noticed_at=now,
            stop_at=stop_at,
        )

    def _audit(self, given: Iterable[tuple[Displacement, Eviction]]) -> None:
        events = [
            (
                "workload.notice",
                one.holder.workload.id,
                {
                    "tenant": one.holder.workload.tenant,
                    "queue": one.holder.workload.queue,
                    "cause": eviction.cause,
                    "reason": eviction.reason,
                    "beneficiary": eviction.beneficiary,
                    "stop_at": rfc3339(eviction.stop_at),
                    "requeue": eviction.requeue,
                },
                Enforcement.COOPERATIVE,
                eviction.decision_id,
            )
            for one, eviction in given
        ]
        try:
            self._home.audit.events(events)
        except OSError as error:
            raise Undecidable(f"the audit log cannot be written: {error}") from error


def _why(one: Displacement) -> str:
    queue = one.holder.workload.queue
    if one.cause is None:
        return f"the quota of queue {queue} was lowered below what runs"
    if one.cause.queue == queue:
        return f"a job of higher priority in queue {queue} needs the room"
    # The other tenant's job id is its own business: its queue is named.
    if one.fair:
        return f"queue {one.cause.queue} has had less of what both borrow, for its weight, than queue {queue}"
    return f"queue {one.cause.queue} takes back what queue {queue} borrowed"
