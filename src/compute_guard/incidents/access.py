"""Who may see an incident, and who may act upon it: its own tenant sees it, those who respond do both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guard_core.errors import Denied

if TYPE_CHECKING:
    from compute_guard.incidents.incident import Incident
    from guard_core.home import Home
    from guard_core.identity import Principal

RESPONDERS: Final = ("platform-admin", "incident-approver", "incident-responder")


def visible(home: Home, incident_id: str, who: Principal) -> Incident:
    """The incident, if ``who`` may see it; another tenant's does not exist for them."""
    from compute_guard.incidents.rows import unknown
    from compute_guard.incidents.store import Incidents

    found = Incidents(home).get(incident_id)
    if found.tenant != who.tenant and not set(who.roles) & set(RESPONDERS):
        raise unknown(incident_id)
    return found


def needs(who: Principal, what: str) -> None:
    """Raises Denied unless ``who`` is one of those who respond to incidents."""
    if not set(who.roles) & set(RESPONDERS):
        raise Denied(f"{who.user} of tenant {who.tenant} may not {what}; one of {', '.join(RESPONDERS)} may")
