"""Expectations on what a column comes to as a whole: extremes, moments, quantiles, the share of nulls."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.quality.compiled.arguments import Arguments, Bounds, NotCompiled, is_number
from dataset_guard.checks.quality.compiled.block import Block
from dataset_guard.checks.quality.compiled.columns import ColumnRule, Counted
from dataset_guard.checks.quality.gx_engine import Outcome

_NUMBERS = ("int", "float")


def verdict(success: bool, **counts: Any) -> Outcome:
    """An aggregate's outcome."""
    return Outcome(success=success, raised=False, **counts)


class Extreme(Counted):
    """The least or the greatest value."""

    def __init__(self, name: str, bounds: Bounds, which: Callable[..., Any]) -> None:
        super().__init__()
        self._name, self._bounds, self._which = name, bounds, which
        self._value: Any = None

    def update(self, block: Block) -> None:
        """Take one block."""
        extent = block.column(self._name).extent
        self._see(None if extent is None else self._which(extent))

    def _see(self, value: Any) -> None:
        if value is not None:
            self._value = value if self._value is None else self._which((self._value, value))

    def merge(self, other: Extreme) -> None:
        """Absorb the state of other rows."""
        self._see(other._value)

    def finish(self) -> Outcome:
        """Not met without any value."""
        return verdict(self._value is not None and self._bounds.hold(self._value))


def _extreme(which: Callable[..., Any]) -> Callable[[Arguments], Callable[[], ColumnRule]]:
    def built(arguments: Arguments) -> Callable[[], ColumnRule]:
        name, _ = arguments.column()
        bounds = arguments.bounds(name)
        return lambda: Extreme(name, bounds, which)

    return built


class Moments(Counted):
    """Sum, mean and standard deviation: integers add exactly, deviations as Chan, Golub and LeVeque do."""

    def __init__(self, name: str, bounds: Bounds, what: str) -> None:
        super().__init__()
        self._name, self._bounds, self._what = name, bounds, what
        self._numbers = 0
        self._sum: int | float = 0
        self._mean = 0.0
        self._squares = 0.0

    def update(self, block: Block) -> None:
        """Take one block."""
        values = block.column(self._name).present
        if not len(values):
            return
        with np.errstate(all="ignore"):
            total = values.sum(dtype=np.float64 if values.dtype.kind == "f" else np.int64).item()
            mean = float(total) / len(values)
            squares = 0.0
            if self._what == "std":
                squares = float(np.square(values.astype(np.float64, copy=False) - mean).sum())
            self._add(len(values), total, mean, squares)

    def _add(self, numbers: int, total: float, mean: float, squares: float) -> None:
        both = self._numbers + numbers
        delta = mean - self._mean
        self._squares += squares + delta * delta * self._numbers * numbers / both
        self._mean += delta * numbers / both
        self._numbers, self._sum = both, self._sum + total

    def merge(self, other: Moments) -> None:
        """Absorb the state of other rows."""
        if other._numbers:
            self._add(other._numbers, other._sum, other._mean, other._squares)

    def finish(self) -> Outcome:
        """A sum of nothing is 0; nothing holds of a mean without values, or a deviation of fewer than two."""
        value = float("nan")
        if self._what == "sum":
            value = self._sum
        elif self._what == "mean" and self._numbers:
            value = self._sum / self._numbers
        elif self._what == "std" and self._numbers > 1:
            value = math.sqrt(self._squares / (self._numbers - 1))
        return verdict(not math.isnan(value) and self._bounds.hold(value))


def _moments(what: str) -> Callable[[Arguments], Callable[[], ColumnRule]]:
    def built(arguments: Arguments) -> Callable[[], ColumnRule]:
        name, kind = arguments.column()
        if kind not in _NUMBERS:
            raise NotCompiled
        bounds = arguments.bounds()
        return lambda: Moments(name, bounds, what)

    return built


