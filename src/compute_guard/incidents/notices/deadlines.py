"""Which notices of an incident must still leave, and until when. Pure.

A warning concerns its owner and has no deadline. Closing an incident ends no deadline: what happened is still
to be told. That a notice has left is said by the person who sent it (``trainguard incident sent``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from compute_guard.incidents.incident import Incident
from compute_guard.incidents.notices import AUDIENCES, DEADLINE_HOURS
from guard_core.clock import rfc3339


@dataclass(frozen=True, slots=True)
class Due:
    """A notice to ``audience``; ``sent`` says when and by whom (``at``, ``by``), None: it has not left."""

    audience: str
    deadline: datetime
    sent: Mapping[str, str] | None

    def overdue(self, now: datetime) -> bool:
        """Whether it should have left."""
        return self.sent is None and now > self.deadline

    def to_json(self, now: datetime) -> dict[str, Any]:
        """The documented JSON shape (docs/admin/incidents.md)."""
        sent = self.sent or {}
        return {
            "audience": self.audience,
            "deadline": rfc3339(self.deadline),
            "sent_at": sent.get("at"),
            "sent_by": sent.get("by"),
            "overdue": self.overdue(now),
        }


def due(incident: Incident, hours: Mapping[str, int]) -> tuple[Due, ...]:
    """The notices that ``incident`` calls for; ``hours`` are the operator's, by audience. A drill's: none."""
    if incident.severity != "incident" or incident.synthetic:
        return ()
    sent = incident.evidence.get("notices_sent", {})
    until = {name: timedelta(hours=hours.get(name, DEADLINE_HOURS[name])) for name in AUDIENCES}
    return tuple(Due(name, incident.opened_at + until[name], sent.get(name)) for name in AUDIENCES)
