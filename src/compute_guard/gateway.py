"""Admission of submissions: identity, facts, snapshot, decision, ledger. No HTTP and no Ray in here.

The order is fixed: the decision is on record before anything happens, the reservation is in the ledger before
Ray hears of the job. Label `cooperative`: code that already runs inside the cluster holds the cluster's own
token and can reach Ray beside this gateway; the reconciler (`detective`) contradicts that afterwards.
"""

from __future__ import annotations

import os
import secrets
from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compute_guard.admission import QUEUE_ORDER, Assessment, assess, kept_by_user_cap
from compute_guard.evictions import Evictions
from compute_guard.ledger import Entry, Ledger, Posting, Reservation
from compute_guard.maintenance import shut_flavors
from compute_guard.notice import notice_file, withdraw_notice
from compute_guard.quota import Quotas, flavor_of
from compute_guard.ray_body import body_for_ray, check_packages
from compute_guard.refusals import RefusalLog
from compute_guard.round import DEPTH, Pick, Round, decide_round
from compute_guard.snapshot import Snapshot, queue_order
from compute_guard.withdrawn import DataWatch
from compute_guard.workload import Workload, WorkloadState, workload_from_submission
from guard_core.clock import to_ns
from guard_core.errors import Denied, Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard_core.home import Home
    from guard_core.policy.decision import Decision

