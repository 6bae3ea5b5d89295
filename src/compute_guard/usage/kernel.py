"""Running statistics of every series at once, in constant memory per series.

For each series: an exponentially weighted level and absolute deviation, a faster level, a two-sided
CUSUM of standardised residuals (Page 1954) and the age of the present regime in samples. When the
CUSUM crosses its limit the series is re-anchored at the new value: ``age`` then counts from there, so
"flat" is simply *old and with a small deviation*, at any level. Six ``float32`` = 24 bytes per series.

Real GPU telemetry sits at exactly 0 two thirds of the time, where a deviation goes to 0 and a z-score
to infinity. So every scale has a physical floor (1 % utilisation, 64 MiB, 5 W): a change smaller than
what means anything is not a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from compute_guard.usage.samples import Bools, Floats

FLOORS: Final[Mapping[str, float]] = {
    "util_percent": 1.0,
    "memory_used_bytes": 64.0 * 2**20,
    "power_w": 5.0,
    "tensor_active": 0.01,
    "dram_active": 0.01,
    "pcie_bytes_per_s": 1e6,
    "nvlink_bytes_per_s": 1e6,
    "sm_clock_mhz": 15.0,
    "temperature_c": 1.0,
}
"""Smallest scale that means anything, per metric, in the metric's unit."""

_BLOCK = 8192  # series per block: the temporaries of a block stay in the second-level cache
_ABSOLUTE_TO_SIGMA = np.float32(1.2533141)  # sigma = sqrt(pi/2) * mean absolute deviation, for a normal


@dataclass(frozen=True, slots=True)
class Tuning:
    """How fast the statistics move. Rates are per sample, limits in units of scale."""

    rate: float = 0.15
    fast_rate: float = 0.4
    slack: float = 0.5
    limit: float = 8.0
    clip: float = 8.0


@dataclass(frozen=True, slots=True)
class Scores:
    """An immutable reading of the statistics, each (series,). ``age`` is 0 for a series never seen."""

    level: Floats
    deviation: Floats
    fast: Floats
    cusum_high: Floats
    cusum_low: Floats
    age: Floats


class Series:
    """The running statistics of one metric over all series. Not thread-safe; one owner updates it.

    >>> series = Series(floor=1.0, size=1)
    >>> for value in (60.0, 60.5, 59.5, 60.0): series.update(np.array([value], dtype=np.float32))
    >>> float(series.scores().age[0])
    4.0
    """

    __slots__ = ("_age", "_deviation", "_fast", "_floor", "_high", "_level", "_low", "_tuning")

    def __init__(self, *, floor: float, size: int = 0, tuning: Tuning | None = None) -> None:
        if floor <= 0:
            raise ValueError("the floor of a scale must be above 0")
        self._floor = np.float32(floor)
        self._tuning = tuning or Tuning()
        self._level = np.zeros(size, dtype=np.float32)
        self._deviation = np.zeros(size, dtype=np.float32)
        self._fast = np.zeros(size, dtype=np.float32)
        self._high = np.zeros(size, dtype=np.float32)
        self._low = np.zeros(size, dtype=np.float32)
        self._age = np.zeros(size, dtype=np.float32)

    def __len__(self) -> int:
        return len(self._level)

    def grow(self, size: int) -> None:
        """Add series, never seen yet, up to ``size``."""
        extra = size - len(self)
        if extra > 0:
            for name in ("_level", "_deviation", "_fast", "_high", "_low", "_age"):
                grown = np.concatenate([getattr(self, name), np.zeros(extra, dtype=np.float32)])
                setattr(self, name, grown)

    def forget(self, mask: Bools) -> None:
        """Start the series in ``mask`` anew: after a gap, the past says nothing about the present."""
        self._age[mask] = 0.0

    def update(self, values: Floats) -> None:
        """Take one sample of every series, shape (series,). NaN and infinities leave a series as it was."""
        if values.shape != self._level.shape:
            raise ValueError(f"expected {self._level.shape[0]} values, got {values.shape}")
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, len(values), _BLOCK):
                self._update_block(values[start : start + _BLOCK], slice(start, start + _BLOCK))

    def _update_block(self, values: Floats, where: slice) -> None:
        tuning, floor = self._tuning, self._floor
        level, deviation, fast = self._level[where], self._deviation[where], self._fast[where]
        high, low, age = self._high[where], self._low[where], self._age[where]
        usable = np.isfinite(values)
        held: tuple[tuple[Floats, Floats], ...] = ()
        if not usable.all():
            # A stand-in (the series' own level) keeps the arithmetic branch-free; what decays is put back.
            values = np.where(usable, values, level)
            held = tuple((array, array.copy()) for array in (deviation, fast, high, low))
        fresh = age == 0.0
        if fresh.any():
            np.copyto(level, values, where=fresh)
            np.copyto(fast, values, where=fresh)
            for array in (deviation, high, low):
                np.copyto(array, np.float32(0), where=fresh)
        residual = values - level
        scale = deviation * _ABSOLUTE_TO_SIGMA
        np.maximum(scale, floor, out=scale)
        z = residual / scale
        np.clip(z, -tuning.clip, tuning.clip, out=z)
        high += z
        high -= tuning.slack
        np.maximum(high, 0, out=high)
        low -= z
        low -= tuning.slack
        np.maximum(low, 0, out=low)
        z *= scale  # the clipped residual: one wild sample moves the level by a bounded amount
        z *= np.float32(tuning.rate)
        level += z
        np.abs(z, out=z)
        deviation *= np.float32(1.0 - tuning.rate)
        deviation += z
        fast += (values - fast) * np.float32(tuning.fast_rate)
        for array, before in held:
            np.copyto(array, before, where=~usable)
        age += usable
        shifted = np.maximum(high, low) > tuning.limit
        if shifted.any():
            np.copyto(level, values, where=shifted)
            np.copyto(fast, values, where=shifted)
            for array in (deviation, high, low):
                np.copyto(array, np.float32(0), where=shifted)
            np.copyto(age, np.float32(1), where=shifted)

    def scores(self) -> Scores:
        """A copy of the statistics that later updates do not change."""
        copies = []
        for array in (self._level, self._deviation, self._fast, self._high, self._low, self._age):
            copy = array.copy()
            copy.flags.writeable = False
            copies.append(copy)
        return Scores(*copies)
