"""Incidents and steps of the ladder as lines for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compute_guard.incidents.incident import Incident
    from compute_guard.incidents.notices.deadlines import Due
    from compute_guard.response.actions import Action


def incident_line(found: Incident, notices: Sequence[Due], now: datetime) -> str:
    """The incident's line in a list."""
    made_up = "  (exercise)" if found.synthetic else ""
    late = ", ".join(notice.audience for notice in notices if notice.overdue(now))
    return (
        f"{found.id}  {found.severity:8}  {found.state.value:12}  {found.kind}  {_place(found)}{made_up}"
        + (f"  notice overdue: {late}" if late else "")
    )


def page(found: Incident, actions: Sequence[Action], notices: Sequence[Due], now: datetime) -> Iterator[str]:
    """One incident with its evidence in words, its steps and its notices."""
    if found.synthetic:
        yield "EXERCISE: the telemetry behind this incident is made up"
    yield f"{found.id}  {found.kind} in {_place(found)}: {found.severity}, {found.state.value}"
    for name, channel in found.evidence["channels"].items():
        yield f"  {name}: {channel['message']}"
    for step in actions:
        yield f"  {step_line(step)}"
    for notice in notices:
        late = " (overdue)" if notice.overdue(now) else ""
        due = f"due by {notice.deadline:%F %H:%M} UTC{late}"
        yield f"  notice to the {notice.audience}: " + (f"sent {notice.sent['at']}" if notice.sent else due)


def step_line(step: Action) -> str:
    """A step of the ladder, how it stands and for which incident."""
    return f"{step.id}  {step.level} {step.name:12} {step.state:10} {step.incident_id}"


def _place(found: Incident) -> str:
    return f"{found.tenant}/{found.job}"
