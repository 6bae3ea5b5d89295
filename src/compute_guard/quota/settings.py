"""What ``quota set`` may set: the place of each of a queue's settings in quotas.yaml. Pure.

A setting that is not written yet is written whole: a budget with its half-life, a resource with its limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from compute_guard.quota.amounts import GPU, WORKERS, base_of
from compute_guard.quota.queues import Budget, Preemption
from guard_core.errors import UserError

Place = tuple[str, ...]
"""Keys from the top of the file; an entry of ``flavors`` by its name."""

LIMITS = ("nominal", "borrowing_limit", "lending_limit")
SINGLE = ("weight", "max_pending", "cohort", "budget")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "preemption": tuple(field.name for field in fields(Preemption)),
    "budget": tuple(field.name for field in fields(Budget)),
}
HALF_LIFE_HOURS = 168
"""Of a budget for which only its hours are said: a week, as fair share forgets as shipped."""


def placed(quotas: Mapping[str, Any], queue: str, what: str, value: object) -> tuple[Place, Any]:
    """Where ``what`` of ``queue`` is to be written in ``quotas``, and what is written there.

    ``what`` is ``weight``, ``budget.gpu_hours``, ``per_user.jobs``, ``gpu_milli.nominal``,
    ``gpu_milli@a100.nominal``, ... Raises UserError for an unknown queue or setting.
    """
    queues = quotas.get("queues") or {}
    if queue not in queues:
        raise UserError(f"there is no queue {queue!r}; quotas.yaml has {', '.join(queues) or 'none'}")
    own = queues[queue]
    top, parts = ("queues", queue), tuple(what.removeprefix("resources.").split("."))
    if len(parts) == 1 and parts[0] in SINGLE:
        return (*top, *parts), value
    if len(parts) == 2:
        group, name = parts
        counted = _resources(own)
        plain = {base_of(one) for one in counted}
        if name in GROUPS.get(group, ()) or (group == "per_user" and name in plain):
            return _in_group(top, own, group, name, value)
        if name in LIMITS and group in counted:
            resource, at, flavor = group.partition("@")
            return (*top, *(("flavors", flavor) if at else ()), "resources", resource, name), value
        new_one = group not in plain and (group in (GPU, WORKERS) or group.startswith("custom_"))
        if name == "nominal" and new_one:
            new = {"nominal": value, "borrowing_limit": 0, "lending_limit": 0}
            return (*top, "resources", group), new
    settings = _settings(own)
    flavored = [one for one in settings if "@" in one and what.partition(".")[0] == base_of(one)]
    meant = flavored or get_close_matches(what, settings, 1)
    raise UserError(
        f"queue {queue} has no setting {what!r}; "
        + (f"did you mean {meant[0]}?" if meant else f"it has {_told(own)}")
    )


def _in_group(top: Place, own: Mapping[str, Any], group: str, name: str, value: object) -> tuple[Place, Any]:
    if own.get(group):
        return (*top, group, name), value
    new = {name: value}
    if group == "budget":
        if name != "gpu_hours":
            raise UserError(f"queue {top[-1]} has no budget; set budget.gpu_hours first")
        new["half_life_hours"] = HALF_LIFE_HOURS
    return (*top, group), new


def _resources(own: Mapping[str, Any]) -> list[str]:
    """The resources a queue has quota of, those of a flavor as ``gpu_milli@a100``."""
    plain = list(own.get("resources") or {})
    return plain + [
        f"{name}@{flavor['name']}" for flavor in own.get("flavors") or () for name in flavor["resources"]
    ]


def _settings(own: Mapping[str, Any]) -> list[str]:
    return [
        *(f"{resource}.{limit}" for resource in _resources(own) for limit in LIMITS),
        *SINGLE[:-1],
        *(f"{group}.{name}" for group, names in GROUPS.items() for name in names),
        *(f"per_user.{name}" for name in dict.fromkeys(base_of(one) for one in _resources(own))),
    ]


def _told(own: Mapping[str, Any]) -> str:
    groups = [f"{group}.{' | '.join(names)}" for group, names in GROUPS.items()]
    counted = ", ".join(_resources(own))
    return "; ".join(
        [*SINGLE[:-1], *groups, f"RESOURCE.{' | '.join(LIMITS)} of {counted}", "per_user.RESOURCE"]
    )
