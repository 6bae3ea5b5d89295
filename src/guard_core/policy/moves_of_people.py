"""Who approves, and when it is asked, changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from guard_core.policy.move import Json, Move, at, number_at, setting


def approvals(question: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Move]:
    """More people, with each of the roles that approve something."""
    now, given = number_at(question, "now_ns"), question.get("approvals")
    if not isinstance(given, list) or now is None:
        return
    operations = at(config, "approvers", "operations")
    roles = (
        {role for o in operations.values() for role in o["roles"]}
        if isinstance(operations, Mapping)
        else set()
    )
    extra = at(config, "playbooks", "approver_roles")
    roles |= set(extra) if isinstance(extra, list) else set()
    tenant = at(question, "principal", "tenant")
    for more in (1, 2, 3):
        for role in sorted(roles):

            def apply(copy: Json, more: int = more, role: str = role) -> None:
                copy["approvals"] = copy["approvals"] + [
                    {"by": f"(person {number})", "role": role, "tenant": tenant, "at_ns": now}
                    for number in range(more)
                ]

            people = "one more person" if more == 1 else f"{more} more people"
            yield Move("approvals", f"have {people} with the role {role} approve it", apply, people=more)


def times(question: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Move]:
    """The ends of the calendars' periods."""
    now = number_at(question, "now_ns")
    calendars = config.get("calendars")
    if now is None or not isinstance(calendars, Mapping):
        return
    ends = {
        str(period["to"])
        for kind in ("freezes", "maintenance")
        for period in calendars.get(kind) or ()
        if isinstance(period, Mapping) and "to" in period
    }
    for end in sorted(ends):
        moment = datetime.fromisoformat(end).astimezone(UTC)
        later = int(moment.timestamp()) * 10**9
        if later > now:
            yield Move("time", f"wait until {moment:%Y-%m-%d %H:%M}Z", setting("now_ns", later))
