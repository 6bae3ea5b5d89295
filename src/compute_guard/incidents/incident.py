"""An incident as a value: states, severity, how an observation opens it and another makes it grow. Pure.

A ``warning`` is one channel of evidence; an ``incident`` is a broken invariant, two independent channels, or
one that a person has confirmed. Severity rises and never falls while an incident is open. The identifier
follows from what the incident is about, so opening it twice gives the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from compute_guard.incidents.observations import Observation
from guard_core.clock import rfc3339

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
    "unusual_course": ("T1496.001",),
    "dataset_withdrawn": (),
}
"""MITRE ATT&CK techniques by kind: T1496.001 Compute Hijacking, T1565.002 Transmitted Data Manipulation,
T1041 Exfiltration Over C2 Channel, T1078 Valid Accounts, T1059 Command and Scripting Interpreter (.004 Unix
Shell), T1110 Brute Force, T1574.006 Dynamic Linker Hijacking, T1562.006 Indicator Blocking."""


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


def opened(seen: Observation, *, now: datetime, earlier: int, over_budget: bool) -> Incident:
    """The incident that ``seen`` opens; ``earlier`` ones were about the same, so its identifier differs."""
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
            "over_budget": over_budget,
            "history": [],
        },
    )


def growth(found: Incident, seen: Observation) -> dict[str, Any]:
    """Severity and channels after ``seen``. Severity never falls."""
    channels = {*found.channels, *seen.channels}
    invariant = bool(found.evidence["invariant"]) or seen.invariant
    now = severity_of(channels, invariant=invariant, confirmed=bool(found.evidence.get("confirmed_by")))
    return {"severity": max(found.severity, now, key=SEVERITIES.index), "channels": sorted(channels)}


def grown(now: Incident, seen: Observation) -> dict[str, Any]:
    """The fields of ``now`` that ``seen`` changes: new channels, devices, a higher score; nothing is lost."""
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
    severity = growth(now, seen)["severity"]
    if severity == "incident" and before.get("incident_since") is None:
        evidence["incident_since"] = _moment(seen.at_ns)
    return {"severity": severity, "score": max(now.score, seen.score), "evidence": evidence}


def _moment(at_ns: int) -> str:
    return rfc3339(datetime.fromtimestamp(at_ns // 1_000_000_000, UTC))
