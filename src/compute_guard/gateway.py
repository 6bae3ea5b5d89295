"""Admission of submissions: identity, facts, snapshot, decision, ledger. No HTTP and no Ray in here.

The order is fixed: the decision is on record before anything happens, the reservation is in the ledger before
Ray hears of the job. Label `cooperative`: code that already runs inside the cluster holds the cluster's own
token and can reach Ray beside this gateway; the reconciler (`detective`) contradicts that afterwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compute_guard.admission import QUEUE_ORDER, Assessment, assess, heads_of_line
from compute_guard.ledger import Entry, Ledger, Reservation
from compute_guard.quota import Quotas
from compute_guard.ray_body import body_for_ray, check_packages
from compute_guard.refusals import RefusalLog
from compute_guard.snapshot import Snapshot
from compute_guard.workload import Workload, WorkloadState, workload_from_submission
from guard_core.clock import to_ns
from guard_core.errors import Denied, Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.policy.decision import Decision

POLICY = "guard/compute/admission/decision"
JOB_TOKEN_SECONDS = 7 * 86_400
ASK_AGAIN_NS = 30 * 1_000_000_000
"""A waiting job with unchanged numbers is put to policy again after this long, as verdicts change."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """May run; ``body`` is what Ray is to be given."""

    id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """Recorded as pending."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Not accepted. ``status`` is the HTTP status, ``text`` what the client's exception says."""

    status: int
    text: str
    decision_id: str = ""