POLICY = "guard/compute/admission/decision"
JOB_TOKEN_SECONDS = 7 * 86_400
ASKED_KEPT = 10_000
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
        self._refusals = RefusalLog(home)
        self.data_watch = DataWatch(home, self.ledger)
        """Looks whether running jobs may still use the data they declared."""
        self._quotas: tuple[object, Quotas] | None = None
        self.left_over: list[Admitted] = []
        """Admitted by the way, and not yet given to anybody who hands them to Ray."""

    @property
    def evictions(self) -> Evictions:
        """Notices to jobs that have to make room."""
        return Evictions(self.home, self.ledger)

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
            raw = self.home.policy_data().get("quotas", {})
            if self._quotas is None or self._quotas[0] is not raw:
                self._quotas = (raw, Quotas.from_config(raw))
            return self._quotas[1]
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
        decisions = dict(zip(new, self._decide(questions), strict=True))
        events: list[_Event] = []
        with self.ledger.posting() as posting:
            for place, (workload, _) in new.items():
                decision = decisions[place]
                refusal = _refusal(workload, decision)
                if refusal is not None:
                    outcomes[place] = refusal
                    state = "refused" if decision.undecidable else WorkloadState.DENIED.value
                    events.append(_Event(workload, state, decision.explain(), decision))
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
        admitted = {one.id: one for one in self._admit(quotas, fresh)}
        held = [(place, workload) for place, (workload, _) in new.items() if place not in outcomes]
        silent = any(not reasons[place] for place, w in held if w.id not in admitted)
        after = self.snapshot(quotas) if silent else snapshot
        for place, workload in held:
            if workload.id in admitted:
                outcomes[place] = admitted.pop(workload.id)
                continue
            reason = reasons[place] or waiting_reason(assess(after, workload), decisions[place])
            events.append(_Event(workload, WorkloadState.PENDING.value, reason, decisions[place]))
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

    def release(self) -> list[Admitted]:
        """Admission rounds until nobody else fits: who may go, each decided again with what is true now."""
        self.freshen()
        others, self.left_over = self.left_over, []
        return others + self._admit(self.quotas(), {})

    def _admit(self, quotas: Quotas, fresh: Mapping[str, Decision]) -> list[Admitted]:
        """Rounds over the waiting lines. ``fresh`` are decisions of this moment, by workload."""
        admitted: list[Admitted] = []
        barred: set[str] = set()
        while True:
            snapshot = self.snapshot(quotas)
            if not snapshot.pending:
                return admitted
            round_ = decide_round(snapshot, barred=barred)
            picks = [*round_.picks, *_hopeless(snapshot, round_, barred)]
            done, refused = self._take(quotas, picks, fresh)
            admitted += done
            barred |= refused
            if round_.displaced:
                self.evictions.give_notice(quotas, round_.displaced)
            more = any(len(line) > DEPTH for line in snapshot.lines.values()) and done
            if not refused and not more:
                return admitted

    def _take(
        self, quotas: Quotas, picks: Sequence[Pick], fresh: Mapping[str, Decision]
    ) -> tuple[list[Admitted], set[str]]:
        """Decide and reserve ``picks``: who was admitted, and who was not and holds up its line."""
        asks = [pick for pick in picks if pick.workload.id not in fresh]
        worth = [pick for pick in asks if self._worth_asking(pick)]
        decided = dict(fresh)
        questions = [(pick.workload, pick.assessment, principal_of(pick.workload)) for pick in worth]
        decided |= {pick.workload.id: made for pick, made in zip(worth, self._decide(questions), strict=True)}
        refused: set[str] = set()
        stopped: set[str] = set()
        admitted: list[Admitted] = []
        events: list[_Event] = []
        if not picks:
            return admitted, refused
        with self.ledger.posting(quotas) as posting:
            posting.fetch([pick.workload.id for pick in picks])
            for pick in picks:
                workload, decision = pick.workload, decided.get(pick.workload.id)
                if workload.queue in stopped:
                    continue
                if decision is not None and decision.allow and pick.assessment.fits:
                    one = self._reserve(posting, pick, decision)
                    if one is not None:
                        admitted.append(one)
                        events.append(_Event(workload, WorkloadState.ADMITTED.value, "", decision))
                        continue
                elif decision is not None and _is_denied(decision) and not decision.undecidable:
                    posting.move(workload.id, WorkloadState.DENIED, reason=decision.explain())
                    events.append(_Event(workload, WorkloadState.DENIED.value, decision.explain(), decision))
                    refused.add(workload.id)  # its line moves up: look once more
                    stopped.add(workload.queue)
                    continue
                elif decision is not None:
                    posting.note(workload.id, reason=_policy_reason(pick, decision))
                refused.add(workload.id)
                stopped.add(workload.queue)
        self._audit(events)
        return admitted, refused

    def _reserve(self, posting: Posting, pick: Pick, decision: Decision) -> Admitted | None:
        workload = pick.workload
        # The credential is part of the same transaction: there is none for a job that was not admitted.
        token = self._job_token(workload, posting.session)
        done = posting.reserve(
            workload.id, decision_id=decision.decision_id, lease_token=token.split("_")[1], way=pick.way
        )
        if done is not Reservation.RESERVED:
            posting.revoke(token.split("_")[1])
            return None
        return Admitted(workload.id, self._body(workload, token, pick.way.flavor))

    def _worth_asking(self, pick: Pick) -> bool:
        """Whether to put this job to policy: its numbers are new, or the last answer is old."""
        now = to_ns(self.home.clock())
        numbers = (str(pick.assessment.to_input()), self.home.policy.revision)
        last = self._asked.get(pick.workload.id)
        if last is not None and last[0] == numbers and now - last[1] < ASK_AGAIN_NS:
            return False
        if len(self._asked) >= ASKED_KEPT:
            self._asked.clear()
        self._asked[pick.workload.id] = (numbers, now)
        return True

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

    def snapshot(self, quotas: Quotas) -> Snapshot:
        """The ledger now, with the flavors that are under maintenance."""
        return self.ledger.snapshot(
            quotas, shut=shut_flavors(quotas, self.home.policy_data(), to_ns(self.home.clock()))
        )

    def _job_token(self, workload: Workload, session: Session | None = None) -> str:
        return self.home.credentials.issue(
            tenant=workload.tenant,
            user=workload.user,
            kind="job",
            workload=workload.id,
            datasets=workload.declared,
            ttl_seconds=JOB_TOKEN_SECONDS,
            session=session,
        )

    def _body(self, workload: Workload, token: str, flavor: str) -> dict[str, Any]:
        found = self.quotas().flavors.get(flavor)
        labels = found.node_labels if found is not None else {}
        return body_for_ray(workload, token, self.home.settings.home, node_labels=labels)

    def resubmission(self, entry: Entry) -> Admitted:
        """The body of an admitted job that Ray never got (a crash came between), with a new credential."""
        token = self._job_token(entry.workload)
        if entry.lease_token:
            self.home.credentials.revoke(entry.lease_token)
        self.ledger.note(entry.id, lease_token=token.split("_")[1])
        flavor = flavor_of(self.ledger.reservations().get(entry.id, {}))
        return Admitted(entry.id, self._body(entry.workload, token, flavor))

    def finish(
        self, workload_id: str, to: WorkloadState, reason: str, decision: Decision | None = None
    ) -> bool:
        """End a workload: state, reservation, credential, audit event. False when it had ended already."""
        return self.finish_many([(workload_id, to, reason)], decision) == 1

    def finish_many(
        self, ends: Sequence[tuple[str, WorkloadState, str]], decision: Decision | None = None
    ) -> int:
        """:meth:`finish` of several in one transaction; how many had not ended yet."""
        events: list[_Event] = []
        with self.ledger.posting(self._quotas_if_any()) as posting:
            posting.fetch([workload_id for workload_id, _, _ in ends])
            for workload_id, to, reason in ends:
                entry = posting.entry(workload_id)
                if entry is None or not posting.move(workload_id, to, reason=reason):
                    continue
                if entry.lease_token:
                    posting.revoke(entry.lease_token)
                if entry.eviction is not None:
                    withdraw_notice(notice_file(self.home.settings.home, workload_id))
                events.append(_Event(entry.workload, to.value, reason, decision))
        self._audit(events)
        return len(events)

    def requeue(self, workload_id: str, reason: str) -> bool:
        """Put a job that was taken out back into its line; Ray must not know it any more."""
        with self.ledger.posting(self._quotas_if_any()) as posting:
            entry = posting.entry(workload_id)
            if entry is None or not posting.requeue(workload_id, reason=reason):
                return False
            if entry.lease_token:
                posting.revoke(entry.lease_token)
        withdraw_notice(notice_file(self.home.settings.home, workload_id))
        self._audit(
            [_Event(entry.workload, WorkloadState.PREEMPTED.value, f"{reason}; it waits again", None)]
        )
        return True

    def _quotas_if_any(self) -> Quotas | None:
        """The quotas, for the meters; without usable policy data jobs still end."""
        try:
            return self.quotas()
        except Undecidable:
            return None

    def run(self, workload_id: str, ray_job_id: str | None) -> bool:
        """Record that Ray runs an admitted workload."""
        return self.run_many([(workload_id, ray_job_id)]) == 1

    def run_many(self, started: Sequence[tuple[str, str | None]]) -> int:
        """:meth:`run` of several in one transaction; how many were not known to run."""
        events: list[_Event] = []
        with self.ledger.posting() as posting:
            posting.fetch([workload_id for workload_id, _ in started])
            for workload_id, ray_job_id in started:
                entry = posting.entry(workload_id)
                if entry is None:
                    continue
                if entry.state is WorkloadState.RUNNING and ray_job_id is not None:
                    posting.note(workload_id, ray_job_id=ray_job_id)
                elif posting.move(workload_id, WorkloadState.RUNNING, ray_job_id=ray_job_id):
                    events.append(_Event(entry.workload, WorkloadState.RUNNING.value, "", None))
        self._audit(events)
        return len(events)

    def _decide(self, asks: Sequence[tuple[Workload, Assessment, Principal]]) -> list[Decision]:
        questions = []
        for workload, assessment, principal in asks:
            facts = (
                self.home.dataset_facts(workload.declared, principal=principal) if workload.declared else []
            )
            asked = {"workload": workload.to_input(facts), "quota": assessment.to_input()}
            questions.append((asked, principal, workload.id))
        return self.home.decide_many(POLICY, questions, enforcement=Enforcement.COOPERATIVE)

    def _audit(self, events: Sequence[_Event]) -> None:
        try:
            self.home.audit.events([event.record() for event in events])
        except OSError as error:
            raise Undecidable(f"the audit log cannot be written: {error}") from error


