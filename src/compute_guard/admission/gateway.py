"""Admission of submissions: identity, facts, snapshot, decision, ledger. No HTTP and no Ray in here.

The order is fixed: the decision is on record before anything happens, the reservation is in the ledger before
Ray hears of the job. Label `cooperative`: code that already runs inside the cluster holds the cluster's own
token and can reach Ray beside this gateway; the reconciler (`detective`) contradicts that afterwards.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from compute_guard.admission.admissions import Admissions
from compute_guard.admission.assessment import Assessment, assess
from compute_guard.admission.garbage import garbage_waits
from compute_guard.admission.outcomes import (
    Admitted,
    Held,
    Refused,
    StateChange,
    principal_of,
    refusal_of,
    waiting_reason,
)
from compute_guard.admission.ray_body import check_packages
from compute_guard.admission.refusals import RefusalLog
from compute_guard.admission.snapshot import queue_order
from compute_guard.admission.workload import Workload, WorkloadState, workload_from_submission
from compute_guard.ledger.store import Entry
from compute_guard.quota.limits import Quotas
from guard_core.clock import to_ns
from guard_core.errors import Denied, Undecidable, UserError
from guard_core.identity import Principal

if TYPE_CHECKING:
    from compute_guard.admission.withdrawn import DataWatch
    from guard_core.home import Home

__all__ = ["Admitted", "Gateway", "Held", "Refused", "principal_of", "waiting_reason"]


class Gateway(Admissions):
    """The one place where a submission becomes a workload. Call from one thread at a time."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._refusals = RefusalLog(home)

    @cached_property
    def data_watch(self) -> DataWatch:
        """Looks whether running jobs may still use the data they declared."""
        from compute_guard.admission.withdrawn import DataWatch  # with it come incidents, and with them numpy

        return DataWatch(self.home, self.ledger)

    def authenticate(self, token: str, *, acting_for: str = "") -> Principal:
        """The principal of a credential. Raises Denied, or Undecidable when storage is down."""
        try:
            principal = self.home.credentials.verify(token)
        except Denied as error:
            self._refusals.note(error.message)
            raise
        return principal.acting_for(acting_for) if acting_for else principal

    def submit(self, principal: Principal, body: Mapping[str, Any]) -> Admitted | Held | Refused:
        """Decide one submission. Never raises for a denial; storage or policy trouble is a refusal (503).

        What it lets in besides (it never takes room, but its round looks at everybody) is in `left_over`.
        """
        outcomes, others = self.submit_many([(principal, body)])
        self.left_over += others
        return outcomes[0]

    def submit_many(
        self, submissions: Sequence[tuple[Principal, Mapping[str, Any]]]
    ) -> tuple[list[Admitted | Held | Refused], list[Admitted]]:
        """Decide submissions that came together, in their order: an outcome each, and who else was admitted.

        They share writes to the audit log and the database, so a thousand at once cost little more than their
        decisions. Never raises for a denial; storage or policy trouble is a refusal (503).
        """
        outcomes: dict[int, Admitted | Held | Refused] = {}
        asked: dict[int, tuple[Workload, Principal]] = {}
        try:
            self.freshen()
            quotas = self.quotas()
            for place, (principal, body) in enumerate(submissions):
                try:
                    asked[place] = (self._described(principal, body, quotas), principal)
                except UserError as error:
                    outcomes[place] = Refused(400, f"TrainGuard cannot accept this job: {error}")
            with garbage_waits(), self.one_record():
                others = self._decide_new(asked, outcomes, quotas)
        except Denied as error:
            others = []
            self._fill(
                outcomes, len(submissions), 429, f"TrainGuard denied this job: {error}", error.decision_id
            )
        except Undecidable as error:
            if len(submissions) > 1:
                # One of them may be what cannot be recorded: it shall not take the others with it.
                return self._one_by_one(submissions)
            others = []
            text = f"TrainGuard could not decide, so the job is refused: {error}"
            self._fill(outcomes, len(submissions), 503, text)
        return [outcomes[place] for place in range(len(submissions))], others

    def _one_by_one(
        self, submissions: Sequence[tuple[Principal, Mapping[str, Any]]]
    ) -> tuple[list[Admitted | Held | Refused], list[Admitted]]:
        outcomes, others = [], []
        for submission in submissions:
            own, more = self.submit_many([submission])
            outcomes += own
            others += more
        return outcomes, others

    @staticmethod
    def _fill(
        outcomes: dict[int, Admitted | Held | Refused],
        count: int,
        status: int,
        text: str,
        decision_id: str = "",
    ) -> None:
        for place in range(count):
            outcomes.setdefault(place, Refused(status, text, decision_id))

    def _described(self, principal: Principal, body: Mapping[str, Any], quotas: Quotas) -> Workload:
        metadata = body.get("metadata") or {}
        wanted = metadata.get("queue", "") if isinstance(metadata, Mapping) else ""
        submission_id = body.get("submission_id") or body.get("job_id") or f"raysubmit_{secrets.token_hex(8)}"
        workload = workload_from_submission(
            body,
            submission_id=str(submission_id),
            tenant=principal.tenant,
            user=principal.user,
            queue=quotas.queue_of(principal.tenant, str(wanted)).name,
            created_ns=to_ns(self.home.clock()),
            submitted_by=principal.to_input(),
        )
        check_packages(body)
        return workload

    def _decide_new(
        self,
        asked: Mapping[int, tuple[Workload, Principal]],
        outcomes: dict[int, Admitted | Held | Refused],
        quotas: Quotas,
    ) -> list[Admitted]:
        denied_before = self._refuse_taken_names(asked, outcomes)
        new = {place: pair for place, pair in asked.items() if place not in outcomes}
        snapshot = self.snapshot(quotas)
        questions = []
        assessments: dict[str, Assessment] = {}
        reasons: dict[int, str] = {}
        lines = {name: list(line) for name, line in snapshot.lines.items()}
        for workload, principal in new.values():
            line = lines.setdefault(workload.queue, [])
            before = line[: bisect_left(line, queue_order(workload), key=queue_order)]
            assessment = assess(snapshot, workload, ahead=before)
            assessment = replace(assessment, pending=len(line), in_line=False)
            assessments[workload.id] = assessment
            insort(line, workload, key=queue_order)
            questions.append((workload, assessment, principal))
        decisions = dict(zip(new, self._ask(questions).decided(), strict=True))
        events: list[StateChange] = []
        with self.ledger.posting() as posting:
            for place, (workload, _) in new.items():
                decision = decisions[place]
                refusal = refusal_of(workload, decision)
                if refusal is not None:
                    outcomes[place] = refusal
                    state = "refused" if decision.undecidable else WorkloadState.DENIED.value
                    events.append(StateChange(workload, state, decision.explain(), decision))
                if not decision.undecidable:
                    if workload.id in denied_before:
                        posting.forget_denied(workload.id)
                    reason = (
                        decision.explain()
                        if refusal is not None
                        else waiting_reason(assessments[workload.id], decision)
                    )
                    reasons[place] = reason
                    posting.add(
                        workload,
                        state=WorkloadState.PENDING if refusal is None else WorkloadState.DENIED,
                        reason=reason,
                        decision_id=decision.decision_id,
                    )
        fresh = {new[place][0].id: decision for place, decision in decisions.items() if decision.allow}
        admitted = {one.id: one for one in self._admit(fresh)}
        held = [(place, workload) for place, (workload, _) in new.items() if place not in outcomes]
        silent = any(not reasons[place] for place, w in held if w.id not in admitted)
        after = self.snapshot(quotas) if silent else snapshot
        for place, workload in held:
            if workload.id in admitted:
                outcomes[place] = admitted.pop(workload.id)
                continue
            reason = reasons[place] or waiting_reason(assess(after, workload), decisions[place])
            events.append(StateChange(workload, WorkloadState.PENDING.value, reason, decisions[place]))
            outcomes[place] = Held(workload.id, reason)
        self._audit(events)
        return list(admitted.values())

    def _refuse_taken_names(
        self,
        asked: Mapping[int, tuple[Workload, Principal]],
        outcomes: dict[int, Admitted | Held | Refused],
    ) -> set[str]:
        """A refused job that was mended may keep its name (those are returned); any other is used once."""
        known = self.ledger.states([workload.id for workload, _ in asked.values()])
        seen: set[str] = set()
        for place, (workload, principal) in asked.items():
            state, tenant = known.get(workload.id, (WorkloadState.DENIED, principal.tenant))
            if workload.id in seen or state is not WorkloadState.DENIED or tenant != principal.tenant:
                outcomes[place] = Refused(
                    400,
                    f"TrainGuard cannot accept this job: Job with submission_id {workload.id} "
                    "already exists. Please use a different submission_id.",
                )
            seen.add(workload.id)
        return {name for name, (state, _) in known.items() if state is WorkloadState.DENIED}

    def explain(self, entries: Sequence[Entry]) -> dict[str, str]:
        """What each waiting job waits for now, by id: the same text as ``compute why``."""
        waiting = [entry for entry in entries if entry.state is WorkloadState.PENDING]
        if not waiting:
            return {}
        quotas = self.quotas()
        snapshot = self.snapshot(quotas)
        found = {}
        for entry in waiting:
            if entry.workload.queue in quotas.queues:
                found[entry.id] = waiting_reason(assess(snapshot, entry.workload), None) or entry.reason
        return found
