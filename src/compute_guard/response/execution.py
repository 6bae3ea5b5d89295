"""Execution: a claimed step is put into the audit log, carried out, looked at, and written down again.

Levels 0 to 2 write (evidence, notices, a request to acknowledge); from level 3 up the effect is on the
cluster (:mod:`compute_guard.response.containment`), with evidence collected before and after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from compute_guard.incidents.casefile import CaseFile
from compute_guard.incidents.incident import Incident
from compute_guard.incidents.store import Incidents
from compute_guard.response.actions import Action, Actions
from compute_guard.response.containment import Containment
from compute_guard.response.playbooks import Rung
from guard_core.clock import rfc3339
from guard_core.errors import GuardError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home

ACKNOWLEDGE_WITHIN: Final = timedelta(hours=1)


class Execution:
    """Carries claimed steps out in one home."""

    def __init__(
        self, home: Home, actions: Actions, incidents: Incidents, case: CaseFile, containment: Containment
    ) -> None:
        self._home = home
        self._actions = actions
        self._incidents = incidents
        self._case = case
        self._containment = containment

    def execute(self, action: Action, incident: Incident, rung: Rung) -> Action:
        """Carry the claimed step out. Done again after a crash, it changes nothing more."""
        on_record(self._home, action, "executing", {"playbook": action.result.get("playbook")})
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

    def take_back(self, action: Action, incident: Incident, rung: Rung) -> Action:
        """Undo the claimed step's effect; it ends as undone or expired, or stays done with an error."""
        on_record(self._home, action, "undoing", {})
        try:
            effect = self._containment.undo(rung.name, incident, action.result)
        except GuardError as error:
            return self._finish(action, "done", {"undo_error": str(error)}, undo=True)
        if not effect.get("verified"):
            return self._finish(action, "done", {"undo_error": "it was not seen to be undone"}, undo=True)
        end = str(action.result.get("ends_as", "undone"))
        return self._finish(action, end, {"undo": effect}, undo=True)

    def renew(self) -> None:
        """Assert again what would not last by itself: a cordon. A cluster that is away is asked next time."""
        for action in self._actions.of(states=["done"], name="cordon"):
            if "node_id" in action.result:
                with suppress(GuardError):
                    self._containment.renew(action.result)

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
        on_record(self._home, moved, state, {k: v for k, v in result.items() if k != "claim"})
        return moved


def on_record(home: Home, action: Action, phase: str, data: Mapping[str, Any]) -> None:
    """Put a step's phase into the audit log; raises when it cannot be written, and then nothing follows."""
    about = {"incident": action.incident_id, "level": action.level, "action": action.name, "phase": phase}
    home.audit.event(
        "response.action",
        subject=action.id or action.incident_id,
        data={**about, **data},
        enforcement=Enforcement.COOPERATIVE,
        decision_id=action.decision_id,
    )
