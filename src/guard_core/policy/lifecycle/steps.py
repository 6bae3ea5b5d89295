"""The steps of a policy change: stage, approve, promote, roll back, break the glass, review.

Each step holds the store, asks the policies *in force* (``guard/policy/change``) whether it may be taken,
writes what will happen to the audit log, and only then replaces the state. Policy can demand more than the
code; what it cannot waive is checked here too: the author does not approve, a candidate decides (enforced or
promoted) only after the gate and another person's approval of that very bundle, and nobody reviews their own
emergency. An approval or a review is a statement, not a change: it takes a role, and whether an approval
counts is decided when it is used.

Who acts is known from a verified credential. On a home that one person owns, that person can issue further
credentials, so two-person rules are `cooperative` there, and every record says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from guard_core.clock import new_id, to_ns
from guard_core.errors import Denied, Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.policy.bundle import Bundle, load_bundle
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.lifecycle.opening import base_of, store_of
from guard_core.policy.lifecycle.promotion import GateReport
from guard_core.policy.lifecycle.state import (
    MODES,
    Approval,
    Emergency,
    Held,
    Mode,
    Person,
    Review,
    Stage,
    State,
)
from guard_core.policy.lifecycle.store import Draft

if TYPE_CHECKING:
    from guard_core.home import Home

CHANGE_PATH = "guard/policy/change/decision"
CHANGER_ROLES = ("platform-admin", "policy-admin")
LONGEST_EMERGENCY_S = 24 * 3600
KNOWN_SHOWN = 20


class PolicySteps:
    """The steps, taken by whom the home's credential proves."""

    def __init__(self, home: Home) -> None:
        """Raises UserError where the settings leave no store to change."""
        policy = home.settings.policy
        if policy.dir is not None:
            raise UserError(
                f"policy.dir is set ({policy.dir}), so its files are in force and not the policy store; "
                "unset it to change policy in steps"
            )
        if policy.engine != "embedded":
            raise UserError(
                "policy.engine is server: stage and promote on the embedded engine, or give the OPA server "
                "a bundle made with: trainguard policy bundle"
            )
        self._home = home
        self._store = store_of(home)
        self._principal = home.principal()
        self.me = Person(self._principal.tenant, self._principal.user, self._principal.credential_id)

    # --- steps ----------------------------------------------------------------------------------------

    def stage(
        self,
        mode: Mode,
        *,
        candidate: Path | None = None,
        tenants: tuple[str, ...] = (),
        percent: int = 100,
        gate: GateReport | None = None,
    ) -> State:
        """Put a candidate (a policy directory, or a signed bundle) beside the policies in force.

        Without ``candidate``, the one that is staged changes its mode and reach. The same content keeps its
        author and approvals; another starts without. Raises UserError, Denied, Undecidable, Tampered.
        """
        if mode not in MODES or not 1 <= percent <= 100:
            raise UserError(f"a stage is one of {', '.join(MODES)}, for 1 to 100 percent")
        known = self._home.tenants()
        unknown = sorted(set(tenants) - set(known))
        if unknown:
            raise UserError(
                f"--tenants: there is no tenant {unknown[0]!r} in data/tenants.yaml of the policies in force "
                f"(known: {', '.join(sorted(known)[:KNOWN_SHOWN])}); correct the name, or add it there first"
            )
        with self._changing() as draft:
            now = draft.state.stage
            staged = now if candidate is None else self._candidate(draft, candidate)
            if staged is None:
                raise UserError("nothing is staged; name what to stage with --candidate")
            staged = replace(staged, mode=mode, tenants=tuple(sorted(tenants)), percent=percent)
            facts: dict[str, Any] = {
                "change": staged.change,
                "mode": mode,
                "author": staged.author.user,
                "tenants": list(staged.tenants),
                "percent": percent,
            }
            if mode == "enforce":  # it decides for real: no less is asked than for promotion
                facts["gate"] = self._require_gate(draft, staged, gate, "enforced")
            decision = self._decide("stage", draft, staged.held, facts, approvals=staged.valid_approvals)
            self._record("policy.staged", draft, staged.held, facts, decision_id=decision)
            return draft.put_in_force(replace(draft.state, stage=staged))

    def unstage(self) -> State:
        """Take the candidate away again. Raises UserError when there is none."""
        with self._changing() as draft:
            staged = _staged(draft)
            facts = {"change": staged.change, "author": staged.author.user, "reason": "unstage"}
            decision = self._decide("rollback", draft, draft.state.active, facts)
            self._record("policy.unstaged", draft, staged.held, facts, decision_id=decision)
            return draft.put_in_force(replace(draft.state, stage=None))

    def approve(self) -> State:
        """Approve the staged bundle, as somebody who is not its author. Raises Denied, UserError."""
        with self._changing() as draft:
            staged = _staged(draft)
            if self.me.same(staged.author):
                self._refuse(
                    draft,
                    staged.held,
                    f"{self.me} is the author of {staged.change}; another person has to approve it",
                )
            if any(self.me.same(a.by) for a in staged.valid_approvals):
                raise UserError(f"{self.me} has approved {staged.change} already")
            role = self._role_among(draft, staged.held, self._approver_roles(), "approve a policy change")
            given = Approval(self.me, role, to_ns(self._home.clock()), staged.held.digest)
            facts = {"change": staged.change, "author": str(staged.author), "role": role}
            self._record("policy.approved", draft, staged.held, facts)
            staged = replace(staged, approvals=(*staged.approvals, given))
            return draft.put_in_force(replace(draft.state, stage=staged))

    def promote(self, gate: GateReport) -> State:
        """Put the staged bundle in force for everyone.

        Raises Denied when the gate failed, nobody else approved, or policy says no.
        """
        with self._changing() as draft:
            staged = _staged(draft)
            facts = {
                "change": staged.change,
                "author": staged.author.user,
                "mode": staged.mode,
                "gate": self._require_gate(draft, staged, gate, "promoted"),
            }
            over = [r for r in draft.state.reviews if r.until_ns <= to_ns(self._home.clock())]
            if over:
                self._refuse(
                    draft,
                    staged.held,
                    f"not promoted: the emergency {over[0].id} of {over[0].by} awaits its review; "
                    f"another person runs: trainguard policy review {over[0].id}",
                )
            decision = self._decide("promote", draft, staged.held, facts, approvals=staged.valid_approvals)
            approved = [str(a.by) for a in staged.valid_approvals]
            facts = {**facts, "approved_by": approved}
            self._record("policy.promoted", draft, staged.held, facts, decision_id=decision)
            return draft.put_in_force(replace(draft.state, active=staged.held, stage=None))

    def roll_back(self, *, to: int | None = None, reason: str = "") -> State:
        """Go back: out of an emergency when there is one, else to the bundle before (or number ``to``).

        The old content is checked, then signed anew with the next number, so that no engine ever accepts a
        lower one. Going back again goes further back. Raises UserError when there is nothing before.
        """
        with self._changing() as draft:
            state = draft.state
            if state.emergency is not None and to is None:
                return self._end_emergency(draft, state.emergency, f"rolled back by {self.me}: {reason}")
            if not state.former:
                raise UserError("there is no earlier bundle to go back to; see: trainguard policy status")
            places = [n for n, held in enumerate(state.former) if to is None or held.sequence == to]
            if not places:
                known = ", ".join(str(held.sequence) for held in state.former)
                raise UserError(f"there is no earlier bundle {to} (known: {known})")
            target = state.former[places[0]]
            bundle = draft.open(target).bundle
            facts = {
                "author": self.me.user,
                "from": state.active.sequence,
                "to": target.sequence,
                "reason": reason,
            }
            decision = self._decide("rollback", draft, target, facts)
            held = draft.sign(bundle)
            self._record("policy.rolled-back", draft, held, facts, decision_id=decision)
            return draft.put_in_force(replace(draft.state, active=held), former=state.former[places[0] + 1 :])

    def break_glass(self, reason: str, ttl_seconds: int, *, candidate: Path | None = None) -> State:
        """Put a bundle (``candidate``, else the one before) in force at once, for ``ttl_seconds``.

        No gate and no second person, but a reason, an end, and a review by somebody else that stays due.
        Raises UserError, Denied, Undecidable.
        """
        if len(reason.strip()) < 10:
            raise UserError("say why in at least ten characters (--reason): the review will need it")
        if not 60 <= ttl_seconds <= LONGEST_EMERGENCY_S:
            raise UserError(
                f"an emergency lasts 60 s to {LONGEST_EMERGENCY_S // 3600} h, not {ttl_seconds} s"
            )
        with self._changing() as draft:
            open_one = draft.state.emergency
            if open_one is not None:
                raise UserError(
                    f"the emergency {open_one.id} is not over; end it with: trainguard policy rollback"
                )
            if candidate is not None:
                staged = self._candidate(draft, candidate)
                held = staged.held
            elif draft.state.former:
                held = draft.state.former[0]
                draft.open(held)
            else:
                raise UserError("there is no earlier bundle; name what to put in force with --candidate")
            start = to_ns(self._home.clock())
            made = Emergency(
                new_id("em"), held, self.me, reason.strip(), start, start + ttl_seconds * 1_000_000_000
            )
            facts = {
                "author": self.me.user,
                "emergency": made.id,
                "reason": made.reason,
                "expires_ns": made.until_ns,
                "review": "due",
            }
            decision = self._decide("break-glass", draft, held, facts)
            self._record("policy.break-glass", draft, held, facts, decision_id=decision)
            review = Review(made.id, self.me, made.reason, held.revision, made.since_ns, made.until_ns)
            return draft.put_in_force(
                replace(draft.state, emergency=made, reviews=(*draft.state.reviews, review))
            )

    def review(self, emergency_id: str, *, verdict: str, note: str) -> State:
        """Close the review of an emergency, as somebody else. ``verdict`` is justified or unjustified."""
        with self._changing() as draft:
            found = next((r for r in draft.state.reviews if r.id == emergency_id), None)
            if found is None:
                raise UserError(
                    f"no emergency {emergency_id!r} awaits a review; see: trainguard policy status"
                )
            held = Held("", 0, found.revision)
            if self.me.same(found.by):
                self._refuse(
                    draft, held, f"{self.me} broke the glass in {found.id}; another person has to review it"
                )
            facts = {"emergency": found.id, "by": str(found.by), "verdict": verdict, "note": note}
            self._role_among(draft, held, (*CHANGER_ROLES, *self._approver_roles()), "review an emergency")
            self._record("policy.reviewed", draft, held, facts)
            rest = tuple(r for r in draft.state.reviews if r.id != found.id)
            return draft.put_in_force(replace(draft.state, reviews=rest))

    # --- parts of steps -------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[Draft]:
        _ = self._home.policy  # opened before the lock: the first decision must not wait for itself
        with self._store.changing(lambda: base_of(self._home)) as draft:
            emergency = draft.state.emergency
            if emergency is not None and emergency.until_ns <= to_ns(self._home.clock()):
                self._end_emergency(draft, emergency, "expired")
            yield draft

    def _candidate(self, draft: Draft, path: Path) -> Stage:
        """The bundle at ``path``, signed and kept, as a stage by me; the known one when nothing changed."""
        held: Held | None = None
        if path.is_dir():
            from guard_core.policy.engine import accepted

            bundle = accepted(load_bundle(path))
            _refuse_no_change(bundle.revision, draft.state)
            now = draft.state.stage
            if now is not None and now.held.revision == bundle.revision:
                return now
            self._must_stay_changeable(bundle)
            held = draft.sign(bundle)
        else:
            held, bundle = draft.admit(path)
            _refuse_no_change(bundle.revision, draft.state)
            self._must_stay_changeable(bundle)
        return Stage(new_id("chg"), held, "shadow", self.me, to_ns(self._home.clock()))

    def _require_gate(
        self, draft: Draft, staged: Stage, gate: GateReport | None, what: str
    ) -> dict[str, Any]:
        """The passed gate of this very bundle, with another person's approval. Raises Denied, UserError."""
        if gate is None or gate.digest != staged.held.digest:
            raise UserError("the candidate is not the one that was tried; try it again")
        if not gate.passed:
            self._refuse(draft, staged.held, f"not {what}: {'; '.join(gate.failures)}", gate=gate.to_json())
        if not staged.valid_approvals:
            self._refuse(
                draft,
                staged.held,
                f"not {what}: nobody but its author {staged.author} has approved {staged.change}; "
                "another person runs: trainguard policy approve",
            )
        return gate.to_json()

    def _role_among(self, draft: Draft, held: Held, roles: tuple[str, ...], what: str) -> str:
        found = next((role for role in roles if role in self._principal.roles), None)
        if found is None:
            self._refuse(draft, held, f"{self.me} may not {what}: that takes one of {', '.join(roles)}")
        return found

    def _approver_roles(self) -> tuple[str, ...]:
        operations = self._home.policy_data().get("approvers", {}).get("operations", {})
        return tuple(operations.get("policy-promote", {}).get("roles", ())) or ("platform-admin",)

    def _refuse(self, draft: Draft, held: Held, reason: str, **facts: Any) -> NoReturn:
        """A refusal that policy was not even asked about, on record. Raises Denied."""
        self._record("policy.refused", draft, held, {"reason": reason, **facts})
        raise Denied(reason)

    def _must_stay_changeable(self, bundle: Bundle) -> None:
        question = {
            "change": {"kind": "rollback", "author": self.me.user, "signed": True},
            "approvals": [],
            "principal": self._principal.to_input(),
            "now_ns": to_ns(self._home.clock()),
        }
        answer = EmbeddedEngine(bundle).evaluate(CHANGE_PATH, question)
        if answer.error is not None or not answer.defined or not isinstance(answer.value, dict):
            raise UserError(
                f"the candidate does not answer {CHANGE_PATH}: with it in force nobody could change policy "
                "again; keep guard/policy/change in it"
            )

    def _decide(
        self,
        kind: str,
        draft: Draft,
        held: Held,
        facts: Mapping[str, Any],
        *,
        approvals: tuple[Approval, ...] = (),
    ) -> str:
        """Ask the policies in force. Returns the decision's id. Raises Denied, Undecidable."""
        question = {
            "change": {
                "mode": None,
                "reason": "",
                "expires_ns": None,
                "gate": {"ok": False},
                **facts,
                "kind": kind,
                "signed": True,  # the store holds nothing whose signature it did not make or check
                "candidate": held.revision,
                "current": draft.state.active.revision,
            },
            "approvals": [
                {"by": a.by.user, "tenant": a.by.tenant, "role": a.role, "at_ns": a.at_ns} for a in approvals
            ],
        }
        decision = self._home.decide(
            CHANGE_PATH,
            question,
            principal=self._principal,
            enforcement=Enforcement.COOPERATIVE,
            subject=f"policy/{held.revision}",
        )
        if decision.undecidable:
            raise Undecidable(f"no decision about this change could be had: {decision.explain()}")
        if not decision.allow:
            raise Denied(f"{kind} is refused: {decision.explain()}", decision.decision_id)
        return decision.decision_id

    def _record(
        self, kind: str, draft: Draft, held: Held, facts: Mapping[str, Any], *, decision_id: str = ""
    ) -> None:
        _record(self._home, kind, draft, held, {**facts, "by": str(self.me)}, decision_id=decision_id)

    def _end_emergency(self, draft: Draft, emergency: Emergency, how: str) -> State:
        return _end(self._home, draft, emergency, how)


