"""USAG006: a running job that suddenly computes in another way, and stays so.

For each series of a device that one job has held for the whole window, a two-sided CUSUM (Page 1954) over
the recent part, standardised by level and spread of the older part. The spread has a physical floor (1 %
utilisation, 5 W): real series sit at exactly 0 or 100 for hours, where any change would be infinitely
unlikely. A checkpoint or an evaluation is over in a few samples, so the new level must have lasted, and two
series must agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compute_guard.incidents.words import METRICS as METRIC_WORDS
from compute_guard.usage.detectors.base import Signal, View, rounded
from compute_guard.usage.kernel import FLOORS
from compute_guard.usage.samples import Bools
from compute_guard.usage.window import Window

_Matrix = npt.NDArray[np.float64]
_ABSOLUTE_TO_SIGMA = 1.2533141  # sigma = sqrt(pi/2) * mean absolute deviation, for a normal
METRICS = ("util_percent", "power_w", "tensor_active", "dram_active", "memory_used_bytes")


@dataclass(frozen=True, slots=True)
class RegimeChange:
    """``reference`` and ``lasting`` count cells; ``shift`` and ``limit`` are in scales of the reference."""

    rule_id: ClassVar[str] = "USAG006"
    kind: ClassVar[str] = "regime_change"

    reference: int = 24
    lasting: int = 18
    shift: float = 6.0
    slack: float = 1.0
    limit: float = 40.0
    agreeing: int = 2

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per leased device whose load has changed and stayed changed."""
        window = view.window
        if window.cells < self.reference + self.lasting:
            return
        columns = self._candidates(window)
        changed = {metric: self._changed(window, metric, columns) for metric in METRICS}
        count = sum(found.astype(np.int64) for found, _, _ in changed.values())
        began = window.end_ns - window.cells * window.step_ns
        for index in np.flatnonzero(count >= self.agreeing).tolist():
            device = window.devices[int(columns[index])]
            leases = view.book.on(device.key, view.at_ns)
            if not leases or any(lease.start_ns > began for lease in leases):
                continue  # nobody's, or a new job: that it differs from the one before is no news
            names = [metric for metric, (found, _, _) in changed.items() if found[index]]
            old_new = {m: [rounded(changed[m][1][index]), rounded(changed[m][2][index])] for m in names}
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="telemetry",
                device=device.key,
                score=min(700, 300 + 100 * len(names)),
                message=f"the load has changed and stayed so ({', '.join(names)})",
                message_zh=f"负载已改变且持续（{'、'.join(METRIC_WORDS[name][1] for name in names)}）",
                evidence={"before_after": old_new, "series": names},
                synthetic=device.synthetic,
            )

    def _candidates(self, window: Window) -> npt.NDArray[np.int64]:
        """Columns where enough medians moved by more than the floors: few, so the rest is cheap."""
        moved = np.zeros(len(window.devices), dtype=np.int64)
        for metric in METRICS:
            before = window.median(metric, None, self.reference)
            with np.errstate(invalid="ignore"):
                away = np.abs(window.median(metric, -self.lasting, None) - before)
                moved += away >= np.float32(self.shift * FLOORS[metric])
        return np.flatnonzero(moved >= self.agreeing)

    def _changed(
        self, window: Window, metric: str, columns: npt.NDArray[np.int64]
    ) -> tuple[Bools, _Matrix, _Matrix]:
        """Where ``metric`` changed among ``columns``, with its level before and after."""
        values = window.values[metric][:, columns].astype(np.float64)
        old, recent, last = (
            values[: self.reference],
            values[self.reference :],
            values[-self.lasting :],
        )
        before = window.median(metric, None, self.reference)[columns].astype(np.float64)
        after = window.median(metric, -self.lasting, None)[columns].astype(np.float64)
        seen = np.isfinite(old).mean(axis=0) >= 0.8
        seen &= np.isfinite(last).mean(axis=0) >= 0.8
        with np.errstate(invalid="ignore"):
            away = np.abs(old - before)
            spread = np.where(np.isfinite(away), away, 0.0).sum(axis=0) / np.fmax(
                np.isfinite(away).sum(axis=0), 1
            )
            scale = np.fmax(spread * _ABSOLUTE_TO_SIGMA, FLOORS[metric])
            z = np.clip(np.nan_to_num((recent - before) / scale), -8.0, 8.0)
            side = np.sign(after - before)
            steadily = np.where(np.isfinite(last), (last - before) * side > self.shift * scale / 2, True)
            far = np.abs(after - before) >= self.shift * scale
        risen = np.fmax(_cusum(z, self.slack), _cusum(-z, self.slack)) > self.limit
        return seen & far & risen & (steadily.mean(axis=0) >= 0.9), before, after


def _cusum(z: _Matrix, slack: float) -> _Matrix:
    """The one-sided CUSUM after the last row: S_t = C_t - min(0, C_1..C_t), with C = cumsum(z - slack)."""
    total = np.cumsum(z - slack, axis=0)
    final: _Matrix = total[-1] - np.minimum(total.min(axis=0), 0.0)
    return final


DETECTOR = RegimeChange
