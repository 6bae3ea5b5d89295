"""Response: the ladder's steps, each decided by policy, on record first, done once, looked at afterwards.

A step is asked for (:meth:`Responder.act`), put to ``guard/response/action/decision`` with its approvals,
its playbook and the blast so far, claimed, put into the audit log, carried out, verified, and written down
again. After ``kill -9`` anywhere in between, :meth:`Responder.recover` finds the claim and finishes the step;
effects set states, so a repeated one changes nothing. Steps expire and can be undone; a kill switch stops
levels 3 and up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from compute_guard.actions import OPEN_STATES, Action, Actions
from compute_guard.casefile import CaseFile
from compute_guard.containment import Containment
from compute_guard.incidents import Incident, Incidents, State
from compute_guard.playbooks import LADDER, Rung, choose_playbook, plan
from guard_core.clock import rfc3339, to_ns
from guard_core.errors import Denied, GuardError, Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from compute_guard.ray_plugin.jobs import ClusterActions
    from guard_core.home import Home
    from guard_core.policy.decision import Decision

POLICY: Final = "guard/response/action/decision"
KILL_SWITCH: Final = ("response", "kill-switch")
RETRY: Final = timedelta(seconds=30)
RETRY_WITHIN: Final = timedelta(hours=1)
"""For so long a failed step is tried again although its cause is no longer seen."""
ACKNOWLEDGE_WITHIN: Final = timedelta(hours=1)


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
        self._case = case_file or CaseFile(home)
        self._actions = Actions(home.storage, home.clock)
        self._containment = Containment(home, cluster)
        self._synthetic_may_act = synthetic_may_act

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
        playbook = choose_playbook(self._config(), incident, level, self._home.clock())
        if dry_run:
            decision = self._decide(
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
        if level >= 3 and (obstacle := self._brake(incident)):
            return self._settle(action, "blocked", {**shape, "reasons": [obstacle]}, "")
        decision = self._decide(
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
        return self._execute(replace(claimed, result={**claimed.result, **shape}), incident, rung)

    def steps(self, incident: Incident) -> list[Action]:
        """The incident's steps so far, oldest first."""
        return self._actions.of(incident.id)

    def approve(self, action_id: str, approver: Principal) -> Action:
        """Add a person's approval and try the step again in the name of who asked for it.

        Raises Denied when this person's approval cannot count, UserError when the step waits for none.
        """
        action = self._actions.get(action_id)
        incident = self._incidents.get(action.incident_id)
        role = self._approver_role(approver, incident)
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
        self._audit(action, "approved", {"approval": given})
        self._actions.approve(action_id, given)
        return self.act(incident, action.level, principal=self._requester(asked_by))

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
        decision = self._decide(incident, undoing, (), None, principal, dry_run=False, subject=action.id)
        if decision.undecidable:
            raise Undecidable(f"action {action_id} was not undone: {decision.explain()}")
        if not decision.allow:
            raise Denied(f"action {action_id} was not undone: {decision.explain()}", decision.decision_id)
        claimed = self._actions.claim(action, "undoing", decision_id=decision.decision_id)
        if claimed is None:
            return self._actions.get(action_id)
        end = "expired" if expired else "undone"
        marked = {**claimed.result, "ends_as": end}
        return self._take_back(replace(claimed, result=marked), incident, rung)

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
        if self._home.path(*KILL_SWITCH).exists() or self._config().get("kill_switch") is not False:
            return
        for action in self._actions.of(states=["done"]):
            if action.name == "cordon" and "node_id" in action.result:
                with suppress(GuardError):
                    self._containment.renew(action.result)

    def recover(self) -> list[Action]:
        """Finish steps whose process died in the middle. Run at every start of a monitor."""
        finished = []
        for action in self._actions.abandoned():
            claimed = self._actions.claim(action, action.state)
            if claimed is None:
                continue
            incident, rung = self._incidents.get(action.incident_id), LADDER[action.level]
            self._audit(claimed, "recovered", {})
            again = self._execute if action.state == "executing" else self._take_back
            finished.append(again(claimed, incident, rung))
        return finished

    # --- carrying out -------------------------------------------------------------------------------

    def _execute(self, action: Action, incident: Incident, rung: Rung) -> Action:
        self._audit(action, "executing", {"playbook": action.result.get("playbook")})
        try:
            effect = self._effect(incident, rung)
        except GuardError as error:
            return self._finish(action, "failed", {"error": str(error)})
        if effect.get("verified") is False:
            return self._finish(action, "failed", {**effect, "error": "it was not seen to have worked"})
        done = self._finish(action, "done", effect, lifetime=rung.lifetime)
        if rung.level >= 5:
            incident = self._incidents.contain(incident.id, action_id=action.id)
        if rung.level >= 3:
            self._case.collect(self._incidents.get(incident.id), "after")
            self._case.draft_notices(self._incidents.get(incident.id))
        return done

    def _effect(self, incident: Incident, rung: Rung) -> dict[str, Any]:
        if rung.level == 0:
            return {}  # the record is the audit event that is already written
        if rung.level == 1:
            self._case.collect(incident, "before")
            return {"notices": self._case.draft_notices(incident)}
        if rung.level == 2:
            due = rfc3339(self._home.clock() + ACKNOWLEDGE_WITHIN)
            self._incidents.annotate(incident.id, acknowledge_by=due)
            return {"acknowledge_by": due, "notices": self._case.draft_notices(incident)}
        self._case.collect(incident, "before")
        return self._containment.carry_out(rung.name, incident, reason=f"TrainGuard incident {incident.id}")

    def _take_back(self, action: Action, incident: Incident, rung: Rung) -> Action:
        self._audit(action, "undoing", {})
        try:
            effect = self._containment.undo(rung.name, incident, action.result)
        except GuardError as error:
            return self._finish(action, "done", {"undo_error": str(error)}, undo=True)
        if not effect.get("verified"):
            return self._finish(action, "done", {"undo_error": "it was not seen to be undone"}, undo=True)
        end = str(action.result.get("ends_as", "undone"))
        return self._finish(action, end, {"undo": effect}, undo=True)

    def _finish(
        self,
        action: Action,
        state: str,
        result: Mapping[str, Any],
        *,
        lifetime: timedelta | None = None,
        undo: bool = False,
    ) -> Action:
        now = self._home.clock()
        values: dict[str, Any] = {"undone_at" if undo else "executed_at": now}
        if undo and state == "done":
            values = {}
        if lifetime is not None:
            values["expires_at"] = now + lifetime
        kept = {k: v for k, v in action.result.items() if k in ("shape", "playbook", "asked_at")}
        kept["reasons"] = []  # what it lacked before it was granted is in the audit log
        if state == "done" and not undo:
            kept["error"] = ""  # as is why an earlier try failed
        moved = self._actions.move(
            action.id,
            [action.state],
            state,
            seen_claim=action.result.get("claim"),
            result={**kept, **result},
            **values,
        )
        if moved is None:  # another process took the step over when our claim ran out
            return self._actions.get(action.id)
        self._audit(moved, state, {k: v for k, v in result.items() if k != "claim"})
        return moved

    # --- deciding -----------------------------------------------------------------------------------

    def _decide(
        self,
        incident: Incident,
        rung: Rung,
        approvals: Sequence[Mapping[str, Any]],
        playbook: str | None,
        principal: Principal,
        *,
        dry_run: bool,
        subject: str,
    ) -> Decision:
        node = next((d.split("/", 1)[0] for d in incident.evidence["devices"] if "/" in d), None)
        target = {"tenant": incident.tenant, "job": incident.job, "node": node}
        return self._home.decide(
            POLICY,
            {
                "action": {"level": rung.level, "name": rung.name, "target": target},
                "incident": incident.to_input(),
                "approvals": [
                    {"by": a["by"], "role": a["role"], "at_ns": _ns(str(a["at"]))} for a in approvals
                ],
                "playbook": None if playbook is None else {"name": playbook},
                "blast": self._blast(incident),
                "dry_run": dry_run,
            },
            principal=principal,
            enforcement=Enforcement.COOPERATIVE,
            subject=subject,
        )

    def _blast(self, incident: Incident) -> dict[str, int]:
        """Steps of level 3 and up in the last hour, and the tenants they and this one touch."""
        since = self._home.clock() - timedelta(hours=1)
        recent = [
            action
            for action in self._actions.of(states=["executing", "done", "undoing", "undone", "expired"])
            if action.level >= 3 and (action.executed_at or action.requested_at) >= since
        ]
        tenants = {str(action.result.get("target", {}).get("tenant", "")) for action in recent}
        return {"actions_last_hour": len(recent), "tenants_affected": len(tenants | {incident.tenant})}

    def _brake(self, incident: Incident) -> dict[str, str] | None:
        """Why a step of level 3 or up must not even be asked for."""
        if self._home.path(*KILL_SWITCH).exists():
            return {
                "rule": "kill-switch",
                "msg": "the kill switch of this home is on; see: response kill-switch",
            }
        if incident.synthetic and not self._synthetic_may_act and not is_canary(self._home, incident.tenant):
            msg = f"made-up telemetry may act on canary tenants only, and {incident.tenant} is none"
            return {"rule": "synthetic-evidence", "msg": msg}
        return None

    def _approver_role(self, approver: Principal, incident: Incident) -> str:
        counted = [r for r in approver.roles if r in self._config().get("approver_roles", [])]
        if approver.tenant != incident.tenant:  # a tenant's admin speaks for that tenant only
            counted = [role for role in counted if role != "tenant-admin"]
        if approver.kind == "job" or not counted:
            raise Denied(f"{approver.user} has no role whose approval counts for tenant {incident.tenant}")
        return counted[0]

    def _requester(self, asked_by: Mapping[str, Any]) -> Principal:
        """Who asked, if their credential still stands: an approval revives no revoked request."""
        for credential in self._home.credentials.list():
            if credential.id == asked_by.get("credential_id"):
                state = credential.state(self._home.clock())
                if state != "active":
                    raise Denied(f"the credential that asked for this step is {state}; ask for it again")
                return Principal(
                    tenant=credential.tenant,
                    user=credential.user,
                    roles=credential.roles,
                    credential_id=credential.id,
                    kind=credential.kind,
                )
        raise Denied("the credential that asked for this step is not known here; ask for it again")

    # --- small parts --------------------------------------------------------------------------------

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
        self._audit(settled, state, {"reasons": result["reasons"]})
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
        self._audit(action, "dry-run", {"reasons": reasons})
        return action

    def _audit(self, action: Action, phase: str, data: Mapping[str, Any]) -> None:
        about = {"incident": action.incident_id, "level": action.level, "action": action.name, "phase": phase}
        self._home.audit.event(
            "response.action",
            subject=action.id or action.incident_id,
            data={**about, **data},
            enforcement=Enforcement.COOPERATIVE,
            decision_id=action.decision_id,
        )

    def _config(self) -> Mapping[str, Any]:
        found = self._home.policy_data().get("playbooks", {})
        return found if isinstance(found, Mapping) else {}


def is_canary(home: Home, tenant: str) -> bool:
    """Whether policy data flags ``tenant`` as one that exists for drills."""
    return home.tenants().get(tenant, {}).get("canary") is True


def _shape(incident: Incident) -> str:
    """What a decision depends on: asked again only when it changes."""
    return f"{incident.severity}:{','.join(incident.channels)}"


def _ns(moment: str) -> int:
    from datetime import datetime

    return to_ns(datetime.fromisoformat(moment))
