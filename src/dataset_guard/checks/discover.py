"""Which checks there are: whatever the entry-point group ``dataset_guard.checks`` names.

A broken third-party check must not stop a scan, nor vanish: it becomes a :class:`Broken` entry, which the
scan records as skipped with the error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

from dataset_guard.checks.base import Check
from guard_core.errors import UserError
from guard_core.findings import RULE_ID
from guard_core.plugins import offered

GROUP = "dataset_guard.checks"


@dataclass(frozen=True, slots=True)
class Broken:
    """A check that could not be loaded, and why."""

    name: str
    error: str


def discover(points: Iterable[EntryPoint] | None = None) -> tuple[tuple[Check, ...], tuple[Broken, ...]]:
    """All checks that load, and those that do not, each sorted by name. The first of two with one name wins,
    ours before others'.
    """
    found = offered(GROUP) if points is None else points
    ordered = sorted(found, key=lambda p: (not p.value.startswith("dataset_guard."), p.name, p.value))
    checks: dict[str, Check] = {}
    broken: list[Broken] = []
    for point in ordered:
        try:
            check = _load(point)
            if check.name in checks:
                raise ValueError(f"another check is called {check.name!r} already")
            checks[check.name] = check
        except Exception as error:  # noqa: BLE001 - foreign code at import: anything may come
            broken.append(Broken(point.name, f"{type(error).__name__}: {error}"))
    return tuple(checks[n] for n in sorted(checks)), tuple(sorted(broken, key=lambda b: b.name))


def _load(point: EntryPoint) -> Check:
    loaded = point.load()
    check = loaded if isinstance(loaded, Check) else getattr(loaded, "CHECK", None)
    if not isinstance(check, Check):
        raise TypeError(f"{point.value} has no CHECK that follows dataset_guard.checks.base.Check")
    wrong = [r for r in check.rule_ids if not RULE_ID.match(r)]
    if wrong:
        raise ValueError(f"rule id {wrong[0]!r} is not PREFIX + three digits")
    return check


def select(checks: Sequence[Check], names: Sequence[str] | None) -> tuple[Check, ...]:
    """Those called ``names``, or all. Raises UserError for a name that no check has."""
    if names is None:
        return tuple(checks)
    known = {c.name: c for c in checks}
    for name in names:
        if name not in known:
            raise UserError(f"there is no check {name!r}; the checks are: {', '.join(sorted(known))}")
    return tuple(known[n] for n in sorted(set(names)))


def parameters_of(check: Check) -> dict[str, Any]:
    """The check's parameters: the fields of its dataclass, if it is one."""
    if not dataclasses.is_dataclass(check) or isinstance(check, type):
        return {}
    return {f.name: getattr(check, f.name) for f in dataclasses.fields(check) if f.init}


def configured(check: Check, settings: Mapping[str, Any]) -> Check:
    """``check`` with ``settings`` in place of its defaults.

    Raises UserError for a setting it has not, and for a value of another kind than the default's.
    """
    known = parameters_of(check)
    given = {}
    for name, value in settings.items():
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UserError(f"check {check.name!r} has no parameter {name!r}; its parameters are: {listed}")
        given[name] = tuple(value) if isinstance(value, list) else value
        if not _alike(given[name], known[name]):
            kind = _KINDS.get(type(known[name]), type(known[name]).__name__)
            raise UserError(f"the parameter {name!r} of check {check.name!r} takes {kind}, not {value!r}")
    return dataclasses.replace(check, **given) if given else check  # type: ignore[type-var]


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a list"}


def _alike(value: Any, default: Any) -> bool:
    """Whether ``value`` may stand where ``default`` does; nothing is known where that is None."""
    if type(default) is float:
        return type(value) in (int, float)
    return default is None or type(value) is type(default)
