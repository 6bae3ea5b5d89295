"""Incidents: one per (tenant, job, kind), from the first observation to resolved, kept in the home's storage.

Opening is idempotent and safe between processes: the identifier follows from what the incident is about, and
the storage refuses a second open one. The audit event comes first: nothing exists that is not on record.
What an incident is, and how it grows, is :mod:`compute_guard.incidents.incident`'s.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from compute_guard.incidents.incident import Incident, State, grown, growth, opened
from compute_guard.incidents.observations import Key, Observation
from compute_guard.incidents.rows import IncidentRows
from guard_core.clock import Clock, rfc3339
from guard_core.errors import UserError
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from guard_core.home import Home

QUIET: Final = timedelta(seconds=60)
"""An incident that only goes on is written once a minute, not every scrape."""


class Incidents:
    """The incidents of one home."""

    def __init__(self, home: Home, *, clock: Clock | None = None, budget_per_day: int = 20) -> None:
        self._home = home
        self._clock = clock or home.clock
        self._rows = IncidentRows(home, self._clock)
        self._budget = budget_per_day

    def observe(self, seen: Observation) -> Incident:
        """Open an incident for ``seen``, or bring the open one up to date. Idempotent."""
        found = self.open_one(seen.key)
        if found is None:
            found = self._opening(seen)
            self._record("incident.opened", found)
            stored = self._rows.add(found)
            if stored is found:
                return found
            found = stored  # another process was first
        return self._update(found, seen)

    def _opening(self, seen: Observation) -> Incident:
        now = self._clock()
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        earlier, spent = self._rows.opened_before(seen.key, since=today)
        return opened(seen, now=now, earlier=earlier, over_budget=spent >= self._budget)

    def _update(self, found: Incident, seen: Observation) -> Incident:
        """Take new channels, devices and a higher score; nothing that was known is lost."""
        after = growth(found, seen)
        new_device = not set(seen.devices) <= set(found.evidence["devices"])
        if after["severity"] != found.severity or after["channels"] != list(found.channels):
            self._record("incident.grew", found, **after)
        elif not new_device and self._clock() - found.updated_at < QUIET:
            return found
        return self._rows.change(found.id, lambda now: grown(now, seen))

    def acknowledge(
        self, incident_id: str, by: Principal, *, confirm: bool = False, note: str = ""
    ) -> Incident:
        """A person has seen it; with ``confirm`` the person vouches that it is real. Idempotent."""
        found = self.get(incident_id)
        entry = self._entry("confirmed" if confirm else "acknowledged", by, note)
        self._record("incident.acknowledged", found, by=by.user, confirm=confirm)

        def change(now: Incident) -> dict[str, Any]:
            evidence = {**now.evidence, "history": [*now.evidence["history"], entry]}
            state = max(now.state, State.ACKNOWLEDGED, key=lambda s: s.rank)
            if not confirm:
                return {"state": state, "evidence": evidence}
            return {"state": state, "severity": "incident", "evidence": {**evidence, "confirmed_by": by.user}}

        return self._rows.change(found.id, change)

    def contain(self, incident_id: str, *, action_id: str) -> Incident:
        """An action has been verified to have worked. Idempotent."""
        found = self.get(incident_id)
        if found.state.rank >= State.CONTAINED.rank:
            return found
        self._record("incident.contained", found, action=action_id)
        return self._rows.change(
            found.id, lambda now: {"state": max(now.state, State.CONTAINED, key=lambda s: s.rank)}
        )

    def resolve(self, incident_id: str, *, by: Principal | None, note: str = "") -> Incident:
        """Close it: ``by`` a person, or by itself (None) when a mere warning has passed. Idempotent."""
        found = self.get(incident_id)
        if found.state is State.RESOLVED:
            return found
        if by is None and found.severity == "incident":
            raise UserError(f"incident {found.id} is not a mere warning; a person must resolve it")
        entry = self._entry("resolved", by, note)
        self._record("incident.resolved", found, by=by.user if by else "", note=note)

        def change(now: Incident) -> dict[str, Any]:
            evidence = {**now.evidence, "history": [*now.evidence["history"], entry]}
            return {"state": State.RESOLVED, "evidence": evidence, "closed_at": self._clock()}

        return self._rows.change(found.id, change)

    def notice_sent(self, incident_id: str, audience: str, by: Principal, *, note: str = "") -> Incident:
        """A person has released the notice to ``audience``. The first time counts."""
        found = self.get(incident_id)
        if audience in found.evidence.get("notices_sent", {}):
            return found
        entry = self._entry("sent", by, f"{audience}: {note}" if note else audience)
        about = {"audience": audience, "by": by.user, "note": note, "tenant": found.tenant}
        self._home.audit.event(
            "notice.sent", subject=found.id, data=about, enforcement=Enforcement.COOPERATIVE
        )

        def change(now: Incident) -> dict[str, Any]:
            before = now.evidence.get("notices_sent", {})
            told = {audience: {"at": entry["at"], "by": by.user}, **before}
            history = [*now.evidence["history"], entry]
            return {"evidence": {**now.evidence, "history": history, "notices_sent": told}}

        return self._rows.change(found.id, change)

    def annotate(self, incident_id: str, **evidence: Any) -> Incident:
        """Add members to the evidence (paths of notices, of the bundle)."""
        return self._rows.change(incident_id, lambda now: {"evidence": {**now.evidence, **evidence}})

    def get(self, incident_id: str) -> Incident:
        """The incident. Raises UserError when there is none."""
        return self._rows.get(incident_id)

    def open_one(self, key: Key) -> Incident | None:
        """The open incident about ``key``, if any."""
        return self._rows.open_one(key)

    def list(self, *, tenant: str | None = None, open_only: bool = False) -> list[Incident]:
        """Incidents, newest first."""
        return self._rows.list(tenant=tenant, open_only=open_only)

    def _record(self, kind: str, found: Incident, **data: Any) -> None:
        about = {
            "tenant": found.tenant,
            "job": found.job,
            "incident_kind": found.kind,
            "severity": found.severity,
            "synthetic": found.synthetic,
            "channels": list(found.channels),
        }
        self._home.audit.event(
            kind, subject=found.id, data={**about, **data}, enforcement=Enforcement.DETECTIVE
        )

    def _entry(self, what: str, by: Principal | None, note: str) -> dict[str, str]:
        return {"what": what, "by": by.user if by else "", "at": rfc3339(self._clock()), "note": note}
