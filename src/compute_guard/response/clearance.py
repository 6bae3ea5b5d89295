"""Clearance: whether a step of the ladder may be taken now, and whose approval of it counts.

Policy decides, at ``guard/response/action/decision``. What policy is not even asked for is stopped here:
levels 3 and up under a kill switch, and made-up evidence against tenants that are no canaries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from compute_guard.incidents.incident import Incident
from compute_guard.response.actions import Actions
from compute_guard.response.playbooks import Rung
from guard_core.clock import to_ns
from guard_core.errors import Denied
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.policy.decision import Decision

POLICY: Final = "guard/response/action/decision"
KILL_SWITCH: Final = ("response", "kill-switch")


class Clearance:
    """Clears steps in one home. ``synthetic_may_act``: see :mod:`compute_guard.response.responder`."""

    def __init__(self, home: Home, actions: Actions, *, synthetic_may_act: bool) -> None:
        self._home = home
        self._actions = actions
        self._synthetic_may_act = synthetic_may_act

    def decide(
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
        """Put the step to policy, with its approvals, its playbook and the blast so far."""
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

    def brake(self, incident: Incident) -> dict[str, str] | None:
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

    def killed(self) -> bool:
        """Whether a kill switch stops levels 3 and up: this home's, or that of policy data."""
        return self._home.path(*KILL_SWITCH).exists() or self.config().get("kill_switch") is not False

    def approver_role(self, approver: Principal, incident: Incident) -> str:
        """The role in which the approval of ``approver`` counts. Raises Denied when it has none."""
        counted = [r for r in approver.roles if r in self.config().get("approver_roles", [])]
        if approver.tenant != incident.tenant:  # a tenant's admin speaks for that tenant only
            counted = [role for role in counted if role != "tenant-admin"]
        if approver.kind == "job" or not counted:
            raise Denied(f"{approver.user} has no role whose approval counts for tenant {incident.tenant}")
        return counted[0]

    def requester(self, asked_by: Mapping[str, Any]) -> Principal:
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

    def config(self) -> Mapping[str, Any]:
        """Policy data of the playbooks: ``data.guard.config.playbooks``."""
        found = self._home.policy_data().get("playbooks", {})
        return found if isinstance(found, Mapping) else {}


def is_canary(home: Home, tenant: str) -> bool:
    """Whether policy data flags ``tenant`` as one that exists for drills."""
    return home.tenants().get(tenant, {}).get("canary") is True


def _ns(moment: str) -> int:
    return to_ns(datetime.fromisoformat(moment))