def end_emergency(home: Home) -> None:
    """Take an emergency that has expired out of the state, once, on record. Raises GuardError."""
    store = store_of(home)
    with store.changing(lambda: base_of(home)) as draft:
        emergency = draft.state.emergency
        if emergency is not None and emergency.until_ns <= to_ns(home.clock()):
            _end(home, draft, emergency, "expired")


def _end(home: Home, draft: Draft, emergency: Emergency, how: str) -> State:
    facts = {"emergency": emergency.id, "how": how, "by": str(emergency.by), "review": "due"}
    _record(home, "policy.break-glass-ended", draft, draft.state.active, facts)
    now = to_ns(home.clock())
    reviews = tuple(
        replace(r, until_ns=min(r.until_ns, now)) if r.id == emergency.id else r for r in draft.state.reviews
    )
    return draft.put_in_force(replace(draft.state, emergency=None, reviews=reviews))


def _record(
    home: Home, kind: str, draft: Draft, held: Held, facts: Mapping[str, Any], *, decision_id: str = ""
) -> None:
    home.audit.event(
        kind,
        subject=f"policy/{held.revision}",
        data={
            **facts,
            "revision": held.revision,
            "sequence": held.sequence,
            "digest": held.digest,
            "in_force": draft.state.active.revision,
            "generation": draft.state.generation + 1,
        },
        enforcement=Enforcement.COOPERATIVE,
        decision_id=decision_id,
    )


def _staged(draft: Draft) -> Stage:
    if draft.state.stage is None:
        raise UserError("nothing is staged; run: trainguard policy stage shadow --candidate DIR")
    return draft.state.stage


def _refuse_no_change(revision: str, state: State) -> None:
    if revision == state.active.revision:
        raise UserError(f"the candidate is what is in force already ({revision})")
