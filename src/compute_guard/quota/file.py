"""Reading ``data.guard.config.quotas``: from YAML's maps to :class:`Quotas`, with the faulty place named."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from compute_guard.quota.limits import (
    STORAGE_LIMIT,
    Budget,
    Cohort,
    FairShare,
    Flavor,
    Preemption,
    Queue,
    Quotas,
    ResourceQuota,
)
from guard_core.errors import UserError

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "reclaim_within_cohort": ("never", "lower_priority", "any"),
    "within_queue": ("never", "lower_priority"),
    "then": ("requeue", "end"),
    "lowered_quota": ("keep", "preempt"),
}


def read_quotas(config: Mapping[str, Any]) -> Quotas:
    """The quotas in ``config``. Raises UserError naming the queue, cohort or flavor, and the fault."""
    raw_queues = config.get("queues")
    if not isinstance(raw_queues, Mapping):
        raise UserError("quotas: `queues` is missing; see opa_policies/data/quotas.yaml")
    flavors = {
        name: _named("flavor", name, _flavor, raw) for name, raw in (config.get("flavors") or {}).items()
    }
    cohorts = {
        name: _named("cohort", name, _cohort, raw) for name, raw in (config.get("cohorts") or {}).items()
    }
    _check_parents(cohorts)
    queues = {}
    for name, raw in raw_queues.items():
        queue = _named("queue", name, _queue, raw)
        if queue.cohort is not None and queue.cohort not in cohorts:
            raise UserError(f"quotas: queue {name} names cohort {queue.cohort}, which does not exist")
        unknown = [flavor for flavor in queue.flavors if flavor not in flavors]
        if unknown:
            raise UserError(f"quotas: queue {name} names flavor {unknown[0]}, which does not exist")
        queues[name] = queue
    try:
        fair = _fair_share(config.get("fair_share") or {})
    except (KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"quotas: fair_share is malformed: {error}") from error
    return Quotas(MappingProxyType(queues), MappingProxyType(cohorts), MappingProxyType(flavors), fair)


def _named(kind: str, name: str, read: Any, raw: Any) -> Any:
    try:
        return read(name, raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"quotas: {kind} {name} is malformed: {error!r}") from error
    except UserError as error:
        raise UserError(f"quotas: {kind} {name}: {error.message}") from error


def _limits(raw: Mapping[str, Any]) -> dict[str, ResourceQuota]:
    return {
        resource: ResourceQuota(limits["nominal"], limits.get("borrowing_limit"), limits.get("lending_limit"))
        for resource, limits in raw.items()
    }


def _flavor(name: str, raw: Mapping[str, Any]) -> Flavor:
    return Flavor(name, MappingProxyType(dict(raw.get("node_labels") or {})), raw.get("pool"))


def _cohort(name: str, raw: Mapping[str, Any]) -> Cohort:
    return Cohort(name, raw.get("parent"), MappingProxyType(_flavored(raw, raw.get("resources") or {})))


def _queue(name: str, raw: Mapping[str, Any]) -> Queue:
    preemption = dict(raw.get("preemption") or {})
    for key, value in preemption.items():
        if value not in _CHOICES.get(key, (value,)):
            raise UserError(f"preemption.{key} must be one of {', '.join(_CHOICES[key])}, got {value!r}")
    _whole(preemption.get("grace_seconds", 0), "preemption.grace_seconds", 0)
    budget = raw.get("budget")
    weight, most = raw.get("weight", 1), raw.get("max_pending")
    _whole(weight, "weight", 1)
    if most is not None:
        _whole(most, "max_pending", 0)
    return Queue(
        name,
        raw["tenant"],
        raw.get("cohort"),
        MappingProxyType(_flavored(raw, raw["resources"])),
        weight,
        MappingProxyType(dict(raw.get("per_user") or {})),
        tuple(flavor["name"] for flavor in raw.get("flavors") or ()),
        Preemption(**preemption),
        None if budget is None else _budget(budget),
        most,
    )


def _flavored(raw: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, ResourceQuota]:
    """``resources`` with those of ``flavors`` under ``resource@flavor``."""
    found = _limits(plain)
    for flavor in raw.get("flavors") or ():
        for resource, quota in _limits(flavor["resources"]).items():
            if resource in plain:
                raise UserError(f"{resource} has both a quota of its own and flavors; keep one of them")
            found[f"{resource}@{flavor['name']}"] = quota
    return found


def _budget(raw: Mapping[str, Any]) -> Budget:
    budget = Budget(raw["gpu_hours"], raw["half_life_hours"])
    _whole(budget.gpu_hours, "budget.gpu_hours", 0)
    _whole(budget.half_life_hours, "budget.half_life_hours", 1)
    return budget


def _fair_share(raw: Mapping[str, Any]) -> FairShare:
    fair = FairShare(**{**raw, "cost": dict(raw.get("cost") or FairShare().cost)})
    _whole(fair.half_life_hours, "half_life_hours", 1)
    _whole(fair.patience_seconds, "patience_seconds", 0)
    for name, cost in fair.cost.items():
        _whole(cost, f"cost of {name}", 0)
    return fair


def _check_parents(cohorts: Mapping[str, Cohort]) -> None:
    for cohort in cohorts.values():
        above, seen = cohort.parent, {cohort.name}
        while above is not None:
            if above not in cohorts:
                raise UserError(f"quotas: cohort {cohort.name} names parent {above}, which does not exist")
            if above in seen:
                raise UserError(f"quotas: cohort {cohort.name} is its own ancestor")
            seen.add(above)
            above = cohorts[above].parent


def _whole(value: object, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= STORAGE_LIMIT:
        raise UserError(f"{name} must be an integer from {least}, got {value!r}")
