"""USAG001, telemetry channel: a load that computes like a miner.

Integer hashing keeps the device busy at one level, uses no tensor cores, moves next to nothing over PCIe and
NVLink and holds its memory still. Shapes looked for:

- *flat*: an unchanging level (any: a cap at 40-70 % is as flat as full speed), tensor and links near zero;
- *flat* where a miner's name or pool is seen as well: three samples say as much there as five elsewhere, if
  tensor and link activity are strictly nothing;
- *sustained*: not flat (duty-cycled, ramped), but minutes of load with strictly no tensor and link activity;
- *level without counters*: where there is no tensor counter, only an unchanging level *below* saturation is
  evidence: a training job pins a device at 100 %, nothing but a limiter pins it at 57 %.

Peers: Tanana 2024 (arXiv 2408.14554) uses a flat *high* load only. All of this is one channel: a legitimate
simulation can look the same, so telemetry alone never makes more than a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from compute_guard.usage.detectors.base import Signal, View, rounded
from compute_guard.usage.detectors.mining_indicator import MiningIndicator
from compute_guard.usage.samples import Bools
from compute_guard.usage.window import Window

_SHAPES_ZH: Final = {"flat": "负载平直", "sustained": "长时间持续"}
_AS_TIGHT_FROM: Final = np.float32(40.0)  # percent: below, what counts as flat shrinks with the level


@dataclass(frozen=True, slots=True)
class MiningSignature:
    """Parameters: samples count cells of the window; shares are 0..1; rates bytes per second.

    ``names``: executables of your own, as in ``mining_indicator``.
    """

    rule_id: ClassVar[str] = "USAG001"
    kind: ClassVar[str] = "mining"

    flat_samples: int = 5
    corroborated_samples: int = 3
    sustained_samples: int = 40
    uncounted_samples: int = 24
    busy_percent: float = 15.0
    flat_percent: float = 1.5
    saturated_percent: float = 90.0
    tensor_share: float = 0.02
    strict_tensor_share: float = 0.004
    link_bytes_per_s: float = 4e6
    strict_link_bytes_per_s: float = 1e6
    steady_bytes: float = 64.0 * 2**20
    power_share: float = 0.03
    names: tuple[str, ...] = ()

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per device that computes like a miner now."""
        window = view.window
        shapes = {
            "flat": self._flat(window, self.flat_samples, self.tensor_share, self.link_bytes_per_s)
            | self._corroborated(view),
            "sustained": self._sustained(window),
            "level": self._uncounted(window),
        }
        level = window.scores["util_percent"].level
        for index in np.flatnonzero(shapes["flat"] | shapes["sustained"] | shapes["level"]).tolist():
            shape = next(name for name, found in shapes.items() if found[index])
            device = window.devices[index]
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="telemetry",
                device=device.key,
                score={"flat": 800, "sustained": 700, "level": 500}[shape],
                message=f"load at {level[index]:.0f} % with no tensor or link activity ({shape})"
                if shape != "level"
                else f"load held at {level[index]:.0f} %, below saturation, without change",
                message_zh=f"负载{level[index]:.0f}%，张量核心与链路均无活动（{_SHAPES_ZH[shape]}）"
                if shape != "level"
                else f"负载恒定在{level[index]:.0f}%，未达饱和且无变化",
                evidence={
                    "shape": shape,
                    "util_percent": rounded(level[index]),
                    "util_deviation": rounded(window.scores["util_percent"].deviation[index]),
                    "unchanged_samples": int(window.scores["util_percent"].age[index]),
                    "tensor_active": rounded(window.mean("tensor_active", self.flat_samples)[index], 4),
                    "pcie_bytes_per_s": rounded(window.mean("pcie_bytes_per_s", self.flat_samples)[index], 0),
                    "power_w": rounded(window.scores["power_w"].level[index], 1),
                },
                synthetic=device.synthetic,
            )

    def _flat(self, window: Window, n: int, tensor: float, link: float) -> Bools:
        return (
            self._unchanging(window, n, self.flat_percent)
            & self._still(window, n)
            & self._below(window, "tensor_active", n, tensor)
            & self._below(window, "pcie_bytes_per_s", n, link)
            & ~self._above(window, "nvlink_bytes_per_s", n, link)
        )

    def _corroborated(self, view: View) -> Bools:
        """Flat, strictly without tensor and link activity, where a miner's name or pool is seen too."""
        marked = np.zeros(len(view.window.devices), dtype=np.bool_)
        marked[list(MiningIndicator(self.names).indicated(view))] = True
        if marked.any():
            strict = (self.strict_tensor_share, self.strict_link_bytes_per_s)
            marked &= self._flat(view.window, self.corroborated_samples, *strict)
        return marked

    def _sustained(self, window: Window) -> Bools:
        n = min(self.sustained_samples, window.cells)
        util = window.mean("util_percent", n)
        with np.errstate(invalid="ignore"):
            busy = (util >= 1.5 * self.busy_percent) & window.known("util_percent", n, share=0.8)
            steady = window.scores["memory_used_bytes"].age >= n
        return (
            busy
            & steady
            & self._below(window, "tensor_active", n, self.strict_tensor_share, share=0.8)
            & self._below(window, "pcie_bytes_per_s", n, self.strict_link_bytes_per_s, share=0.8)
            & ~self._above(window, "nvlink_bytes_per_s", n, self.strict_link_bytes_per_s)
        )

    def _uncounted(self, window: Window) -> Bools:
        n = self.uncounted_samples
        return (
            ~window.known("tensor_active", n, share=0.1)
            & self._unchanging(window, n, self.flat_percent / 2)
            & (window.scores["util_percent"].level <= self.saturated_percent)
            & self._still(window, n)
            & ~self._above(window, "pcie_bytes_per_s", n, self.link_bytes_per_s)
            & ~self._above(window, "nvlink_bytes_per_s", n, self.link_bytes_per_s)
        )

    def _unchanging(self, window: Window, samples: int, percent: float) -> Bools:
        """Busy at one level, by the running statistics or, after a change, by the last samples alone."""
        util, power = window.scores["util_percent"], window.scores["power_w"]
        # A limiter holds a low level as tightly, in its measure; low loads of services come close by chance.
        level = window.mean("util_percent", samples)
        limit = window.mean("power_limit_w", samples)
        with np.errstate(invalid="ignore"):
            watts = np.fmax(np.float32(8.0), limit * np.float32(self.power_share))
            allowed = np.float32(percent) * np.clip(level / _AS_TIGHT_FROM, 0.4, 1.0)
            old = (util.age >= samples) & (util.deviation <= allowed)
            old &= (power.age == 0) | (power.deviation <= watts)
            recent = window.spread("util_percent", samples) <= 3.0 * allowed
            recent &= (power.age == 0) | (window.spread("power_w", samples) <= 3.0 * watts)
            busy = level >= self.busy_percent
        found: Bools = busy & (old | recent) & window.known("util_percent", samples, share=0.8)
        return found

    def _still(self, window: Window, samples: int) -> Bools:
        memory = window.scores["memory_used_bytes"]
        with np.errstate(invalid="ignore"):
            recent = window.spread("memory_used_bytes", samples) <= 2.0 * self.steady_bytes
        found: Bools = recent | ((memory.age >= samples) & (memory.deviation <= self.steady_bytes))
        return found

    @staticmethod
    def _below(window: Window, metric: str, samples: int, limit: float, *, share: float = 0.5) -> Bools:
        """Known, and on average below ``limit``."""
        with np.errstate(invalid="ignore"):
            found: Bools = window.known(metric, samples, share=share) & (
                window.mean(metric, samples) <= limit
            )
        return found

    @staticmethod
    def _above(window: Window, metric: str, samples: int, limit: float) -> Bools:
        """Seen at all, and on average above ``limit``."""
        with np.errstate(invalid="ignore"):
            found: Bools = window.mean(metric, samples) > limit
        return found


DETECTOR = MiningSignature
