"""Admission rounds: waiting workloads that may go now, each decided again and reserved in one transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compute_guard.admission.assessment import Assessment, assess, never_fits, steps_aside
from compute_guard.admission.evictions import Evictions
from compute_guard.admission.garbage import garbage_waits
from compute_guard.admission.lifecycle import Lifecycle
from compute_guard.admission.outcomes import Admitted, StateChange, is_denied, principal_of, waiting_reason
from compute_guard.admission.quiet_trees import QuietTrees, unchanged
from compute_guard.admission.ray_body import body_for_ray
from compute_guard.admission.round import DEPTH, DEPTH_OF_ONE_TREE, Pick, Round, decide_round
from compute_guard.admission.snapshot import Snapshot
from compute_guard.admission.workload import Workload, WorkloadState
from compute_guard.ledger.store import Entry, Posting, Reservation
from compute_guard.quota.limits import Quotas, flavor_of
from guard_core.clock import to_ns
from guard_core.errors import GuardError
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.policy.asking import Asking
    from guard_core.policy.decision import Decision

POLICY = "guard/compute/admission/decision"
JOB_TOKEN_SECONDS = 7 * 86_400
ASKED_KEPT = 10_000
TREES_AHEAD = 2
"""So many trees of cohorts are looked at, and policy asked about them, before it is their turn."""
ASK_AGAIN_NS = 30 * 1_000_000_000
"""A waiting job with unchanged numbers is put to policy again after this long, as verdicts change."""


_OVER = object()


@dataclass(frozen=True, slots=True)
class Turn:
    """One round, and its questions to policy: ``asks``, of all who may go, are those worth asking about."""

    snapshot: Snapshot
    trees: set[int]
    round: Round
    hopeless: list[Pick]
    asks: tuple[Pick, ...]
    asking: Asking
    revision: str
    now_ns: int


class Admissions(Lifecycle):
    """Lets waiting workloads in. Call from one thread at a time."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._asked: dict[str, tuple[object, int]] = {}
        self._quiet = QuietTrees()
        self.left_over: list[Admitted] = []
        """Admitted by the way, and not yet given to anybody who hands them to Ray."""

    @property
    def evictions(self) -> Evictions:
        """Notices to jobs that have to make room."""
        return Evictions(self.home, self.ledger)

    def release(self) -> list[Admitted]:
        """Admission rounds until nobody else fits: who may go, each decided again with what is true now."""
        return [one for admitted in self.releases() for one in admitted]

    def releases(self) -> Iterator[list[Admitted]]:
        """:meth:`release` round by round, each on record when given: it can run while others are decided.

        One tree of cohorts after the other: who gets in in one waits for the decisions about the next, which
        go on record in the same write, and for no other.
        Whoever stops in between loses nothing: what was left is looked at by the next.
        """
        self.freshen()
        admitted, self.left_over = self.left_over, []
        rounds, over = self._rounds_by_tree(admitted), False
        while not over:
            with garbage_waits(), self.one_record():
                over = next(rounds, _OVER) is _OVER
            if admitted:
                yield admitted.copy()
                admitted.clear()

    def _admit(self, fresh: Mapping[str, Decision]) -> list[Admitted]:
        """All rounds. ``fresh`` are decisions of this moment, by workload."""
        admitted: list[Admitted] = []
        for _ in self._rounds(admitted, fresh):
            continue
        return admitted

    def _rounds_by_tree(self, admitted: list[Admitted]) -> Iterator[None]:
        """Rounds in one tree of cohorts until nobody there can fit, then in the next, as :meth:`_rounds`.

        Policy is asked about the next ones while what it answered about this one is acted on.
        """
        snapshot = self.snapshot(self.quotas())
        trees = sorted(self._quiet.others(snapshot, self.home.policy.revision))
        ahead: deque[Turn | None] = deque()
        try:
            for place, tree in enumerate(trees):
                for one in trees[place + len(ahead) : place + 1 + TREES_AHEAD]:
                    ahead.append(self._look_ahead(one))
                yield from self._rounds(admitted, {}, only=tree, ahead=ahead.popleft())
        finally:
            for turn in ahead:
                if turn is not None:
                    turn.asking.abandon()

    def _look_ahead(self, tree: int) -> Turn | None:
        with suppress(GuardError):  # what is wrong there shows when it is its turn
            return self._turn({}, only=tree)
        return None

    def _rounds(
        self,
        admitted: list[Admitted],
        fresh: Mapping[str, Decision],
        *,
        only: int | None = None,
        ahead: Turn | None = None,
    ) -> Iterator[None]:
        """Rounds over the waiting lines, of one tree or all, until one after which nobody else can fit.

        ``ahead`` is the first, looked at before: it counts unless something in its tree has changed since.
        Who gets in is added to ``admitted``, and goes on record in one write with the decisions of the next
        round (:meth:`one_record` writes what is left). After that write there is a pause, for the caller to
        hand them on; nothing is reserved then that is not in ``admitted`` and on record.
        """
        barred: set[str] = set()
        stirred: set[int] = set()  # what policy holds back now is asked about again at the next look
        while True:
            turn = self._still_good(ahead, only) or self._turn(fresh, barred, only)
            ahead = None
            if turn is None:
                return
            decided = {**fresh, **self._decided(turn)}
            if admitted:
                yield
                if only is not None and self._still_good(turn, only) is None:
                    continue
            snapshot, trees, round_ = turn.snapshot, turn.trees, turn.round
            done, refused = self._take(turn, decided)
            admitted += done
            barred |= refused
            if round_.displaced:
                self.evictions.give_notice(snapshot.quotas, round_.displaced)
            stirred |= trees if turn.hopeless else round_.stirred
            if barred or turn.hopeless or round_.displaced or round_.deeper:
                self._quiet.note(snapshot, trees - stirred)
            elif (settled := self.ledger.remembered(snapshot)) is not None:
                self._quiet.note(settled, trees)  # all who could be let in were: the next round finds nobody
            if not refused and not (round_.deeper and done):
                return

    def _turn(
        self, fresh: Mapping[str, Decision], barred: Collection[str] = (), only: int | None = None
    ) -> Turn | None:
        """Look at one tree or all, and ask policy about who may go; None where nobody waits."""
        snapshot = self.snapshot(self.quotas())
        if not snapshot.lines:
            return None
        revision = self.home.policy.revision
        trees = self._quiet.others(snapshot, revision)
        trees = trees if only is None else trees & {only}
        if not trees:
            return None
        depth = DEPTH if only is None else DEPTH_OF_ONE_TREE
        round_ = decide_round(snapshot, barred=barred, depth=depth, only=trees)
        hopeless = _hopeless(snapshot, trees, round_, barred)
        now = to_ns(self.home.clock())
        asks = tuple(
            pick
            for pick in (*round_.picks, *hopeless)
            if pick.workload.id not in fresh and self._worth_asking(pick, now, revision)
        )
        questions = [(pick.workload, pick.assessment, principal_of(pick.workload)) for pick in asks]
        return Turn(snapshot, trees, round_, hopeless, asks, self._ask(questions), revision, now)

    def _still_good(self, turn: Turn | None, tree: int | None) -> Turn | None:
        """``turn``, unless what it saw of ``tree`` has changed, as far as this process knows.

        What another one has changed is noticed by the transaction that reserves.
        """
        if turn is None or tree is None:
            return None
        now = self.ledger.remembered(turn.snapshot)
        same = now is not None and unchanged(turn.snapshot, now, tree)
        if same and turn.snapshot.quotas is self.quotas() and turn.revision == self.home.policy.revision:
            return turn
        turn.asking.abandon()
        return None

    def _decided(self, turn: Turn) -> dict[str, Decision]:
        """What policy says to a round's questions, by workload: on record, with what changed before."""
        made = turn.asking.decided([event.record() for event in self._events or ()])
        if self._events:
            self._events.clear()
        return dict(zip((pick.workload.id for pick in turn.asks), made, strict=True))

    def _take(self, turn: Turn, decided: Mapping[str, Decision]) -> tuple[list[Admitted], set[str]]:
        """Reserve what was decided: who was admitted, and who was not and holds up its line."""
        quotas, picks = turn.snapshot.quotas, [*turn.round.picks, *turn.hopeless]
        self._note_asked(turn)
        for name in [name for name, made in decided.items() if made.allow]:
            self._asked.pop(name, None)  # used up: whoever is back in the line is asked about anew
        refused: set[str] = set()
        stopped: set[str] = set()
        admitted: list[Admitted] = []
        events: list[StateChange] = []
        if not picks:
            return admitted, refused
        with self.ledger.posting(quotas) as posting:
            for pick in picks:
                workload, decision = pick.workload, decided.get(pick.workload.id)
                if workload.queue in stopped:
                    continue
                if decision is not None and decision.allow and pick.assessment.fits:
                    one = self._reserve(posting, quotas, pick, decision)
                    if one is not None:
                        admitted.append(one)
                        events.append(StateChange(workload, WorkloadState.ADMITTED.value, "", decision))
                        continue
                elif decision is not None and is_denied(decision) and not decision.undecidable:
                    posting.move(workload.id, WorkloadState.DENIED, reason=decision.explain())
                    events.append(
                        StateChange(workload, WorkloadState.DENIED.value, decision.explain(), decision)
                    )
                    refused.add(workload.id)  # its line moves up: look once more
                    stopped.add(workload.queue)
                    continue
                elif decision is not None:
                    posting.note(workload.id, reason=_policy_reason(pick, decision))
                refused.add(workload.id)
                stopped.add(workload.queue)
        self._audit(events)
        return admitted, refused

    def _reserve(self, posting: Posting, quotas: Quotas, pick: Pick, decision: Decision) -> Admitted | None:
        workload = pick.workload
        made: list[dict[str, Any]] = []
        token = self._job_token(workload, made.append)
        done = posting.reserve(
            workload.id, decision_id=decision.decision_id, lease_token=token.split("_")[1], way=pick.way
        )
        if done is not Reservation.RESERVED:
            return None
        # The credential is part of the same transaction: there is none for a job that was not admitted.
        posting.grant(made[0])
        return Admitted(workload.id, self._body(quotas, workload, token, pick.way.flavor))

    def _worth_asking(self, pick: Pick, now: int, revision: str) -> bool:
        """Whether to put this job to policy: its numbers are new, or the last answer is old."""
        last = self._asked.get(pick.workload.id)
        same = last is not None and last[0] == (pick.assessment.numbers, revision)
        return last is None or not same or now - last[1] >= ASK_AGAIN_NS

    def _note_asked(self, turn: Turn) -> None:
        for pick in turn.asks:
            if len(self._asked) >= ASKED_KEPT:
                self._asked.clear()
            self._asked[pick.workload.id] = ((pick.assessment.numbers, turn.revision), turn.now_ns)

    def _job_token(self, workload: Workload, store: Callable[[dict[str, Any]], None] | None = None) -> str:
        return self.home.credentials.issue(
            tenant=workload.tenant,
            user=workload.user,
            kind="job",
            workload=workload.id,
            datasets=workload.declared,
            ttl_seconds=JOB_TOKEN_SECONDS,
            store=store,
        )

    def _body(self, quotas: Quotas, workload: Workload, token: str, flavor: str) -> dict[str, Any]:
        found = quotas.flavors.get(flavor)
        labels = found.node_labels if found is not None else {}
        return body_for_ray(workload, token, self.home.settings.home, node_labels=labels)

    def resubmission(self, entry: Entry) -> Admitted:
        """The body of an admitted job that Ray never got (a crash came between), with a new credential."""
        token = self._job_token(entry.workload)
        if entry.lease_token:
            self.home.credentials.revoke(entry.lease_token)
        self.ledger.note(entry.id, lease_token=token.split("_")[1])
        flavor = flavor_of(self.ledger.reservations().get(entry.id, {}))
        return Admitted(entry.id, self._body(self.quotas(), entry.workload, token, flavor))

    def _ask(self, asks: Sequence[tuple[Workload, Assessment, Principal]]) -> Asking:
        questions = []
        for workload, assessment, principal in asks:
            facts = (
                self.home.dataset_facts(workload.declared, principal=principal) if workload.declared else []
            )
            asked = {"workload": workload.to_input(facts), "quota": assessment.to_input()}
            questions.append((asked, principal, workload.id))
        return self.home.ask_many(POLICY, questions, enforcement=Enforcement.COOPERATIVE)


def _hopeless(
    snapshot: Snapshot, trees: Collection[int], round_: Round, barred: Collection[str]
) -> list[Pick]:
    """Heads in ``trees`` that can never fit: policy denies them, or they would block their lines for ever."""
    picked = {pick.workload.id for pick in round_.picks}
    found = []
    for queue in (name for root in trees for name in snapshot.quotas.queues_of(root)):
        line = snapshot.waiting_in(queue)
        if queue in snapshot.holds:
            continue
        head = next((w for w in line if w.id not in picked and not steps_aside(snapshot, w)), None)
        if head is not None and head.id not in barred and never_fits(snapshot, head):
            assessment = assess(snapshot, head, ahead=())
            found.append(Pick(head, assessment.way, assessment))
    return found


def _policy_reason(pick: Pick, decision: Decision) -> str:
    if decision.undecidable:
        return f"waiting, no decision could be had: {decision.explain()}"
    return waiting_reason(pick.assessment, decision)