@dataclass(frozen=True, slots=True)
class _Event:
    """A change of state, for the audit log."""

    workload: Workload
    state: str
    reason: str
    decision: Decision | None

    def record(self) -> tuple[str, str, dict[str, Any], Enforcement, str]:
        """What :meth:`guard_core.audit.log.AuditLog.events` takes."""
        data = {
            "state": self.state,
            "tenant": self.workload.tenant,
            "queue": self.workload.queue,
            "requests": dict(self.workload.requests),
            "reason": self.reason,
        }
        decision_id = self.decision.decision_id if self.decision is not None else ""
        return "workload.state", self.workload.id, data, Enforcement.COOPERATIVE, decision_id


def _refusal(workload: Workload, decision: Decision) -> Refused | None:
    text = f"{decision.explain()} (decision {decision.decision_id})"
    if decision.undecidable:
        return Refused(
            503, f"TrainGuard could not decide, so the job is refused: {text}", decision.decision_id
        )
    if _is_denied(decision):
        return Refused(
            429,
            f"TrainGuard denied job {workload.id} of tenant {workload.tenant}: {text}",
            decision.decision_id,
        )
    return None


def _hopeless(snapshot: Snapshot, round_: Round, barred: Collection[str]) -> list[Pick]:
    """Heads that can never fit: policy denies them, or they would block their lines for ever."""
    picked = {pick.workload.id for pick in round_.picks}
    found = []
    for queue, line in snapshot.lines.items():
        if queue not in snapshot.quotas.queues or queue in snapshot.holds:
            continue
        head = next((w for w in line if w.id not in picked and not kept_by_user_cap(snapshot, w)), None)
        if head is not None and head.id not in barred:
            assessment = assess(snapshot, head, ahead=())
            if not assessment.ever_fits:
                found.append(Pick(head, assessment.way, assessment))
    return found


def _policy_reason(pick: Pick, decision: Decision) -> str:
    if decision.undecidable:
        return f"waiting, no decision could be had: {decision.explain()}"
    return waiting_reason(pick.assessment, decision)


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
    found: list[tuple[str, int, int]] = []
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.path)
                    else:
                        state = entry.stat()
                        found.append((entry.path, state.st_mtime_ns, state.st_size))
        except OSError:
            continue
    return tuple(sorted(found))


def _is_denied(decision: Decision) -> bool:
    """Denied outright, rather than allowed or held."""
    return not decision.allow and bool(decision.reasons_of("deny") or not decision.reasons_of("hold"))
