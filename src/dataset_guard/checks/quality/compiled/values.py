"""Expectations on which distinct values a column holds, and on its most common ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.quality.compiled.arguments import Arguments, NotCompiled
from dataset_guard.checks.quality.compiled.block import Block, among, array_of, integers
from dataset_guard.checks.quality.compiled.columns import ColumnRule, Counted
from dataset_guard.checks.quality.compiled.statistics import verdict
from dataset_guard.checks.quality.gx_engine import Outcome

_SETTLED = 1 << 16
"""Rows of value counts that may wait before they are added up."""


@dataclass(frozen=True, slots=True)
class Found:
    """Distinct values (an Arrow array) and how often each occurs, shape (values,)."""

    values: Any
    counts: npt.NDArray[np.int64]


class ValueCounts(Counted):
    """How often each value occurs. Memory: the distinct values, at most doubled."""

    def __init__(self, name: str, judge: Callable[[Found], Outcome]) -> None:
        super().__init__()
        self._name, self._judge = name, judge
        self._parts: list[Found] = []
        self._waiting = 0
        self._limit = _SETTLED

    def update(self, block: Block) -> None:
        """Take one block."""
        column = block.column(self._name)
        present = column.array.drop_null() if column.array.null_count else column.array
        if column.family == "float":
            present = array_of(column.present + 0.0)  # without NaN, and 0 is -0
        counted = pc.value_counts(present)
        self._add(Found(counted.field("values"), integers(counted.field("counts"))))

    def _add(self, part: Found) -> None:
        self._parts.append(part)
        self._waiting += len(part.counts)
        if self._waiting > self._limit:
            whole = self._settled()
            self._parts, self._waiting = [whole], len(whole.counts)
            self._limit = max(_SETTLED, 2 * len(whole.counts))

    def _settled(self) -> Found:
        if not self._parts:
            return Found(pa.nulls(0), np.empty(0, np.int64))
        # Not Table.group_by: it imports pyarrow.dataset, and that pandas.
        coded = pa.concat_arrays([p.values for p in self._parts]).dictionary_encode()
        counts = np.concatenate([p.counts for p in self._parts])
        added = np.zeros(len(coded.dictionary), np.int64)
        np.add.at(added, integers(coded.indices), counts)
        return Found(coded.dictionary, added)

    def merge(self, other: ValueCounts) -> None:
        """Absorb the state of other rows."""
        for part in other._parts:
            self._add(part)

    @property
    def nbytes(self) -> int:
        """The values and counts held."""
        return sum(part.values.nbytes + part.counts.nbytes for part in self._parts)

    def finish(self) -> Outcome:
        """What the judge says of the values."""
        return self._judge(self._settled())


def _set_rule(*, extra: bool, lacking: bool) -> Callable[[Arguments], Callable[[], ColumnRule]]:
    """A rule that minds values outside the set, and values of the set that do not occur."""

    def built(arguments: Arguments) -> Callable[[], ColumnRule]:
        name, kind = arguments.column()
        if kind == "bool":
            raise NotCompiled
        wanted = arguments.constants("value_set", name)

        def judge(found: Found) -> Outcome:
            known = _held(found.values, wanted)
            unexpected = (len(found.values) - known) if extra else 0
            missing = (len(wanted) - known) if lacking else 0
            return verdict(not unexpected and not missing, unexpected=unexpected, missing=missing)

        return lambda: ValueCounts(name, judge)

    return built


def _held(values: Any, wanted: list[Any]) -> int:
    """How many of ``wanted`` are among the distinct ``values``."""
    if pa.types.is_null(values.type):
        return 0
    if isinstance(wanted[0], str):
        return int(np.count_nonzero(among(values, wanted)))
    numbers = set(values.to_pylist())
    return sum(value in numbers for value in wanted)


def most_common(arguments: Arguments) -> Callable[[], ColumnRule]:
    """``expect_column_most_common_value_to_be_in_set``."""
    name, kind = arguments.column()
    if kind == "bool":
        raise NotCompiled
    wanted = arguments.constants("value_set", name)
    ties = bool(arguments.take("ties_okay", bool, False))

    def judge(found: Found) -> Outcome:
        top = np.flatnonzero(found.counts == found.counts.max(initial=0))
        known = _held(found.values.take(array_of(top)), wanted)
        return verdict(known > 0 if ties else len(top) == 1 and known == 1)

    return lambda: ValueCounts(name, judge)


RULES = {
    "expect_column_distinct_values_to_be_in_set": _set_rule(extra=True, lacking=False),
    "expect_column_distinct_values_to_contain_set": _set_rule(extra=False, lacking=True),
    "expect_column_distinct_values_to_equal_set": _set_rule(extra=True, lacking=True),
    "expect_column_most_common_value_to_be_in_set": most_common,
}
