"""USAG002: memory held, nothing computed, for longer than policy allows.

Idleness is not an anomaly: in public traces a third to two thirds of all GPU minutes are exactly 0 (Alibaba
PAI 2020, GenTD26). It is a policy, so there is a grace per kind of job, services that wait for requests are
left alone by default, and the most this makes is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from compute_guard.usage.detectors.base import Signal, View
from compute_guard.usage.window import NEVER

_HOUR_NS: Final = 3_600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class IdleHoard:
    """Hours of holding that are allowed, by the kind a job declares. ``exempt`` kinds are never reported."""

    rule_id: ClassVar[str] = "USAG002"
    kind: ClassVar[str] = "idle_hoard"

    batch_hours: float = 2.0
    notebook_hours: float = 8.0
    exempt: tuple[str, ...] = ("service",)

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per leased device that idles beyond its grace now."""
        since = view.window.idle_since_ns
        shortest = int(min(self.batch_hours, self.notebook_hours) * _HOUR_NS)
        for index in np.flatnonzero((since != NEVER) & (since <= view.at_ns - shortest)).tolist():
            device = view.window.devices[index]
            held = view.at_ns - int(since[index])
            for lease in view.book.on(device.key, view.at_ns):
                hours = self.notebook_hours if lease.kind == "notebook" else self.batch_hours
                idle = min(held, view.at_ns - lease.start_ns)
                if lease.kind in self.exempt or idle < hours * _HOUR_NS:
                    continue
                memory = view.window.scores["memory_used_bytes"].level[index]
                yield Signal(
                    rule_id=self.rule_id,
                    kind=self.kind,
                    channel="telemetry",
                    device=device.key,
                    score=min(1000, int(400 * idle / (hours * _HOUR_NS))),
                    message=f"{memory / 2**30:.1f} GiB held without computing for {idle / _HOUR_NS:.1f} h",
                    message_zh=f"占用显存{memory / 2**30:.1f} GiB，{idle / _HOUR_NS:.1f}小时未进行计算",
                    evidence={
                        "idle_hours": round(idle / _HOUR_NS, 2),
                        "allowed_hours": hours,
                        "memory_gib": round(float(memory) / 2**30, 1),
                        "declared_kind": lease.kind,
                    },
                    synthetic=device.synthetic,
                    tenant=lease.tenant,
                    job=lease.job,
                )


DETECTOR = IdleHoard
