"""Drills by the calendar: which are due, and when each was last run.

``usage.yaml`` says ``drills: [{name, tenant, every_hours}]``. What was run is read from the drill reports, so
one run by hand counts too and nothing is remembered twice. A tenant that is no canary is refused by
:func:`compute_guard.drills.drill.run` whatever the schedule says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from compute_guard.drills.drill import DRILLS, DrillReport
from guard_core.errors import UserError

if TYPE_CHECKING:
    from guard_core.home import Home


@dataclass(frozen=True, slots=True)
class Planned:
    """A drill as scheduled, with how it last went; ``last`` is None when it never ran."""

    name: str
    tenant: str
    every: timedelta
    last: datetime | None
    passed: bool | None

    def due(self, now: datetime) -> bool:
        """Whether it is time."""
        return self.last is None or now - self.last >= self.every

    def to_json(self, now: datetime) -> dict[str, Any]:
        """For people and for ``drill due --format json``."""
        return {
            "name": self.name,
            "tenant": self.tenant,
            "every_hours": self.every / timedelta(hours=1),
            "last": None if self.last is None else self.last.isoformat(),
            "passed": self.passed,
            "due": self.due(now),
        }


def planned(home: Home) -> tuple[Planned, ...]:
    """The schedule. Raises UserError for a drill that does not exist."""
    last = latest(home)
    found = []
    for entry in home.policy_data().get("usage", {}).get("drills", ()):
        name, tenant = str(entry["name"]), str(entry["tenant"])
        if name not in DRILLS:
            raise UserError(f"usage.yaml schedules drill {name!r}; there are {', '.join(sorted(DRILLS))}")
        at, passed = last.get((name, tenant), (None, None))
        found.append(Planned(name, tenant, timedelta(hours=int(entry["every_hours"])), at, passed))
    return tuple(found)


def latest(home: Home) -> dict[tuple[str, str], tuple[datetime, bool]]:
    """When each (drill, tenant) last ran and whether it passed, from the reports."""
    found: dict[tuple[str, str], tuple[datetime, bool]] = {}
    for path in sorted(home.path("drills").glob("drill-*.json")):
        try:
            report: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            at = datetime.fromtimestamp(int(path.stem.split("-")[1], 16) / 1000, UTC)
            found[str(report["drill"]), str(report["tenant"])] = (at, bool(report["passed"]))
        except (OSError, ValueError, KeyError, IndexError):
            continue  # a report that was damaged: its drill is due again
    return found


def run_due(home: Home, run: Callable[[str, str], DrillReport], now: datetime) -> list[DrillReport]:
    """Run what is due at ``now``, one after the other. A refusal is raised after the others ran."""
    reports, refused = [], []
    for plan in planned(home):
        if plan.due(now):
            try:
                reports.append(run(plan.name, plan.tenant))
            except Exception as error:  # noqa: BLE001 - the others must not wait for ever behind a broken one
                refused.append(error)
    if refused:
        raise refused[0]
    return reports
