"""Expectations on several values of one row."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.quality.compiled.arguments import Arguments, NotCompiled, constant
from dataset_guard.checks.quality.compiled.block import Block, Column, Family, Mask, flags
from dataset_guard.checks.quality.compiled.rows import RowRule, member
from dataset_guard.checks.quality.gx_engine import Outcome

_MOST_PAIRS = 64
_NUMBERS = ("int", "float")
_NARROW = (pa.float16(), pa.float32())
"""pandas adds these in their own precision."""
_PAIR_RULES = ("both_values_are_missing", "either_value_is_missing", "neither")
LIST_RULES = ("all_values_are_missing", "any_value_is_missing", "never")


def pair_greater(arguments: Arguments) -> RowRule:
    """``expect_column_pair_values_a_to_be_greater_than_b``."""
    or_equal = bool(arguments.take("or_equal", bool, False))
    return _pair(arguments, lambda a, b: _compared(a, b, "greater_equal" if or_equal else "greater"))


def pair_equal(arguments: Arguments) -> RowRule:
    """``expect_column_pair_values_to_be_equal``."""
    return _pair(arguments, lambda a, b: _compared(a, b, "equal"))


def _pair(arguments: Arguments, good: Callable[[Column, Column], Mask]) -> RowRule:
    names = _alike([arguments.column("column_A"), arguments.column("column_B")])
    ignored = _PAIR_RULES.index(arguments.choice("ignore_row_if", *_PAIR_RULES))

    def judge(block: Block) -> Outcome:
        columns = [block.column(n) for n in names]
        return _judged(block, columns, ~good(*columns), ignored)

    return judge


def pair_in_set(arguments: Arguments) -> RowRule:
    """``expect_column_pair_values_to_be_in_set``; null in a pair stands for a missing value."""
    (a, _), (b, _) = sides = [arguments.column("column_A"), arguments.column("column_B")]
    if any(kind not in (*_NUMBERS, "text") for _, kind in sides):
        raise NotCompiled
    pairs = arguments.need("value_pairs_set", (list, tuple))
    if not 0 < len(pairs) <= _MOST_PAIRS:
        raise NotCompiled
    wanted = [
        [None if v is None else constant(v, arguments.kind(n)) for n, v in zip((a, b), pair, strict=True)]
        for pair in pairs
        if isinstance(pair, list | tuple) and len(pair) == 2
    ]
    if len(wanted) < len(pairs):
        raise NotCompiled
    ignored = _PAIR_RULES.index(arguments.choice("ignore_row_if", *_PAIR_RULES))

    def judge(block: Block) -> Outcome:
        columns = [block.column(a), block.column(b)]
        good = np.zeros(block.rows, bool)
        for first, second in wanted:
            good |= _is(columns[0], first) & _is(columns[1], second)
        return _judged(block, columns, ~good, ignored)

    return judge


def _is(column: Column, value: Any) -> Mask:
    if value is None:
        return _missing(column)
    return np.asarray(member(column, [value]) & ~_missing(column))


def sum_equal(arguments: Arguments) -> RowRule:
    """``expect_multicolumn_sum_to_equal``: from left to right, NaN where a value is missing."""
    named = arguments.columns()
    total = arguments.need("sum_total", (int, float))
    names = [n for n, _ in named]
    if any(kind not in _NUMBERS or arguments.kind(n) in _NARROW for n, kind in named):
        raise NotCompiled

    def bad(columns: Sequence[Column]) -> Mask:
        whole = all(c.family == "int" and c.missing is None for c in columns)
        kind = np.int64 if whole else np.float64
        added = functools.reduce(operator.add, (c.numbers.astype(kind) for c in columns))
        return functools.reduce(operator.or_, (_missing(c) for c in columns), added != total)

    return _record(arguments, names, bad)


def values_equal(arguments: Arguments) -> RowRule:
    """``expect_multicolumn_values_to_be_equal``: missing values equal each other."""
    names = _alike(arguments.columns())

    def bad(columns: Sequence[Column]) -> Mask:
        unlike = [~_same(columns[0], other) for other in columns[1:]]
        return functools.reduce(operator.or_, unlike)

    return _record(arguments, names, bad)


def unique_within_record(arguments: Arguments) -> RowRule:
    """``expect_select_column_values_to_be_unique_within_record``: missing values equal each other."""
    names = _alike(arguments.columns())

    def bad(columns: Sequence[Column]) -> Mask:
        return functools.reduce(operator.or_, (_same(a, b) for a, b in combinations(columns, 2)))

    return _record(arguments, names, bad)


def _record(arguments: Arguments, names: list[str], bad: Callable[[Sequence[Column]], Mask]) -> RowRule:
    ignored = LIST_RULES.index(arguments.choice("ignore_row_if", *LIST_RULES))

    def judge(block: Block) -> Outcome:
        columns = [block.column(n) for n in names]
        return _judged(block, columns, bad(columns), ignored)

    return judge


def ignored_rows(columns: Sequence[Column], rule: int) -> Mask | None:
    """Rows left out: where all values are missing (0), any is (1), or none at all (2)."""
    if rule == 2 or all(c.missing is None for c in columns):
        return None
    combine = operator.and_ if rule == 0 else operator.or_
    return np.asarray(functools.reduce(combine, (_missing(c) for c in columns)))


def _judged(block: Block, columns: Sequence[Column], bad: Mask, rule: int) -> Outcome:
    left_out = ignored_rows(columns, rule)
    if left_out is None:
        return block.judged(bad if bad.any() else None, 0)
    return block.judged(bad & ~left_out, int(np.count_nonzero(left_out)))


def _missing(column: Column) -> Mask:
    return np.zeros(len(column.array), bool) if column.missing is None else column.missing


def _alike(named: Sequence[tuple[str, Family]]) -> list[str]:
    """The names of columns that compare with each other: all numbers, or all texts."""
    kinds = {"number" if kind in _NUMBERS else kind for _, kind in named}
    if kinds not in ({"number"}, {"text"}):
        raise NotCompiled
    return [name for name, _ in named]


def _compared(a: Column, b: Column, how: str) -> Mask:
    """``a`` against ``b``; False where either is missing."""
    if a.family == "text":
        found = getattr(pc, how)(a.array, b.array)
        return flags(found.fill_null(False) if found.null_count else found)
    found = np.asarray(getattr(np, how)(a.numbers, b.numbers))
    for column in (a, b):
        if column.missing is not None:
            found &= ~column.missing
    return found


def _same(a: Column, b: Column) -> Mask:
    return _compared(a, b, "equal") | (_missing(a) & _missing(b))


RULES = {
    "expect_column_pair_values_a_to_be_greater_than_b": pair_greater,
    "expect_column_pair_values_to_be_equal": pair_equal,
    "expect_column_pair_values_to_be_in_set": pair_in_set,
    "expect_multicolumn_sum_to_equal": sum_equal,
    "expect_multicolumn_values_to_be_equal": values_equal,
    "expect_select_column_values_to_be_unique_within_record": unique_within_record,
}
