"""What comes of a submission: admitted, held or refused, in Ray's and in people's terms. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compute_guard.admission.assessment import QUEUE_ORDER, Assessment
from compute_guard.admission.workload import Workload
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from guard_core.audit.log import Event
    from guard_core.policy.decision import Decision


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


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of state, for the audit log."""

    workload: Workload
    state: str
    reason: str
    decision: Decision | None

    def record(self) -> Event:
        """What :meth:`guard_core.audit.log.AuditLog.events` takes."""
        data = {
            "state": self.state,
            "tenant": self.workload.tenant,
            "queue": self.workload.queue,
            "requests": dict(self.workload.requests.items()),
            "reason": self.reason,
        }
        decision_id = self.decision.decision_id if self.decision is not None else ""
        return "workload.state", self.workload.id, data, Enforcement.COOPERATIVE, decision_id


def refusal_of(workload: Workload, decision: Decision) -> Refused | None:
    """The refusal that a decision means for a new submission, None when it may at least wait."""
    text = f"{decision.explain()} (decision {decision.decision_id})"
    if decision.undecidable:
        return Refused(
            503, f"TrainGuard could not decide, so the job is refused: {text}", decision.decision_id
        )
    if is_denied(decision):
        return Refused(
            429,
            f"TrainGuard denied job {workload.id} of tenant {workload.tenant}: {text}",
            decision.decision_id,
        )
    return None


def is_denied(decision: Decision) -> bool:
    """Denied outright, rather than allowed or held."""
    return not decision.allow and bool(decision.reasons_of("deny") or not decision.reasons_of("hold"))


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
