"""What is settled before a scan reads a row: the checks and their parameters, the key, the budget."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_guard.checks.base import Check, CheckContext
from dataset_guard.checks.discover import Broken, configured, discover, select
from guard_core.errors import UserError

if TYPE_CHECKING:
    from dataset_guard.reading import Source


@dataclass(frozen=True, slots=True)
class Scope:
    """In what a scan falls short of one by all checks as they ship: names of checks.

    ``left_out`` were not chosen, ``changed`` had settings of the caller's, ``cut_short`` spent the budget. A
    check that is off as it ships, or is not for such data, is no loss.
    """

    left_out: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    cut_short: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What every pass of one scan needs; picklable. ``budget`` is CPU-seconds for the checks of one pass."""

    schema: Any
    context: CheckContext
    key: bytes
    checks: tuple[Check, ...]
    budget: float | None = None
    scope: Scope = Scope()


def planned(
    source: Source,
    context: CheckContext,
    *,
    row_key: bytes | None,
    checks: Sequence[str] | None,
    available: tuple[tuple[Check, ...], tuple[Broken, ...]] | None,
    budget: float | None,
) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan of a scan, and the records of checks that could not be loaded. Raises UserError."""
    if context.label is not None and context.label not in source.schema.names:
        known = ", ".join(source.schema.names[:20]) + (", ..." if len(source.schema.names) > 20 else "")
        raise UserError(f"the label column {context.label!r} is not in the data; its columns are: {known}")
    if row_key is None and (context.baseline is not None or context.against):
        raise ValueError("comparing with registered sets needs the tenant's row key")
    if budget is not None and budget <= 0:
        raise UserError(f"a budget of {budget:g} CPU-seconds lets no check run; give more, or name --checks")
    found, broken = discover() if available is None else available
    for lost in broken:
        if checks is not None and lost.name in checks:
            raise UserError(f"the check {lost.name!r} could not be loaded: {lost.error}")
    for name in context.parameters:
        select(found, [name])
    chosen = tuple(configured(c, context.parameters.get(c.name, {})) for c in select(found, checks))
    key = secrets.token_bytes(32) if row_key is None else row_key
    lost_records = [_broken_record(b) for b in broken if checks is None]
    return Plan(source.schema, context, key, chosen, budget, _scope(found, chosen, context)), lost_records


def _scope(found: Sequence[Check], chosen: Sequence[Check], context: CheckContext) -> Scope:
    names = {check.name for check in chosen}
    left_out = [c for c in found if c.name not in names]
    changed = [c for c in found if c.name in names and context.parameters.get(c.name)]
    return Scope(
        left_out=tuple(c.name for c in left_out if _runs(c, context)),
        changed=tuple(c.name for c in changed if _runs(c, context)),
    )


def _runs(check: Check, context: CheckContext) -> bool:
    try:
        return check.applies(context) is None
    except Exception:  # noqa: BLE001 - a check may be anybody's code; one that fails would have been told
        return True


def _broken_record(broken: Broken) -> dict[str, Any]:
    skipped = f"could not be loaded: {broken.error}"
    return {"name": broken.name, "version": "", "parameters": {}, "seconds": 0.0, "skipped": skipped}
