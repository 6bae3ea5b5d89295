"""Expectations on single values of one column, as functions from a block to its counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dataset_guard.checks.quality.compiled.arguments import Arguments, Bounds, NotCompiled
from dataset_guard.checks.quality.compiled.block import Block, Column, Mask, among, except_missing
from dataset_guard.checks.quality.compiled.patterns import Pattern
from dataset_guard.checks.quality.gx_engine import Outcome

RowRule = Callable[[Block], Outcome]
_COMPARED_ONE_BY_ONE = 16


def not_null(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_not_be_null``: counted among all rows, so none is missing."""
    name, _ = arguments.column()
    return lambda block: block.judged(block.column(name).missing, 0)


def null(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_be_null``: counted among all rows."""
    name, _ = arguments.column()

    def judge(block: Block) -> Outcome:
        missing = block.column(name).missing
        return block.judged(np.ones(block.rows, bool) if missing is None else ~missing, 0)

    return judge


def between(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_be_between``: numbers and times."""
    name, _ = arguments.column()
    bounds = arguments.bounds(name)

    def bad(column: Column) -> Mask | None:
        extent = column.extent
        if extent is None or (bounds.hold(extent[0]) and bounds.hold(extent[1])):
            return None
        return bounds.outside(column.numbers)

    return _present(name, bad)


def in_set(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_be_in_set``."""
    return _of_set(arguments, wanted=True)


def not_in_set(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_not_be_in_set``."""
    return _of_set(arguments, wanted=False)


def _of_set(arguments: Arguments, *, wanted: bool) -> RowRule:
    name, _ = arguments.column()
    values = arguments.constants("value_set", name)
    return _present(name, lambda column: member(column, values) != wanted)


def member(column: Column, values: list[Any]) -> Mask:
    """Which values are among ``values``; missing ones are not."""
    if column.family == "text":
        return among(column.array, values)
    if len(values) > _COMPARED_ONE_BY_ONE:
        return np.isin(column.numbers, values)
    found = np.zeros(len(column.numbers), bool)
    for value in values:
        found |= column.numbers == value
    return found


def lengths(arguments: Arguments) -> RowRule:
    """``expect_column_value_lengths_to_be_between``: code points."""
    name, kind = arguments.column()
    if kind != "text":
        raise NotCompiled  # the length of a number's text
    return _lengths(name, arguments.bounds())


def lengths_equal(arguments: Arguments) -> RowRule:
    """``expect_column_value_lengths_to_equal``."""
    name, kind = arguments.column()
    value = arguments.need("value", (int, float))
    if kind != "text":
        raise NotCompiled
    return _lengths(name, Bounds(value, value, False, False))


def _lengths(name: str, bounds: Bounds) -> RowRule:
    def bad(column: Column) -> Mask | None:
        sizes = column.lengths
        if not len(sizes) or (bounds.hold(sizes.min()) and bounds.hold(sizes.max())):
            return None
        return bounds.outside(sizes)

    return _present(name, bad)


def regex(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_match_regex``."""
    return _of_patterns(arguments, [arguments.need("regex", str)], lambda found: ~found[0])


def not_regex(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_not_match_regex``."""
    return _of_patterns(arguments, [arguments.need("regex", str)], lambda found: found[0])


def regex_list(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_match_regex_list``: any of them, or all."""
    combine = np.any if arguments.choice("match_on", "any", "all") == "any" else np.all
    return _of_patterns(arguments, arguments.patterns(), lambda found: ~combine(found, axis=0))


def not_regex_list(arguments: Arguments) -> RowRule:
    """``expect_column_values_to_not_match_regex_list``: none of them."""
    return _of_patterns(arguments, arguments.patterns(), lambda found: np.any(found, axis=0))


def _of_patterns(arguments: Arguments, texts: list[str], bad: Callable[[list[Mask]], Mask]) -> RowRule:
    name, kind = arguments.column()
    if kind != "text":
        raise NotCompiled
    patterns = [Pattern(text) for text in texts]
    return _present(name, lambda column: bad([p.found(column) for p in patterns]))


def _present(name: str, bad: Callable[[Column], Mask | None]) -> RowRule:
    """A rule on the values that are not missing."""

    def judge(block: Block) -> Outcome:
        column = block.column(name)
        unmet = bad(column)
        if unmet is not None:
            unmet = except_missing(unmet, column.missing)
        return block.judged(unmet, column.missing_count)

    return judge


RULES = {
    "expect_column_values_to_not_be_null": not_null,
    "expect_column_values_to_be_null": null,
    "expect_column_values_to_be_between": between,
    "expect_column_values_to_be_in_set": in_set,
    "expect_column_values_to_not_be_in_set": not_in_set,
    "expect_column_value_lengths_to_be_between": lengths,
    "expect_column_value_lengths_to_equal": lengths_equal,
    "expect_column_values_to_match_regex": regex,
    "expect_column_values_to_not_match_regex": not_regex,
    "expect_column_values_to_match_regex_list": regex_list,
    "expect_column_values_to_not_match_regex_list": not_regex_list,
}
