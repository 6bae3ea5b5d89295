"""Expectations on the order of a column's values: ``..._to_be_increasing`` and ``..._to_be_decreasing``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.quality.compiled.arguments import Arguments, NotCompiled
from dataset_guard.checks.quality.compiled.block import Block, Mask
from dataset_guard.checks.quality.compiled.columns import ColumnRule, Counted
from dataset_guard.checks.quality.compiled.statistics import verdict
from dataset_guard.checks.quality.gx_engine import Outcome


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What the next block must know of one: its ends, and which rows break the order inside."""

    first_row: int
    """Of the first value that is not missing."""
    first: Any
    last: Any
    broken: npt.NDArray[np.int64]


class Order(Counted):
    """Each value against the one before it; missing ones are left out. Memory: a few numbers a block."""

    def __init__(self, name: str, *, rising: bool, strictly: bool) -> None:
        super().__init__()
        self._name, self._rising, self._strictly = name, rising, strictly
        self._stretches: list[_Stretch] = []

    def _breaks(self, before: Any, after: Any) -> Mask:
        low, high = (before, after) if self._rising else (after, before)
        broken = low >= high if self._strictly else low > high
        # Two infinities have no difference, so pandas sees none: they are in order.
        return np.asarray(broken & ~((low == high) & np.isinf(low)))

    def update(self, block: Block) -> None:
        """Take one block."""
        column = block.column(self._name)
        self.count(block.rows, column.missing_count)
        values = column.present
        if not len(values):
            return
        rows = np.arange(block.rows) if column.missing is None else np.flatnonzero(~column.missing)
        rows = rows + block.first_row
        broken = rows[1:][self._breaks(values[:-1], values[1:])]
        self._stretches.append(_Stretch(int(rows[0]), values[0], values[-1], broken))

    def merge(self, other: Order) -> None:
        """Absorb the state of other rows."""
        self.absorb(other)
        self._stretches += other._stretches

    def finish(self) -> Outcome:
        """Also across blocks."""
        ordered = sorted(self._stretches, key=lambda s: s.first_row)
        between = [
            after.first_row for before, after in pairwise(ordered) if self._breaks(before.last, after.first)
        ]
        rows = np.sort(np.concatenate([np.array(between, np.int64), *(s.broken for s in ordered)]))
        counts = {"elements": self.rows, "missing": self.missing, "unexpected": len(rows)}
        return verdict(not len(rows), rows=rows, **counts)


def _order(rising: bool) -> Callable[[Arguments], Callable[[], ColumnRule]]:
    def built(arguments: Arguments) -> Callable[[], ColumnRule]:
        name, kind = arguments.column()
        strictly = bool(arguments.take("strictly", bool, False))
        if kind not in ("int", "float", "time") or pa.types.is_unsigned_integer(arguments.kind(name)):
            raise NotCompiled  # pandas' differences of unsigned numbers wrap around
        return lambda: Order(name, rising=rising, strictly=strictly)

    return built


RULES = {
    "expect_column_values_to_be_increasing": _order(True),
    "expect_column_values_to_be_decreasing": _order(False),
}
