"""What a lease or a bundle asks for, in the ledger's integers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

from compute_guard.quota.limits import CPU, GPU, MEMORY, Amounts

WORKERS = "workers"
"""Processes; counted where a queue names a quota of them."""
_GROUP = re.compile(r"_group_(?:\d+_)?(?P<id>[0-9a-f]{36})$")
_FREE = ("node:", "accelerator_type:", "bundle")  # Ray's own markers, one per node, not capacity
_MOST = 2**62


@dataclass(frozen=True, slots=True)
class Demand:
    """Amounts asked for, and the placement groups (ids in hex) whose resources they are to come from."""

    amounts: Amounts
    groups: frozenset[str] = frozenset()


def demand_of(resources: Mapping[str, float]) -> Demand:
    """The demand of Ray's ``resources``. What comes out of a placement group was paid for with the group."""
    return _demand_of(tuple(resources.items()))


@lru_cache(10_000)
def _demand_of(resources: tuple[tuple[str, float], ...]) -> Demand:
    wanted: dict[str, int] = {WORKERS: 1}
    groups = set()
    for name, value in resources:
        group = _GROUP.search(name)
        if group is not None:
            groups.add(group["id"])
        elif not name.startswith(_FREE):
            key = _name(name)
            wanted[key] = min(_MOST, wanted.get(key, 0) + _integer(name, value))
    return Demand(Amounts(wanted), frozenset(groups))


def total(demands: Iterable[Demand]) -> Amounts:
    """What several bundles ask for together; their workers are counted when they start."""
    summed: dict[str, int] = {}
    for demand in demands:
        for name, value in demand.amounts.items():
            if name != WORKERS:
                summed[name] = min(_MOST, summed.get(name, 0) + value)
    return Amounts(summed)


def _name(name: str) -> str:
    known = {"CPU": CPU, "GPU": GPU, "memory": MEMORY}.get(name)
    return known or "custom_" + re.sub(r"[^a-z0-9_]", "_", name.lower())


def _integer(name: str, value: float) -> int:
    scale = 1 if name == "memory" else 1000
    # Ray counts in ten-thousandths; a rounding to them first keeps 0.1 CPU from becoming 101 thousandths.
    exact = Decimal(str(round(max(0.0, value), 4))) * scale
    return min(_MOST, int(exact.to_integral_value(rounding=ROUND_CEILING)))
