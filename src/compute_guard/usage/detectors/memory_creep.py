"""USAG007: device memory that only grows, and when it will be full.

A least-squares line through the window's memory readings. It must explain nearly all of their variance,
both halves of the window must climb at a similar speed (allocation at the start of a job flattens), and it
must reach the size of the device within the horizon. The size comes from the model's name ("H100-80GB") or
from the table of NVIDIA's data sheets below; of a device whose size is not known nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from compute_guard.usage.detectors.base import Signal, View

_Matrix = npt.NDArray[np.float64]
SIZES_GIB: Final[Mapping[str, int]] = {
    "B200": 180,
    "H200": 141,
    "H100": 80,
    "L40S": 48,
    "L40": 48,
    "L4": 24,
    "A10G": 24,
    "A10": 24,
    "T4": 16,
}
"""Nominal memory by model, where the name does not say it. A100 and V100 come in several sizes: name only."""
_NAMED = re.compile(r"(\d{1,3})\s?GB", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MemoryCreep:
    """``samples``: cells looked at. ``explained``: share of variance. ``growth_bytes``: least growth then."""

    rule_id: ClassVar[str] = "USAG007"
    kind: ClassVar[str] = "memory_creep"

    samples: int = 40
    explained: float = 0.95
    growth_bytes: float = 256.0 * 2**20
    evenness: float = 0.5
    horizon_minutes: float = 120.0

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per device whose memory will be full within the horizon."""
        window = view.window
        if window.cells < self.samples:
            return
        columns = self._candidates(window.values["memory_used_bytes"][-self.samples :])
        memory = window.values["memory_used_bytes"][-self.samples :, columns].astype(np.float64)
        slope, explained, level = line(memory)
        half = self.samples // 2
        first, second = line(memory[:half])[0], line(memory[half:])[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            even = np.fmin(first, second) >= self.evenness * np.fmax(first, second)
            grows = (slope * self.samples >= self.growth_bytes) & (explained >= self.explained) & even
        grows &= np.isfinite(memory).mean(axis=0) >= 0.8
        for index in np.flatnonzero(grows).tolist():
            device = window.devices[int(columns[index])]
            size = size_bytes(device.model)
            if size is None:
                continue
            minutes = max(0.0, (size - level[index]) / slope[index] * window.step_ns / 60e9)
            if minutes > self.horizon_minutes:
                continue
            rate = slope[index] * 60e9 / window.step_ns
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="forecast",
                device=device.key,
                score=int(800 - 500 * minutes / self.horizon_minutes),
                message=f"memory grows {rate / 2**20:.0f} MiB a minute and is full in {minutes:.0f} minutes",
                message_zh=f"显存每分钟增长{rate / 2**20:.0f} MiB，{minutes:.0f}分钟后将耗尽",
                evidence={
                    "mib_per_minute": round(rate / 2**20, 1),
                    "minutes_to_full": round(minutes, 1),
                    "memory_gib": round(level[index] / 2**30, 2),
                    "device_gib": round(size / 2**30),
                    "explained": round(float(explained[index]), 3),
                },
                synthetic=device.synthetic,
            )

    def _candidates(self, memory: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """Columns whose line may climb enough, or that have gaps: few, so the rest is cheap.

        The slope alone is one product of a vector and a matrix. Half of the growth asked for is enough here,
        so that rounding leaves nobody out.
        """
        when = np.arange(len(memory), dtype=np.float32) - np.float32((len(memory) - 1) / 2)
        with np.errstate(invalid="ignore", over="ignore"):
            slope = (when / (when @ when)) @ memory
            return np.flatnonzero(~(slope * len(memory) < self.growth_bytes / 2))


def line(values: _Matrix) -> tuple[_Matrix, _Matrix, _Matrix]:
    """Slope per cell, share of variance explained and value at the last cell, each (S,), of (T, S) values.

    Missing cells are left out; all results are NaN where fewer than two cells were seen or nothing varies.
    """
    seen = np.isfinite(values)
    weight = seen.astype(np.float64)
    filled = np.where(seen, values, 0.0)
    when = np.arange(len(values), dtype=np.float64)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        count = weight.sum(axis=0)
        centre, mean = (weight * when).sum(axis=0) / count, filled.sum(axis=0) / count
        off, away = weight * (when - centre), np.where(seen, values - mean, 0.0)
        slope = (off * away).sum(axis=0) / (off**2).sum(axis=0)
        explained = slope**2 * (off**2).sum(axis=0) / (away**2).sum(axis=0)
        return slope, explained, mean + slope * (len(values) - 1 - centre)


def size_bytes(model: str) -> float | None:
    """Nominal memory of a GPU model, None when its name does not tell."""
    if named := _NAMED.search(model):
        return float(named[1]) * 2**30
    words = re.split(r"[\s\-_/]+", model.upper())
    return next((gib * 2.0**30 for name, gib in SIZES_GIB.items() if name in words), None)


DETECTOR = MemoryCreep
