"""The response ladder, and which of its steps an incident calls for. Pure.

``opa_policies/data/playbooks.yaml`` says how many approvals a level needs and which playbooks were authorised
beforehand; policy enforces both. Here is only what to *ask* for: asking for too much is refused, never done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from compute_guard.incidents.incident import Incident


@dataclass(frozen=True, slots=True)
class Rung:
    """One level of the ladder. ``lifetime``: how long its effect lasts before it is undone by itself."""

    level: int
    name: str
    title: str
    lifetime: timedelta | None = None
    reversible: bool = True


LADDER: Final = (
    Rung(0, "record", "record the incident"),
    Rung(1, "notify", "draft notices to the owner and the regulator", reversible=False),
    Rung(2, "acknowledge", "ask the owner to acknowledge"),
    Rung(3, "throttle", "move the job to the end of its line", timedelta(hours=4)),
    Rung(4, "suspend", "admit nothing more from the tenant's queues", timedelta(hours=4)),
    Rung(5, "stop", "stop the job", reversible=False),
    Rung(6, "quarantine", "hold all of the tenant's queues until released", timedelta(hours=24)),
    Rung(7, "cordon", "take the node out of scheduling", timedelta(hours=24)),
)
RUNG_BY_NAME: Final = {rung.name: rung for rung in LADDER}

STEPS: Final[Mapping[str, tuple[int, ...]]] = {
    "mining": (0, 1, 2, 5),
    "telemetry_contradiction": (0, 1, 2),
    "unattributed_process": (0, 1, 2),
    "idle_hoard": (0, 1, 2),
    "cross_tenant": (0, 1, 2, 5),
}
"""Levels to ask for by kind, for severity ``incident``; what they need to be granted is policy's.

Throttling is not a step for mining: it moves waiting jobs, and a miner is running.
"""


def plan(incident: Incident) -> tuple[int, ...]:
    """The levels to ask for, in order. A warning is recorded and notified; over budget, only recorded.

    The alert budget never silences an ``incident``.
    """
    if incident.severity != "incident":
        return (0,) if incident.evidence.get("over_budget") else (0, 1)
    return STEPS.get(incident.kind, (0, 1, 2))


def choose_playbook(config: Mapping[str, Any], incident: Incident, level: int, now: datetime) -> str | None:
    """Name of the first playbook that authorises ``level`` for ``incident`` beforehand, or None.

    Only for steps of the incident's own plan: what a person asks for beyond it, people approve.
    ``config`` is ``data.guard.config.playbooks``. Policy checks the choice again.
    """
    if level > 5 or incident.severity != "incident" or level not in plan(incident):
        return None
    for name, book in sorted(config.get("playbooks", {}).items()):
        covered = _covers(book["kinds"], incident.kind) and _covers(book["tenants"], incident.tenant)
        valid = book["enabled"] and now < datetime.fromisoformat(str(book["expires"]))
        if valid and covered and level <= book["max_level"]:
            return str(name)
    return None


def _covers(names: list[str], name: str) -> bool:
    return "*" in names or name in names
