"""USAG004: the sensors of one device contradict each other.

A hostile driver library can report 0 % utilisation (SANSAR, 2026, ships a fake ``libnvidia-ml.so.1``); it is
harder to fake everything consistently. Computing costs energy and makes heat. So while utilisation is
reported as nothing:

- ``power``: the device draws a third of its limit or more;
- ``energy``: its energy counter rises as fast, or disagrees with its power reading;
- ``activity``: its tensor pipe or memory is busy;
- ``temperature``: it is as hot as a working device.

Each is one channel and must hold in nearly all samples of two minutes, so that a burst between two readings
or a device that is cooling down is not a contradiction. One channel is a warning, two are an incident.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compute_guard.incidents.words import CHANNELS
from compute_guard.usage.detectors.base import Signal, View, rounded
from compute_guard.usage.samples import Bools
from compute_guard.usage.window import Window


@dataclass(frozen=True, slots=True)
class TelemetryContradiction:
    """Samples count cells; shares are of the power limit or of time; watts are absolute floors."""

    rule_id: ClassVar[str] = "USAG004"
    kind: ClassVar[str] = "telemetry_contradiction"

    samples: int = 8
    agreement: float = 0.9
    idle_percent: float = 5.0
    power_share: float = 0.35
    power_floor_w: float = 60.0
    mismatch_share: float = 0.3
    mismatch_w: float = 40.0
    activity_share: float = 0.1
    hot_c: float = 60.0

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per device and channel that contradicts now."""
        window = view.window
        if window.cells <= self.samples:
            return
        for channel, found, seen in self._channels(window):
            for index in np.flatnonzero(found).tolist():
                device = window.devices[index]
                yield Signal(
                    rule_id=self.rule_id,
                    kind=self.kind,
                    channel=channel,
                    device=device.key,
                    score=700,
                    message=f"{channel} shows work ({seen}) that the reported utilisation denies",
                    message_zh=f"{CHANNELS[channel][1]}表明加速卡在工作，与上报的利用率相矛盾",
                    evidence={
                        "util_percent": rounded(window.mean("util_percent", self.samples)[index]),
                        "power_w": rounded(window.mean("power_w", self.samples)[index], 1),
                        "power_limit_w": rounded(window.mean("power_limit_w", self.samples)[index], 1),
                        "temperature_c": rounded(window.mean("temperature_c", self.samples)[index], 1),
                        "sm_clock_mhz": rounded(window.mean("sm_clock_mhz", self.samples)[index], 0),
                    },
                    synthetic=device.synthetic,
                )

    def _channels(self, window: Window) -> Iterator[tuple[str, Bools, str]]:
        n = self.samples

        def last(metric: str) -> npt.NDArray[np.floating]:
            return window.values[metric][-n:]

        idle = last("util_percent") <= self.idle_percent
        enough = np.fmax(last("power_limit_w") * self.power_share, self.power_floor_w)
        drawn = window.rate("energy_j", n)
        with np.errstate(invalid="ignore"):
            off = np.abs(drawn - last("power_w"))
            mismatch = (off > self.mismatch_w) & (off > self.mismatch_share * np.fmax(drawn, last("power_w")))
            busy = np.fmax(last("tensor_active"), last("dram_active")) >= self.activity_share
            yield "power", self._held(idle & (last("power_w") >= enough), last("power_w")), "power draw"
            energy = self._held(idle & (drawn >= enough), drawn) | self._held(mismatch, off)
            yield "energy", energy, "energy counter"
            seen = np.fmax(last("tensor_active"), last("dram_active"))
            yield "activity", self._held(idle & busy, seen), "tensor or memory activity"
            hot = idle & (last("temperature_c") >= self.hot_c)
            yield "temperature", self._held(hot, last("temperature_c")), "temperature"

    def _held(self, condition: Bools, sensor: npt.NDArray[np.floating]) -> Bools:
        """True in nearly all samples in which the sensor was read, and read in most."""
        read = np.isfinite(sensor)
        count = read.sum(axis=0)
        held: Bools = (count >= 0.75 * self.samples) & (
            (condition & read).sum(axis=0) >= self.agreement * count
        )
        return held


DETECTOR = TelemetryContradiction
