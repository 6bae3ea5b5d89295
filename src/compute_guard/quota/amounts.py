"""Amounts of resources, whole numbers only: what is asked for, held and granted."""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterator, Mapping

from guard_core.errors import UserError

JOBS = "jobs"
CPU = "cpu_milli"
GPU = "gpu_milli"
MEMORY = "memory_bytes"
WORKERS = "workers"
STORAGE_LIMIT = 2**63 - 1
"""Largest amount a reservation can hold: the ledger's columns are signed 64-bit."""

_RESOURCE = re.compile(r"^[a-z][a-z0-9_]*(@[a-z0-9][a-z0-9._-]*)?$")


class Amounts(Mapping[str, int]):
    """Immutable resource amounts; a resource that is not named is zero. Zeros are not stored.

    Raises UserError for a name that is not ``[a-z][a-z0-9_]*`` (with ``@flavor`` where there are flavors), a
    non-integer or an amount outside 0..2**63-1.
    """

    __slots__ = ("_hash", "_values")

    def __init__(self, values: Mapping[str, int] | None = None) -> None:
        kept: dict[str, int] = {}
        for name in sorted(values or {}):
            amount = (values or {})[name]
            if not _RESOURCE.match(name):
                raise UserError(f"resource {name!r} must be lower-case letters, digits and underscores")
            if isinstance(amount, bool) or not isinstance(amount, int):
                raise UserError(f"amount of {name} must be an integer, got {amount!r}")
            if not 0 <= amount <= STORAGE_LIMIT:
                raise UserError(f"amount of {name} must be from 0 to {STORAGE_LIMIT}, got {amount}")
            if amount:
                kept[name] = amount
        self._values = kept  # nobody else ever has it
        self._hash: int | None = None

    def __getitem__(self, name: str) -> int:
        return self._values.get(name, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def items(self) -> ItemsView[str, int]:
        """As of any mapping; quicker than the one that Mapping would make of the rest."""
        return self._values.items()

    def __add__(self, other: Amounts) -> Amounts:
        return self._with(other, 1)

    def __sub__(self, other: Amounts) -> Amounts:
        return self._with(other, -1)

    def _with(self, other: Amounts, sign: int) -> Amounts:
        """The names are known to be good; only amounts that change are looked at."""
        if not other._values:
            return self
        if sign > 0 and not self._values:
            return other
        values = self._values.copy()
        grown = False
        for name, amount in other._values.items():
            before = values.get(name, 0)
            now = before + sign * amount
            if 0 < now <= STORAGE_LIMIT:
                grown = grown or not before
                values[name] = now
            elif now:
                return Amounts({**values, name: now})  # which refuses it
            else:
                del values[name]
        result = object.__new__(Amounts)
        result._values = dict(sorted(values.items())) if grown else values
        result._hash = None
        return result

    def __or__(self, other: Amounts) -> Amounts:
        """The larger of the two, resource by resource."""
        return Amounts({name: max(self[name], other[name]) for name in {*self, *other}})

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Amounts) and self._values == other._values)

    def __hash__(self) -> int:
        if self._hash is None:  # asked for at every look at a waiting workload
            self._hash = hash(tuple(self._values.items()))
        return self._hash

    def __repr__(self) -> str:
        return f"Amounts({dict(self._values)})"

    def __reduce__(self) -> tuple[type[Amounts], tuple[dict[str, int]]]:
        return (Amounts, (dict(self._values),))


NOTHING = Amounts()


def base_of(resource: str) -> str:
    """``gpu_milli`` of ``gpu_milli@a100``."""
    return resource.partition("@")[0]


def total(amounts: Mapping[str, int], resource: str) -> int:
    """What ``amounts`` hold of ``resource`` in all its flavors; of one flavor where ``resource`` names it."""
    if "@" in resource:
        return amounts.get(resource, 0)
    return sum(value for name, value in amounts.items() if base_of(name) == resource)


def flavor_of(amounts: Mapping[str, int]) -> str:
    """The flavor that held ``amounts`` name, empty without one."""
    return next((name.partition("@")[2] for name in amounts if "@" in name), "")


def gpu_rate(amounts: Mapping[str, int]) -> int:
    """What holding ``amounts`` takes from a budget in one millisecond: thousandths of a GPU."""
    return total(amounts, GPU)
