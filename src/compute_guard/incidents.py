"""Incidents: one per (tenant, job, kind), from signals to resolved, kept in the home's storage.

Signals of one moment are merged (:func:`merge`), a hysteresis keeps a flickering signal from opening and
closing (:class:`Hysteresis`), and :class:`Incidents` stores the result. A ``warning`` is one channel of
evidence; an ``incident`` is a broken invariant, two independent channels, or one that a person has confirmed.
Severity rises and never falls while an incident is open.

Opening is idempotent and safe between processes: the identifier follows from what the incident is about, and
the storage refuses a second open one. The audit event comes first: nothing exists that is not on record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from compute_guard.usage.attribution import LeaseBook
from compute_guard.usage.detectors.base import Signal
from guard_core.clock import Clock, rfc3339
from guard_core.errors import UserError
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.storage.tables import IncidentRow

MITRE: Final[Mapping[str, tuple[str, ...]]] = {
    "mining": ("T1496.001",),
    "telemetry_contradiction": ("T1565.002", "T1496.001"),
    "unattributed_process": ("T1496.001",),
    "abnormal_export": ("T1041",),
    "off_hours": ("T1078",),
    "new_entrypoint": ("T1059",),
    "submission_burst": ("T1496.001",),
    "control_plane_abuse": ("T1110", "T1059.004"),
    "sensor_integrity": ("T1565.002", "T1574.006", "T1562.006"),
    "cross_tenant": ("T1078", "T1496.001"),
    "atypical_load": ("T1496.001",),
    "dataset_withdrawn": (),
}
"""MITRE ATT&CK techniques by kind: T1496.001 Compute Hijacking, T1565.002 Transmitted Data Manipulation,
T1041 Exfiltration Over C2 Channel, T1078 Valid Accounts, T1059 Command and Scripting Interpreter (.004 Unix
Shell), T1110 Brute Force, T1574.006 Dynamic Linker Hijacking, T1562.006 Indicator Blocking."""

Key = tuple[str, str, str]
"""``(tenant, job, kind)``."""


class State(StrEnum):
    """``open -> acknowledged -> contained -> resolved``; any state may go straight to resolved."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CONTAINED = "contained"
    RESOLVED = "resolved"

    @property
    def rank(self) -> int:
        """0 to 3: an incident never goes back."""
        return list(State).index(self)


SEVERITIES: Final = ("info", "warning", "incident")


def severity_of(channels: Iterable[str], *, invariant: bool, confirmed: bool) -> str:
    """``incident`` for a broken invariant, two independent channels or a person's confirmation."""
    return "incident" if invariant or confirmed or len(set(channels)) >= 2 else "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All signals of one (tenant, job, kind) at one moment, merged."""

    tenant: str
    job: str
    kind: str
    rule_ids: tuple[str, ...]
    channels: Mapping[str, Mapping[str, Any]]
    devices: tuple[str, ...]
    score: int
    invariant: bool
    synthetic: bool
    at_ns: int

    @property
    def key(self) -> Key:
        """What the incident is about."""
        return (self.tenant, self.job, self.kind)


def merge(signals: Iterable[Signal], book: LeaseBook, at_ns: int) -> tuple[Observation, ...]:
    """Signals as observations, one per (tenant, job, kind), sorted by key.

    A signal about a device concerns every job with a lease there; on an unleased device it is nobody's.
    """
    grouped: dict[Key, list[Signal]] = {}
    for signal in signals:
        for tenant, job in _owners(signal, book, at_ns):
            grouped.setdefault((tenant, job, signal.kind), []).append(signal)
    return tuple(_merged(key, grouped[key], at_ns) for key in sorted(grouped))


def _owners(signal: Signal, book: LeaseBook, at_ns: int) -> list[tuple[str, str]]:
    if signal.tenant:
        return [(signal.tenant, signal.job)]
    leases = book.on(signal.device, at_ns)
    holders = {(lease.tenant or "unattributed", lease.job) for lease in leases}
    return sorted(holders) or [("unattributed", signal.device)]