class Gateway:
    """The one place where a submission becomes a workload. Call from one thread at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.ledger = Ledger(home.storage, home.clock)
        self._policy_files = _state_of(_policy_folder(home))
        self._asked: dict[str, tuple[object, int]] = {}
        self._shown: Snapshot | None = None
        self._refusals = RefusalLog(home)

    def authenticate(self, token: str, *, acting_for: str = "") -> Principal:
        """The principal of a credential. Raises Denied, or Undecidable when storage is down."""
        try:
            principal = self.home.credentials.verify(token)
        except Denied as error:
            self._refusals.note(error.message)
            raise
        return principal.acting_for(acting_for) if acting_for else principal

    def quotas(self) -> Quotas:
        """The quotas in policy data. Raises Undecidable when the policy data cannot be used."""
        try:
            return Quotas.from_config(self.home.policy_data().get("quotas", {}))
        except UserError as error:
            raise Undecidable(f"the policy data cannot be used: {error}") from error

    def freshen(self) -> None:
        """Take up policies and data that were edited since; a running guard follows its files."""
        now = _state_of(_policy_folder(self.home))
        if now != self._policy_files:
            # The ledger keeps its connection; only what was read from the policy folder is read anew.
            self.home = type(self.home).open(self.home.settings, clock=self.home.clock)
            self._policy_files = now

    def submit(self, principal: Principal, body: Mapping[str, Any]) -> Admitted | Held | Refused:
        """Decide one submission. Never raises for a denial; storage or policy trouble is a refusal (503)."""
        try:
            return self._submit(principal, body)
        except UserError as error:
            return Refused(400, f"TrainGuard cannot accept this job: {error}")
        except Denied as error:
            return Refused(429, f"TrainGuard denied this job: {error}", error.decision_id)
        except Undecidable as error:
            return Refused(503, f"TrainGuard could not decide, so the job is refused: {error}")

    def _submit(self, principal: Principal, body: Mapping[str, Any]) -> Admitted | Held | Refused:
        self.freshen()
        quotas = self.quotas()
        metadata = body.get("metadata") or {}
        wanted = metadata.get("queue", "") if isinstance(metadata, Mapping) else ""
        submission_id = body.get("submission_id") or body.get("job_id") or f"raysubmit_{secrets.token_hex(8)}"
        moment = self.home.clock()
        workload = workload_from_submission(
            body,
            submission_id=str(submission_id),
            tenant=principal.tenant,
            user=principal.user,
            queue=quotas.queue_of(principal.tenant, str(wanted)).name,
            created_ns=to_ns(moment),
            submitted_by=principal.to_input(),
        )
        check_packages(body)
        known = self.ledger.get(workload.id)
        if known is not None:
            if known.state is not WorkloadState.DENIED or known.workload.tenant != principal.tenant:
                raise UserError(
                    f"Job with submission_id {workload.id} already exists. "
                    "Please use a different submission_id."
                )
            self.ledger.forget(workload.id)  # a refused job that was mended may keep its name
        assessment = assess(self.ledger.snapshot(quotas), workload)
        decision = self._decide(workload, assessment, principal)
        if decision.undecidable:
            self._audit(workload, "refused", decision.explain(), decision)
            return Refused(
                503,
                f"TrainGuard could not decide, so the job is refused: {decision.explain()} "
                f"(decision {decision.decision_id})",
                decision.decision_id,
            )
        if _is_denied(decision):
            text = decision.explain()
            self.ledger.add(
                workload, state=WorkloadState.DENIED, reason=text, decision_id=decision.decision_id
            )
            self._audit(workload, WorkloadState.DENIED.value, text, decision)
            return Refused(
                429,
                f"TrainGuard denied job {workload.id} of tenant {workload.tenant}: {text} "
                f"(decision {decision.decision_id})",
                decision.decision_id,
            )
        reason = waiting_reason(assessment, decision)
        self.ledger.add(workload, reason=reason, decision_id=decision.decision_id)
        if not reason:
            admitted = self._reserve(workload, quotas, decision)
            if admitted is not None:
                return admitted
            reason = waiting_reason(assess(self.ledger.snapshot(quotas), workload), None)
            self.ledger.note(workload.id, reason=reason)
        self._audit(workload, WorkloadState.PENDING.value, reason, decision)
        return Held(workload.id, reason)

    def release(self) -> list[Admitted]:
        """One admission round: the heads of the lines that fit are decided again and reserved."""
        self.freshen()
        quotas = self.quotas()
        admitted: list[Admitted] = []
        passed: set[str] = set()
        while True:
            snapshot = self.ledger.snapshot(quotas)
            heads = [head for head in heads_of_line(snapshot) if head.id not in passed]
            if not heads:
                break
            head = heads[0]
            assessment = assess(snapshot, head)
            # A head that can never fit is decided too: policy denies it, or it would block its line for ever.
            may_go = assessment.hold is None and (assessment.fits or not assessment.ever_fits)
            if may_go and self._worth_asking(head, assessment):
                done = self._decide_head(head, assessment, quotas)
                if done is not None:
                    admitted += [done] if isinstance(done, Admitted) else []
                    continue
            passed.add(head.id)
        self._refresh_reasons(quotas)
        return admitted

    def _decide_head(self, head: Workload, assessment: Assessment, quotas: Quotas) -> Admitted | bool | None:
        """Admitted, True when it left the line otherwise, None when it goes on waiting."""
        decision = self._decide(head, assessment, principal_of(head))
        if decision.undecidable:
            self.ledger.note(head.id, reason=f"waiting, no decision could be had: {decision.explain()}")
            return None
        if _is_denied(decision):
            self.finish(head.id, WorkloadState.DENIED, decision.explain(), decision)
            return True
        reason = waiting_reason(assessment, decision)
        if reason:
            self.ledger.note(head.id, reason=reason, decision_id=decision.decision_id)
            return None
        return self._reserve(head, quotas, decision)

    def _worth_asking(self, head: Workload, assessment: Assessment) -> bool:
        """Whether to put this head to policy: its numbers are new, or the last answer is old."""
        now = to_ns(self.home.clock())
        numbers = (str(assessment.to_input()), self.home.policy.revision)
        last = self._asked.get(head.id)
        if last is not None and last[0] == numbers and now - last[1] < ASK_AGAIN_NS:
            return False
        self._asked[head.id] = (numbers, now)
        return True

    def _refresh_reasons(self, quotas: Quotas) -> None:
        """Keep what pending jobs say about themselves true; looked at only when something moved."""
        snapshot = self.ledger.snapshot(quotas)
        if snapshot == self._shown:
            return
        for queue in quotas.queues:
            line = snapshot.waiting_in(queue)
            for place, workload in enumerate(line):
                reason = waiting_reason(assess(snapshot, workload, ahead=line[:place]), None)
                if reason:
                    self.ledger.note(workload.id, reason=reason)
        self._shown = snapshot
        waiting = {workload.id for workload in snapshot.pending}
        self._asked = {key: value for key, value in self._asked.items() if key in waiting}

    def _reserve(self, workload: Workload, quotas: Quotas, decision: Decision) -> Admitted | None:
        token = self.home.credentials.issue(
            tenant=workload.tenant,
            user=workload.user,
            kind="job",
            workload=workload.id,
            datasets=workload.declared,
            ttl_seconds=JOB_TOKEN_SECONDS,
        )
        credential_id = token.split("_")[1]
        done = self.ledger.reserve(
            workload.id, quotas, decision_id=decision.decision_id, lease_token=credential_id
        )
        if done is not Reservation.RESERVED:
            self.home.credentials.revoke(credential_id)
            return None
        self._audit(workload, WorkloadState.ADMITTED.value, "", decision)
        return Admitted(workload.id, body_for_ray(workload, token, self.home.settings.home))

    def resubmission(self, entry: Entry) -> Admitted:
        """The body of an admitted job that Ray never got (a crash came between), with a new credential."""
        token = self.home.credentials.issue(
            tenant=entry.workload.tenant,
            user=entry.workload.user,
            kind="job",
            workload=entry.id,
            datasets=entry.workload.declared,
            ttl_seconds=JOB_TOKEN_SECONDS,
        )
        if entry.lease_token:
            self.home.credentials.revoke(entry.lease_token)
        self.ledger.note(entry.id, lease_token=token.split("_")[1])
        return Admitted(entry.id, body_for_ray(entry.workload, token, self.home.settings.home))

    def finish(
        self, workload_id: str, to: WorkloadState, reason: str, decision: Decision | None = None
    ) -> bool:
        """End a workload: state, reservation, credential, audit event. False when it had ended already."""
        entry = self.ledger.get(workload_id)
        if entry is None or not self.ledger.move(workload_id, to, reason=reason):
            return False
        if entry.lease_token:
            self.home.credentials.revoke(entry.lease_token)
        self._audit(entry.workload, to.value, reason, decision)
        return True

    def run(self, workload_id: str, ray_job_id: str | None) -> bool:
        """Record that Ray runs an admitted workload."""
        entry = self.ledger.get(workload_id)
        if entry is None:
            return False
        moved = self.ledger.move(workload_id, WorkloadState.RUNNING, ray_job_id=ray_job_id)
        if moved:
            self._audit(entry.workload, WorkloadState.RUNNING.value, "", None)
        return moved

    def _decide(self, workload: Workload, assessment: Assessment, principal: Principal) -> Decision:
        facts = self.home.dataset_facts(workload.declared, principal=principal) if workload.declared else []
        return self.home.decide(
            POLICY,
            {"workload": workload.to_input(facts), "quota": assessment.to_input()},
            principal=principal,
            enforcement=Enforcement.COOPERATIVE,
            subject=workload.id,
        )

    def _audit(self, workload: Workload, state: str, reason: str, decision: Decision | None) -> None:
        try:
            self.home.audit.event(
                "workload.state",
                subject=workload.id,
                data={
                    "state": state,
                    "tenant": workload.tenant,
                    "queue": workload.queue,
                    "requests": dict(workload.requests),
                    "reason": reason,
                },
                enforcement=Enforcement.COOPERATIVE,
                decision_id=decision.decision_id if decision is not None else "",
            )
        except OSError as error:
            raise Undecidable(f"the audit log cannot be written: {error}") from error


def principal_of(workload: Workload) -> Principal:
    """The submitter as it was when it submitted, for a decision made later."""
    saved = workload.submitted_by
    return Principal(
        tenant=workload.tenant,
        user=workload.user,
        roles=tuple(saved.get("roles", ())),
        credential_id=str(saved.get("credential_id", "")),
        kind=saved.get("kind", "tenant"),
        workload=saved.get("workload"),
        datasets=tuple(saved.get("datasets", ())),
        on_behalf_of=saved.get("on_behalf_of"),
    )


def waiting_reason(assessment: Assessment, decision: Decision | None) -> str:
    """Why a job waits, one line for a person; empty when nothing is in its way."""
    sentences = [
        f"{reason.msg} [{reason.rule}]" for reason in (decision.reasons_of("hold") if decision else ())
    ]
    # The policy's own words come first; the ledger's numbers say the rest, and the order in the line.
    sentences += [
        f"{text} [{rule}]"
        for rule, text in assessment.waits_for()
        if rule == QUEUE_ORDER or decision is None or not sentences
    ]
    if not sentences:
        return ""
    return f"waiting in queue {assessment.workload.queue}: " + "; ".join(sentences)


def _policy_folder(home: Home) -> Path:
    from guard_core.policy.bundle import shipped_policies

    return home.settings.policy.dir or shipped_policies()


def _state_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every file below ``folder``: a reason to look again, never evidence."""
    found = []
    for file in sorted(folder.rglob("*")):
        try:
            state = file.stat()
        except OSError:
            continue
        found.append((str(file), state.st_mtime_ns, state.st_size))
    return tuple(found)


def _is_denied(decision: Decision) -> bool:
    """Denied outright, rather than allowed or held."""
    return not decision.allow and bool(decision.reasons_of("deny") or not decision.reasons_of("hold"))
