"""Response: the ladder's steps, each decided by policy, on record first, done once, looked at afterwards.

A step is asked for (:meth:`Responder.act`), put to ``guard/response/action/decision`` with its approvals,
its playbook and the blast so far, claimed, put into the audit log, carried out, verified, and written down
again. After ``kill -9`` anywhere in between, :meth:`Responder.recover` finds the claim and finishes the step;
effects set states, so a repeated one changes nothing. Steps expire and can be undone; a kill switch stops
levels 3 and up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from compute_guard.incidents.casefile import CaseFile
from compute_guard.incidents.incident import Incident, State
from compute_guard.incidents.store import Incidents
from compute_guard.response.actions import OPEN_STATES, Action, Actions
from compute_guard.response.clearance import Clearance
from compute_guard.response.containment import Containment
from compute_guard.response.execution import Execution, on_record
from compute_guard.response.playbooks import LADDER, Rung, choose_playbook, plan
from guard_core.clock import rfc3339
from guard_core.errors import Denied, Undecidable, UserError
from guard_core.identity import Principal

if TYPE_CHECKING:
    from compute_guard.ray_plugin.jobs import ClusterActions
    from guard_core.home import Home
    from guard_core.policy.decision import Decision

RETRY: Final = timedelta(seconds=30)
RETRY_WITHIN: Final = timedelta(hours=1)
"""For so long a failed step is tried again although its cause is no longer seen."""


class Responder:
    """Carries the ladder out for one home. ``cluster`` None: levels 3 and up fail with a reason.

    ``synthetic_may_act``: made-up telemetry may reach beyond canary tenants (a demonstration of one's own).
    """

    def __init__(
        self,
        home: Home,
        cluster: ClusterActions | None,
        *,
        incidents: Incidents | None = None,
        case_file: CaseFile | None = None,
        synthetic_may_act: bool = False,
    ) -> None:
        self._home = home
        self._incidents = incidents or Incidents(home)
        self._actions = Actions(home.storage, home.clock)
        self._clearance = Clearance(home, self._actions, synthetic_may_act=synthetic_may_act)
        case = case_file or CaseFile(home)
        containment = Containment(home, cluster)
        self._execution = Execution(home, self._actions, self._incidents, case, containment)

    def respond(self, incident: Incident, principal: Principal) -> list[Action]:
        """Ask for every step the incident calls for that was not asked for in its present shape."""
        taken = {action.level: action for action in self._actions.of(incident.id)}
        done = []
        for level in plan(incident):
            before = taken.get(level)
            if before is None or self._worth_asking(before, incident):
                done.append(self.act(incident, level, principal=principal))
        return done

    def act(self, incident: Incident, level: int, *, principal: Principal, dry_run: bool = False) -> Action:
        """Ask for one step and, when policy grants it, carry it out. Idempotent.

        The action's ``state`` says what came of it. Raises Undecidable when nothing can be put on record,
        UserError for a level that does not exist.
        """
        if not 0 <= level < len(LADDER):
            raise UserError(f"there is no level {level}; the ladder goes from 0 to {len(LADDER) - 1}")
        rung = LADDER[level]
        playbook = choose_playbook(self._clearance.config(), incident, level, self._home.clock())
        if dry_run:
            decision = self._clearance.decide(
                incident, rung, (), playbook, principal, dry_run=True, subject=incident.id
            )
            return self._rehearsed(incident, rung, decision, playbook)
        asked = {
            "requested_by": {"credential_id": principal.credential_id, "user": principal.user},
            "target": {"tenant": incident.tenant, "job": incident.job},
        }
        action = self._actions.request(incident.id, level, rung.name, asked)
        if action.state not in OPEN_STATES:
            return action
        shape = {"shape": _shape(incident), "playbook": playbook, "asked_at": rfc3339(self._home.clock())}
        if level >= 3 and (obstacle := self._clearance.brake(incident)):
            return self._settle(action, "blocked", {**shape, "reasons": [obstacle]}, "")
        decision = self._clearance.decide(
            incident, rung, action.approvals, playbook, principal, dry_run=False, subject=action.id
        )
        if not decision.allow:
            reasons = [reason.to_json() for reason in decision.reasons]
            missing = {reason["rule"] for reason in reasons} == {"approvals-missing"}
            state = "waiting" if missing else "denied"
            return self._settle(action, state, {**shape, "reasons": reasons}, decision.decision_id)
        claimed = self._actions.claim(action, decision_id=decision.decision_id)
        if claimed is None:
            return self._actions.get(action.id)
        return self._execution.execute(replace(claimed, result={**claimed.result, **shape}), incident, rung)

    def steps(self, incident: Incident) -> list[Action]:
        """The incident's steps so far, oldest first."""
        return self._actions.of(incident.id)

    def approve(self, action_id: str, approver: Principal) -> Action:
        """Add a person's approval and try the step again in the name of who asked for it.

        Raises Denied when this person's approval cannot count, UserError when the step waits for none.
        """
        action = self._actions.get(action_id)
        incident = self._incidents.get(action.incident_id)
        role = self._clearance.approver_role(approver, incident)
        asked_by = action.result.get("requested_by", {})
        if approver.credential_id == asked_by.get("credential_id") or approver.user == asked_by.get("user"):
            raise Denied(f"{approver.user} asked for this step and so cannot approve it; ask another person")
        given = {
            "by": approver.user,
            "tenant": approver.tenant,
            "role": role,
            "credential_id": approver.credential_id,
            "at": rfc3339(self._home.clock()),
        }
        on_record(self._home, action, "approved", {"approval": given})
        self._actions.approve(action_id, given)
        return self.act(incident, action.level, principal=self._clearance.requester(asked_by))

    def undo(self, action_id: str, principal: Principal, *, expired: bool = False) -> Action:
        """Take a step's effect back. Raises UserError when it cannot be, Denied when policy says no."""
        action = self._actions.get(action_id)
        rung = LADDER[action.level]
        if not rung.reversible or rung.level < 3:
            raise UserError(f"action {action_id} ({rung.name}) has no effect that could be taken back")
        if action.state != "done":
            raise UserError(f"action {action_id} is {action.state}; only a step that is done can be undone")
        incident = self._incidents.get(action.incident_id)
        undoing = replace(rung, level=0, name=f"undo-{rung.name}")
        decision = self._clearance.decide(
            incident, undoing, (), None, principal, dry_run=False, subject=action.id
        )
        if decision.undecidable:
            raise Undecidable(f"action {action_id} was not undone: {decision.explain()}")
        if not decision.allow:
            raise Denied(f"action {action_id} was not undone: {decision.explain()}", decision.decision_id)
        claimed = self._actions.claim(action, "undoing", decision_id=decision.decision_id)
        if claimed is None:
            return self._actions.get(action_id)
        end = "expired" if expired else "undone"
        marked = {**claimed.result, "ends_as": end}
        return self._execution.take_back(replace(claimed, result=marked), incident, rung)

    def expire(self, principal: Principal) -> list[Action]:
        """Undo every step whose time is over."""
        now = self._home.clock()
        due = [
            a for a in self._actions.of(states=["done"]) if a.expires_at is not None and a.expires_at <= now
        ]
        return [self.undo(action.id, principal, expired=True) for action in due]

    def retry(self, principal: Principal) -> list[Action]:
        """Try again what failed a while ago: Ray may be back, and the cause no longer in sight.

        Only steps that the incident itself calls for; what a person asked for, a person asks for again.
        """
        now, done = self._home.clock(), []
        for action in self._actions.of(states=["failed"]):
            if now - action.requested_at > RETRY_WITHIN:
                continue
            incident = self._incidents.get(action.incident_id)
            due = action.level in plan(incident) and self._worth_asking(action, incident)
            if due and incident.state is not State.RESOLVED:
                done.append(self.act(incident, action.level, principal=principal))
        return done

    def renew(self) -> None:
        """Assert again what would not last by itself: a cordon. A cluster that is away is asked next time.

        Not while the kill switch is on: then nothing of level 3 and up is done, this included.
        """
        if not self._clearance.killed():
            self._execution.renew()

    def recover(self) -> list[Action]:
        """Finish steps whose process died in the middle. Run at every start of a monitor."""
        finished = []
        for action in self._actions.abandoned():
            claimed = self._actions.claim(action, action.state)
            if claimed is None:
                continue
            incident, rung = self._incidents.get(action.incident_id), LADDER[action.level]
            on_record(self._home, claimed, "recovered", {})
            again = self._execution.execute if action.state == "executing" else self._execution.take_back
            finished.append(again(claimed, incident, rung))
        return finished

    def _worth_asking(self, before: Action, incident: Incident) -> bool:
        if before.state == "requested":
            return True  # asked for and never decided: a crash
        if before.state == "failed":
            tried = before.executed_at or before.requested_at
            return self._home.clock() - tried >= RETRY
        return before.state in OPEN_STATES and before.result.get("shape") != _shape(incident)

    def _settle(self, action: Action, state: str, result: Mapping[str, Any], decision_id: str) -> Action:
        moved = self._actions.move(action.id, OPEN_STATES, state, decision_id=decision_id, result=result)
        settled = moved or self._actions.get(action.id)
        on_record(self._home, settled, state, {"reasons": result["reasons"]})
        return settled

    def _rehearsed(self, incident: Incident, rung: Rung, decision: Decision, playbook: str | None) -> Action:
        reasons = [reason.to_json() for reason in decision.reasons]
        action = Action(
            id="",
            incident_id=incident.id,
            level=rung.level,
            name=rung.name,
            state="dry-run" if decision.allow else "denied",
            decision_id=decision.decision_id,
            requested_at=self._home.clock(),
            executed_at=None,
            expires_at=None,
            undone_at=None,
            result={"reasons": reasons, "playbook": playbook, "would_do": rung.title},
        )
        on_record(self._home, action, "dry-run", {"reasons": reasons})
        return action


def _shape(incident: Incident) -> str:
    """What a decision depends on: asked again only when it changes."""
    return f"{incident.severity}:{','.join(incident.channels)}"
