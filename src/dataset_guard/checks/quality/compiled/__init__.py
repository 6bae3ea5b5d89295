"""Common expectations without Great Expectations: the same verdicts and counts, in one vectorised pass.

:func:`compiled` turns an expectation on columns of a schema into a rule, or says that it cannot: an
argument it does not know, a column of a kind it does not handle. Great Expectations then evaluates that
one. Counts are defined on the frame that ``Table.to_pandas()`` gives, where null and NaN are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from dataset_guard.checks.quality.compiled import (
    conditions,
    order,
    records,
    rows,
    statistics,
    table,
    uniqueness,
    values,
)
from dataset_guard.checks.quality.compiled.arguments import Arguments, NotCompiled
from dataset_guard.checks.quality.compiled.block import Block
from dataset_guard.checks.quality.compiled.columns import ColumnRule
from dataset_guard.checks.quality.compiled.rows import RowRule
from dataset_guard.checks.quality.compiled.table import TableRule
from dataset_guard.checks.quality.gx_suite import Expected

__all__ = ["COMPILED", "Block", "ColumnRule", "Compiled", "RowRule", "TableRule", "compiled"]

_OF_ROWS = {**rows.RULES, **records.RULES}
_OF_COLUMNS = {**statistics.RULES, **uniqueness.RULES, **values.RULES, **order.RULES}
COMPILED = frozenset({*_OF_ROWS, *_OF_COLUMNS, *table.RULES})
"""The expectations that can be compiled."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One of three: a function of a block, a state over a column, a function of the number of rows."""

    rows: RowRule | None = None
    column: Callable[[], ColumnRule] | None = None
    table: TableRule | None = None


def compiled(expected: Expected, schema: pa.Schema) -> Compiled | None:
    """The rule for ``expected`` on data of ``schema``; None when Great Expectations must evaluate it."""
    try:
        arguments = Arguments(expected.kwargs, schema)
        condition = conditions.condition_of(arguments)
        found = _built(expected.type, arguments)
        arguments.done()
        if condition is not None:
            if found.rows is None:
                raise NotCompiled  # a state over a column has no place for the numbers of picked rows
            found = Compiled(rows=conditions.limited(found.rows, condition))
    except NotCompiled:
        return None
    return found


def _built(kind: str, arguments: Arguments) -> Compiled:
    if kind in _OF_ROWS:
        return Compiled(rows=_OF_ROWS[kind](arguments))
    if kind in _OF_COLUMNS:
        return Compiled(column=_OF_COLUMNS[kind](arguments))
    if kind in table.RULES:
        return Compiled(table=table.RULES[kind](arguments))
    raise NotCompiled