class Ordered(Counted):
    """Median and quantiles, of all values: 8 bytes each."""

    def __init__(self, name: str, holds: Callable[[npt.NDArray[Any]], bool]) -> None:
        super().__init__()
        self._name, self._holds = name, holds
        self._parts: list[npt.NDArray[Any]] = []

    def update(self, block: Block) -> None:
        """Take one block."""
        self._parts.append(block.column(self._name).present)

    def merge(self, other: Ordered) -> None:
        """Absorb the state of other rows."""
        self._parts += other._parts

    @property
    def nbytes(self) -> int:
        """All values."""
        return sum(part.nbytes for part in self._parts)

    def finish(self) -> Outcome:
        """Not met without any value."""
        values = np.concatenate(self._parts) if self._parts else np.empty(0)
        return verdict(bool(len(values)) and self._holds(values))


def median(arguments: Arguments) -> Callable[[], ColumnRule]:
    """``expect_column_median_to_be_between``."""
    name, kind = arguments.column()
    if kind not in _NUMBERS:
        raise NotCompiled
    bounds = arguments.bounds()
    return lambda: Ordered(name, lambda values: bounds.hold(float(np.median(values))))


def quantiles(arguments: Arguments) -> Callable[[], ColumnRule]:
    """``expect_column_quantile_values_to_be_between``; near a bound is within (relative tolerance 1e-4)."""
    name, kind = arguments.column()
    asked = arguments.need("quantile_ranges", dict)
    # False, or nothing, is the nearest value; otherwise one of NumPy's methods.
    how: Any = arguments.take_any("allow_relative_error") or "nearest"
    shares, ranges = asked.get("quantiles"), asked.get("value_ranges")
    if kind not in _NUMBERS or how not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise NotCompiled
    if not _is_quantiles(shares, ranges) or set(asked) != {"quantiles", "value_ranges"}:
        raise NotCompiled

    def holds(values: npt.NDArray[Any]) -> bool:
        found = np.percentile(values, np.asarray(shares) * 100, method=how)
        return all(_near(float(v), *ends) for v, ends in zip(found, ranges, strict=True))

    return lambda: Ordered(name, holds)


def _is_quantiles(shares: Any, ranges: Any) -> bool:
    lists = isinstance(shares, list) and isinstance(ranges, list) and 0 < len(shares) == len(ranges)
    return (
        lists
        and all(is_number(s) and 0 <= s <= 1 for s in shares)
        and all(isinstance(r, list) and len(r) == 2 for r in ranges)
        and all(end is None or is_number(end) for r in ranges for end in r)
    )


def _near(value: float, low: float | None, high: float | None) -> bool:
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    close = any(np.isclose(value, end, rtol=1e-4, atol=1e-8) for end in (low, high))
    return bool(close or low <= value <= high)


class Present(Counted):
    """The share of values that are not missing."""

    def __init__(self, name: str, bounds: Bounds) -> None:
        super().__init__()
        self._name, self._bounds = name, bounds

    def update(self, block: Block) -> None:
        """Take one block."""
        self.count(block.rows, block.column(self._name).missing_count)

    def merge(self, other: Present) -> None:
        """Absorb the state of other rows."""
        self.absorb(other)

    def finish(self) -> Outcome:
        """Of no rows, the share is 0."""
        return verdict(self._bounds.hold(self.present / self.rows if self.rows else 0))


def present(arguments: Arguments) -> Callable[[], ColumnRule]:
    """``expect_column_proportion_of_non_null_values_to_be_between``."""
    name, _ = arguments.column()
    bounds = arguments.bounds()
    return lambda: Present(name, bounds)


RULES = {
    "expect_column_min_to_be_between": _extreme(min),
    "expect_column_max_to_be_between": _extreme(max),
    "expect_column_sum_to_be_between": _moments("sum"),
    "expect_column_mean_to_be_between": _moments("mean"),
    "expect_column_stdev_to_be_between": _moments("std"),
    "expect_column_median_to_be_between": median,
    "expect_column_quantile_values_to_be_between": quantiles,
    "expect_column_proportion_of_non_null_values_to_be_between": present,
}