def _merged(key: Key, signals: Sequence[Signal], at_ns: int) -> Observation:
    strongest: dict[str, Signal] = {}
    for signal in sorted(signals, key=lambda s: (s.score, s.device)):
        strongest[signal.channel] = signal
    return Observation(
        tenant=key[0],
        job=key[1],
        kind=key[2],
        rule_ids=tuple(sorted({s.rule_id for s in signals})),
        channels={
            name: {
                "message": s.message,
                **({"message_zh": s.message_zh} if s.message_zh else {}),
                "device": s.device,
                "score": s.score,
                **s.evidence,
            }
            for name, s in sorted(strongest.items())
        },
        devices=tuple(sorted({s.device for s in signals if s.device})),
        score=max(s.score for s in signals),
        invariant=any(s.invariant for s in signals),
        synthetic=any(s.synthetic for s in signals),
        at_ns=at_ns,
    )


@dataclass(slots=True)
class Hysteresis:
    """Raises after ``raise_after`` moments in a row, clears after ``clear_after`` without. In memory only:

    after a restart a streak begins anew, which delays an opening by a sample or two and loses nothing.
    """

    raise_after: int = 2
    clear_after: int = 8
    _streak: dict[Key, int] = field(default_factory=dict)
    _quiet: dict[Key, int] = field(default_factory=dict)

    def step(self, observed: Sequence[Observation]) -> tuple[tuple[Observation, ...], tuple[Key, ...]]:
        """What is raised now (every moment while it lasts), and which keys have just cleared."""
        seen = {observation.key: observation for observation in observed}
        for key in seen:
            self._streak[key] = self._streak.get(key, 0) + 1
            self._quiet[key] = 0
        cleared = []
        for key in [key for key in self._streak if key not in seen]:
            self._quiet[key] = self._quiet.get(key, 0) + 1
            raised = self._streak[key] >= self.raise_after
            if not raised or self._quiet[key] >= self.clear_after:
                if raised:
                    cleared.append(key)
                del self._streak[key], self._quiet[key]
        raised_now = [o for key, o in sorted(seen.items()) if self._streak[key] >= self.raise_after]
        return tuple(raised_now), tuple(cleared)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """An incident as stored."""

    id: str
    tenant: str
    job: str
    kind: str
    state: State
    severity: str
    score: int
    opened_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    evidence: Mapping[str, Any]

    @property
    def synthetic(self) -> bool:
        """Whether any evidence was made up (a drill or a demonstration)."""
        return bool(self.evidence.get("synthetic"))

    @property
    def channels(self) -> tuple[str, ...]:
        """Independent sources of evidence, sorted."""
        return tuple(sorted(self.evidence.get("channels", {})))

    def to_input(self) -> dict[str, Any]:
        """What policy sees as ``input.incident``."""
        return {
            "id": self.id,
            "kind": self.kind,
            "tenant": self.tenant,
            "job": self.job,
            "severity": self.severity,
            "state": self.state.value,
            "score": self.score,
            "channels": list(self.channels),
            "synthetic": self.synthetic,
        }

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape (docs/admin/incidents.md)."""
        return {
            **self.to_input(),
            "rule_ids": list(self.evidence.get("rule_ids", [])),
            "mitre_techniques": list(MITRE.get(self.kind, ())),
            "opened_at": rfc3339(self.opened_at),
            "updated_at": rfc3339(self.updated_at),
            "closed_at": None if self.closed_at is None else rfc3339(self.closed_at),
            "evidence": dict(self.evidence),
        }


class Incidents:
    """The incidents of one home."""

    def __init__(self, home: Home, *, clock: Clock | None = None, budget_per_day: int = 20) -> None:
        self._home = home
        self._clock = clock or home.clock
        self._budget = budget_per_day

    def observe(self, seen: Observation) -> Incident:
        """Open an incident for ``seen``, or bring the open one up to date. Idempotent."""
        from sqlalchemy.exc import IntegrityError

        found = self.open_one(seen.key)
        if found is None:
            found = self._opening(seen)
            self._record("incident.opened", found)
            try:
                with self._home.storage.session() as session:
                    session.add(_row(found))
                return found
            except IntegrityError:  # another process was first
                existing = self.open_one(seen.key)
                if existing is None:
                    raise
                found = existing
        return self._update(found, seen)

    def _opening(self, seen: Observation) -> Incident:
        from sqlalchemy import func, select

        from guard_core.storage.tables import IncidentRow

        now = self._clock()
        same = (IncidentRow.tenant == seen.tenant, IncidentRow.job == seen.job, IncidentRow.kind == seen.kind)
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        with self._home.storage.reading() as session:
            earlier = session.scalar(select(func.count()).select_from(IncidentRow).where(*same)) or 0
            spent = select(func.count()).select_from(IncidentRow)
            spent = spent.where(IncidentRow.tenant == seen.tenant, IncidentRow.opened_at >= today)
            over = (session.scalar(spent) or 0) >= self._budget
        name = "\x1f".join((*seen.key, str(earlier)))
        moment = _moment(seen.at_ns)
        severity = severity_of(seen.channels, invariant=seen.invariant, confirmed=False)
        return Incident(
            id=f"inc-{hashlib.sha256(name.encode()).hexdigest()[:20]}",
            tenant=seen.tenant,
            job=seen.job,
            kind=seen.kind,
            state=State.OPEN,
            severity=severity,
            score=seen.score,
            opened_at=now,
            updated_at=now,
            closed_at=None,
            evidence={
                "rule_ids": list(seen.rule_ids),
                "channels": {name: dict(value) for name, value in seen.channels.items()},
                "devices": list(seen.devices),
                "invariant": seen.invariant,
                "synthetic": seen.synthetic,
                "first_seen": moment,
                "last_seen": moment,
                "incident_since": moment if severity == "incident" else None,
                "over_budget": over,
                "history": [],
            },
        )

    def _update(self, found: Incident, seen: Observation) -> Incident:
        """Take new channels, devices and a higher score; nothing that was known is lost."""
        grown = _grown(found, seen)
        new_device = not set(seen.devices) <= set(found.evidence["devices"])
        if grown["severity"] != found.severity or grown["channels"] != list(found.channels):
            self._record("incident.grew", found, **grown)
        elif not new_device and self._clock() - found.updated_at < _QUIET:
            return found

        def change(now: Incident) -> dict[str, Any]:
            before = now.evidence
            evidence = {
                **before,
                "rule_ids": sorted({*before["rule_ids"], *seen.rule_ids}),
                "channels": {**before["channels"], **{k: dict(v) for k, v in seen.channels.items()}},
                "devices": sorted({*before["devices"], *seen.devices}),
                "invariant": before["invariant"] or seen.invariant,
                "synthetic": before["synthetic"] or seen.synthetic,
                "last_seen": max(before["last_seen"], _moment(seen.at_ns)),
            }
            severity = _grown(now, seen)["severity"]
            if severity == "incident" and before.get("incident_since") is None:
                evidence["incident_since"] = _moment(seen.at_ns)
            return {"severity": severity, "score": max(now.score, seen.score), "evidence": evidence}

        return self._change(found.id, change)

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

        return self._change(found.id, change)

    def contain(self, incident_id: str, *, action_id: str) -> Incident:
        """An action has been verified to have worked. Idempotent."""
        found = self.get(incident_id)
        if found.state.rank >= State.CONTAINED.rank:
            return found
        self._record("incident.contained", found, action=action_id)
        return self._change(
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

        return self._change(found.id, change)

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

        return self._change(found.id, change)

    def annotate(self, incident_id: str, **evidence: Any) -> Incident:
        """Add members to the evidence (paths of notices, of the bundle)."""
        return self._change(incident_id, lambda now: {"evidence": {**now.evidence, **evidence}})

    def get(self, incident_id: str) -> Incident:
        """The incident. Raises UserError when there is none."""
        from guard_core.storage.tables import IncidentRow

        with self._home.storage.reading() as session:
            row = session.get(IncidentRow, incident_id)
            if row is None:
                raise UserError(f"there is no incident {incident_id!r}; see: trainguard incident list")
            return _incident(row)

    def open_one(self, key: Key) -> Incident | None:
        """The open incident about ``key``, if any."""
        from sqlalchemy import select

        from guard_core.storage.tables import IncidentRow

        query = select(IncidentRow).where(
            IncidentRow.tenant == key[0],
            IncidentRow.job == key[1],
            IncidentRow.kind == key[2],
            IncidentRow.closed_at.is_(None),
        )
        with self._home.storage.reading() as session:
            row = session.scalars(query).first()
            return None if row is None else _incident(row)

    def list(self, *, tenant: str | None = None, open_only: bool = False) -> list[Incident]:
        """Incidents, newest first."""
        from sqlalchemy import select

        from guard_core.storage.tables import IncidentRow

        query = select(IncidentRow).order_by(IncidentRow.opened_at.desc(), IncidentRow.id)
        if tenant is not None:
            query = query.where(IncidentRow.tenant == tenant)
        if open_only:
            query = query.where(IncidentRow.closed_at.is_(None))
        with self._home.storage.reading() as session:
            return [_incident(row) for row in session.scalars(query)]

    def _change(self, incident_id: str, change: Callable[[Incident], Mapping[str, Any]]) -> Incident:
        """Apply ``change`` to the incident as the transaction sees it, so no other writer is overwritten."""
        from guard_core.storage.tables import IncidentRow

        with self._home.storage.session() as session:
            row = session.get(IncidentRow, incident_id, with_for_update=True)
            if row is None:
                raise UserError(f"there is no incident {incident_id!r}; see: trainguard incident list")
            for name, value in change(_incident(row)).items():
                setattr(row, name, value.value if isinstance(value, State) else value)
            row.updated_at = self._clock()
            session.flush()
            return _incident(row)

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


_QUIET: Final = timedelta(
    seconds=60
)  # an incident that only goes on is written once a minute, not every scrape


def _grown(found: Incident, seen: Observation) -> dict[str, Any]:
    """Severity and channels after ``seen``. Severity never falls."""
    channels = {*found.channels, *seen.channels}
    invariant = bool(found.evidence["invariant"]) or seen.invariant
    now = severity_of(channels, invariant=invariant, confirmed=bool(found.evidence.get("confirmed_by")))
    return {"severity": max(found.severity, now, key=SEVERITIES.index), "channels": sorted(channels)}


def _moment(at_ns: int) -> str:
    return rfc3339(datetime.fromtimestamp(at_ns // 1_000_000_000, UTC))


def _row(found: Incident) -> IncidentRow:
    from guard_core.storage.tables import IncidentRow

    return IncidentRow(
        id=found.id,
        tenant=found.tenant,
        job=found.job,
        kind=found.kind,
        state=found.state.value,
        severity=found.severity,
        score=found.score,
        opened_at=found.opened_at,
        updated_at=found.updated_at,
        closed_at=found.closed_at,
        evidence=dict(found.evidence),
    )


def _incident(row: IncidentRow) -> Incident:
    return Incident(
        id=row.id,
        tenant=row.tenant,
        job=row.job,
        kind=row.kind,
        state=State(row.state),
        severity=row.severity,
        score=int(row.score),
        opened_at=row.opened_at,
        updated_at=row.updated_at,
        closed_at=row.closed_at,
        evidence=dict(row.evidence),
    )
