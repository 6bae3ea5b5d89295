"""What a window of utilisation and memory looks like, as ten numbers per device.

Real work rests, varies and moves memory; what does none of these stands out whatever its level. Every feature
is a running order statistic or sum over the last cells, so all devices are done at once. They need only what
every exporter has: utilisation and memory. Shape of all arrays: (S,), NaN where the window is not full.

The features were chosen on real serving pods with events put in (``benchmarks/usage.py``); each has the range
of its histogram and a physical floor: a smaller difference means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from compute_guard.usage.samples import Floats
from compute_guard.usage.window import Window

CELLS: Final = 48
_GIB: Final = np.float32(2.0**-30)
_STEP_GIB: Final = 0.3  # memory moves by more at once when a model is loaded: that is no creep
_NOISE_GIB: Final = 0.004


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: its unit in words, the range of its values and the smallest scale that means anything.

    ``zh`` is a clause in Simplified Chinese with ``{}`` where the value stands.
    """

    words: str
    zh: str
    low: float
    high: float
    floor: float


FEATURES: Final[Mapping[str, Feature]] = {
    "rest_5": Feature("% at least, in 5 samples", "5次采样中利用率不低于{}%", 0.0, 100.0, 2.0),
    "rest_12": Feature("% at least, in 12 samples", "12次采样中利用率不低于{}%", 0.0, 100.0, 2.0),
    "rest_24": Feature("% at least, in 24 samples", "24次采样中利用率不低于{}%", 0.0, 100.0, 2.0),
    "mean_40": Feature("% on average, in 40 samples", "40次采样的平均利用率为{}%", 0.0, 100.0, 2.0),
    "high_40": Feature(
        "% or more in a quarter of 40 samples", "40次采样中有四分之一的利用率不低于{}%", 0.0, 100.0, 2.0
    ),
    "low_40": Feature(
        "% or more in three quarters of 40 samples", "40次采样中有四分之三的利用率不低于{}%", 0.0, 100.0, 2.0
    ),
    "busy_40": Feature("of 40 samples at 20 % or more", "40次采样中有{}次利用率不低于20%", 0.0, 40.0, 2.0),
    "flatness_5": Feature(
        "e-folds of level over spread, in 5 busy samples",
        "5次繁忙采样中负载水平与波动之比的对数为{}",
        0.0,
        5.0,
        0.1,
    ),
    "growth_48": Feature(
        "GiB grown in small steps, in 48 samples", "48次采样中显存小步增长{} GiB", -15.0, 15.0, 0.3
    ),
    "rises_48": Feature(
        "more small rises of memory than falls, of 48", "48次采样中显存小幅上升比下降多{}次", -48.0, 48.0, 2.0
    ),
}
"""In the order of the rows of :func:`features`."""


def features(window: Window) -> Floats:
    """The features of every device now, shape (len(FEATURES), S); all NaN before the window is full."""
    found: Floats = np.full((len(FEATURES), len(window.devices)), np.nan, dtype=np.float32)
    if window.cells < CELLS:
        return found
    util = window.values["util_percent"]
    memory = window.values["memory_used_bytes"][-CELLS:] * _GIB
    with np.errstate(invalid="ignore"):
        found[0], found[1], found[2] = (util[-n:].min(axis=0) for n in (5, 12, 24))
        last = util[-40:]
        ordered = np.sort(np.ascontiguousarray(last.T), axis=1)  # rows sort fastest
        found[3], found[4], found[5] = last.mean(axis=0), ordered[:, 30], ordered[:, 10]
        found[6] = (last >= 20.0).sum(axis=0)
        level, spread = util[-5:].mean(axis=0), np.ptp(util[-5:], axis=0)
        # Chance makes this ratio large as a power law does; its logarithm has the tail that is fitted.
        found[7] = np.where(level >= 15.0, np.log1p(level / (spread + 2.0)), 0.0)
        moved = np.diff(memory, axis=0)
        small = np.abs(moved) < _STEP_GIB
        found[8] = np.clip(moved, -_STEP_GIB, _STEP_GIB).sum(axis=0)
        found[9] = ((moved > _NOISE_GIB) & small).sum(axis=0) - ((moved < -_NOISE_GIB) & small).sum(axis=0)
        # NaN sorts last and compares as false, so what has gaps is told by its sums.
        gaps = np.isnan(found[3])
        found[4:7, gaps] = np.nan
        found[7, np.isnan(level)] = np.nan
        found[9, np.isnan(found[8])] = np.nan
    return found
