"""Running statistics of every series at once, in constant memory per series.

For each series: an exponentially weighted level and absolute deviation, a two-sided
CUSUM of standardised residuals (Page 1954) and the age of the present regime in samples. When the
CUSUM crosses its limit the series is re-anchored at the new value: ``age`` then counts from there, so
"flat" is simply *old and with a small deviation*, at any level. Five numbers of 4 bytes = 20 per series.

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

_BLOCK = 32_768  # series per block: what a block needs stays in the second-level cache
_ZERO = np.float32(0)
_ABSOLUTE_TO_SIGMA = 1.2533141  # sigma = sqrt(pi/2) * mean absolute deviation, for a normal


@dataclass(frozen=True, slots=True)
class Tuning:
    """How fast the statistics move. Rates are per sample, limits in units of scale."""

    rate: float = 0.15
    slack: float = 0.5
    limit: float = 8.0
    clip: float = 8.0


@dataclass(frozen=True, slots=True)
class Scores:
    """An immutable reading of the statistics, each (series,). ``age`` is 0 for a series never seen."""

    level: Floats
    deviation: Floats
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

    __slots__ = ("_born", "_cusum", "_deviation", "_floor", "_level", "_spare", "_tick", "_tuning", "_young")

    def __init__(self, *, floor: float, size: int = 0, tuning: Tuning | None = None) -> None:
        if floor <= 0:
            raise ValueError("the floor of a scale must be above 0")
        self._tuning = tuning or Tuning()
        # Residuals are held in mean absolute deviations, not in sigmas: the factor between them is put into
        # the constants here and taken out in `scores`, which saves every sample a multiplication.
        self._floor = np.float32(floor / _ABSOLUTE_TO_SIGMA)
        self._level = np.zeros(size, dtype=np.float32)
        self._deviation = np.zeros(size, dtype=np.float32)
        self._cusum = np.zeros((2, size), dtype=np.float32)  # upwards, downwards
        self._tick = 0
        self._born = np.zeros(size, dtype=np.int32)  # the tick before the first sample of the present regime
        self._young = True  # some series may be without a sample
        self._spare = np.empty((2, _BLOCK), dtype=np.float32)  # for what a block needs only while it is done

    def __len__(self) -> int:
        return len(self._level)

    def grow(self, size: int) -> None:
        """Add series, never seen yet, up to ``size``."""
        extra = size - len(self)
        if extra > 0:
            for name, start in (("_level", 0), ("_deviation", 0), ("_cusum", 0), ("_born", self._tick)):
                held = getattr(self, name)
                more = np.full((*held.shape[:-1], extra), start, dtype=held.dtype)
                setattr(self, name, np.concatenate([held, more], axis=-1))
            self._young = True

    def forget(self, mask: Bools) -> None:
        """Start the series in ``mask`` anew: after a gap, the past says nothing about the present."""
        self._born[mask] = self._tick
        self._young = True

    def update(self, values: Floats) -> None:
        """Take one sample of every series, shape (series,). NaN and infinities leave a series as it was."""
        if values.shape != self._level.shape:
            raise ValueError(f"expected {self._level.shape[0]} values, got {values.shape}")
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, len(values), _BLOCK):
                self._update_block(values[start : start + _BLOCK], slice(start, start + _BLOCK))
        self._tick += 1
        self._young = self._young and bool((self._born == self._tick).any())

    def _update_block(self, values: Floats, where: slice) -> None:
        # Each pass costs its start as much as its arithmetic, so there are as few as the definition allows.
        tuning = self._tuning
        level, deviation = self._level[where], self._deviation[where]
        cusum, born = self._cusum[:, where], self._born[where]
        z, scale = self._spare[0][: len(values)], self._spare[1][: len(values)]
        limit, clip = (np.float32(most * _ABSOLUTE_TO_SIGMA) for most in (tuning.limit, tuning.clip))
        usable: Bools | None = None
        held: tuple[tuple[Floats, Floats], ...] = ()
        if not np.isfinite(values.sum()):  # one pass tells that all are finite, as they nearly always are
            usable = np.isfinite(values)
            # A stand-in (the series' own level) keeps the arithmetic branch-free; what decays is put back.
            values = np.where(usable, values, level)
            held = tuple((array, array.copy()) for array in (deviation, cusum))
        if self._young:
            self._begin(born == self._tick, values, where)
        np.maximum(deviation, self._floor, out=scale)
        np.subtract(values, level, out=z)
        z /= scale
        np.clip(z, -clip, clip, out=z)
        cusum[0] += z
        cusum[1] -= z
        cusum -= np.float32(tuning.slack * _ABSOLUTE_TO_SIGMA)
        np.maximum(cusum, _ZERO, out=cusum)
        z *= scale  # the clipped residual: one wild sample moves the level by a bounded amount
        z *= np.float32(tuning.rate)
        level += z
        np.abs(z, out=z)
        deviation *= np.float32(1.0 - tuning.rate)
        deviation += z
        if usable is not None:
            for array, before in held:
                np.copyto(array, before, where=~usable)
            born += ~usable
        if cusum.max() > limit:
            shifted = cusum.max(axis=0) > limit
            self._begin(shifted, values, where)
            np.copyto(born, self._tick, where=shifted)

    def _begin(self, which: Bools, values: Floats, where: slice) -> None:
        """Anchor the series of ``which`` in the block ``where`` at ``values``."""
        np.copyto(self._level[where], values, where=which)
        np.copyto(self._deviation[where], _ZERO, where=which)
        np.copyto(self._cusum[:, where], _ZERO, where=which)

    def scores(self) -> Scores:
        """A copy of the statistics that later updates do not change."""
        sigmas = self._cusum / np.float32(_ABSOLUTE_TO_SIGMA)
        age = (self._tick - self._born).astype(np.float32)
        copies = (self._level.copy(), self._deviation.copy(), *sigmas, age)
        for copy in copies:
            copy.flags.writeable = False
        return Scores(*copies)
