"""Expectations on the schema and on the number of rows: known without a value, or at the very end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dataset_guard.checks.quality.compiled.arguments import Arguments, NotCompiled
from dataset_guard.checks.quality.compiled.statistics import verdict
from dataset_guard.checks.quality.gx_engine import Outcome

TableRule = Callable[[int], Outcome]
"""From the number of rows to the outcome."""

_PYTHON = {"int": "int", "float": "float", "str": "text", "bool": "bool"}


def _counted(success: bool, observed: int) -> Outcome:
    return verdict(success, observed=observed)


def row_count(arguments: Arguments) -> TableRule:
    """``expect_table_row_count_to_be_between``."""
    bounds = arguments.bounds()
    return lambda rows: _counted(bounds.hold(rows), rows)


def row_count_equal(arguments: Arguments) -> TableRule:
    """``expect_table_row_count_to_equal``."""
    value = arguments.need("value", int)
    return lambda rows: _counted(rows == value, rows)


def column_count(arguments: Arguments) -> TableRule:
    """``expect_table_column_count_to_be_between``."""
    bounds, columns = arguments.bounds(), len(arguments.names)
    return lambda _: _counted(bounds.hold(columns), columns)


def column_count_equal(arguments: Arguments) -> TableRule:
    """``expect_table_column_count_to_equal``."""
    value, columns = arguments.need("value", int), len(arguments.names)
    return lambda _: _counted(columns == value, columns)


def exists(arguments: Arguments) -> TableRule:
    """``expect_column_to_exist``; place 0 says nothing, as in Great Expectations."""
    name, place, names = arguments.need("column", str), arguments.take("column_index", int), arguments.names
    found = name in names
    if place:
        found = -len(names) <= place < len(names) and names[place] == name
    return lambda _: verdict(found)


def match_set(arguments: Arguments) -> TableRule:
    """``expect_table_columns_to_match_set``."""
    wanted = _names(arguments.need("column_set", (list, tuple, set)))
    exact = arguments.take("exact_match", bool, True)
    here = set(arguments.names)
    met = set(wanted) == here if exact else set(wanted) <= here
    return lambda _: verdict(met)


def match_list(arguments: Arguments) -> TableRule:
    """``expect_table_columns_to_match_ordered_list``."""
    met = _names(arguments.need("column_list", (list, tuple))) == arguments.names
    return lambda _: verdict(met)


def of_type(arguments: Arguments) -> TableRule:
    """``expect_column_values_to_be_of_type``, by Python's names and for numbers and texts only.

    What NumPy calls a column depends on whether it has nulls; that is left to Great Expectations.
    """
    _, kind = arguments.column()
    named = _PYTHON.get(arguments.need("type_", str))
    if named is None or (named != kind and kind not in ("float", "text")):
        raise NotCompiled
    return lambda _: verdict(named == kind)


def _names(values: Any) -> list[str]:
    if not all(isinstance(v, str) for v in values):
        raise NotCompiled
    return list(values)


RULES = {
    "expect_table_row_count_to_be_between": row_count,
    "expect_table_row_count_to_equal": row_count_equal,
    "expect_table_column_count_to_be_between": column_count,
    "expect_table_column_count_to_equal": column_count_equal,
    "expect_column_to_exist": exists,
    "expect_table_columns_to_match_set": match_set,
    "expect_table_columns_to_match_ordered_list": match_list,
    "expect_column_values_to_be_of_type": of_type,
}
