"""USAG014: the readings themselves cannot be trusted any more.

SANSAR (2026) puts a false ``libnvidia-ml.so.1`` in the place of the driver's. Channels: ``library``, the
driver library that readings come through is none of those the operator lists, or changed while being watched
(an invariant); ``gap``, a device that a job holds falls silent while the rest of the fleet goes on
reporting; ``source``, two exporters tell very different utilisations of one device for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compute_guard.usage.detectors.base import Signal, View, rounded
from compute_guard.usage.detectors.unattributed_process import NOBODY
from compute_guard.usage.window import NEVER


@dataclass(frozen=True, slots=True)
class SensorIntegrity:
    """``library_sha256``: the libraries there may be; empty: any, as long as it stays the same."""

    rule_id: ClassVar[str] = "USAG014"
    kind: ClassVar[str] = "sensor_integrity"

    library_sha256: tuple[str, ...] = ()
    silent_samples: int = 8
    fleet_share: float = 0.5
    samples: int = 8
    apart_percent: float = 40.0

    def detect(self, view: View) -> Iterator[Signal]:
        """Signals about nodes and devices whose readings are missing, contradicted or of unknown make."""
        yield from self._libraries(view)
        yield from self._gaps(view)
        yield from self._sources(view)

    def _libraries(self, view: View) -> Iterator[Signal]:
        for node, digest in sorted(view.activity.libraries.items()):
            before, _, now = digest.rpartition(">")
            listed = not self.library_sha256 or now in self.library_sha256
            if listed and not before:
                continue
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="library",
                device="",
                score=950,
                message="the driver library changed while it was in use"
                if listed
                else "the driver library is none of those the operator lists",
                message_zh="驱动库在使用中被更换" if listed else "驱动库不在运营方登记之列",
                evidence={"node": node, "sha256": now, "before": before or None},
                invariant=True,
                tenant=NOBODY,
                job=node,
            )

    def _gaps(self, view: View) -> Iterator[Signal]:
        window = view.window
        n = self.silent_samples
        if window.cells <= 2 * n:
            return
        seen = window.sample_ns != NEVER
        silent = ~seen[-n:].any(axis=0) & seen[:-n].any(axis=0)
        # A whole fleet that falls silent is our scrape, not a hidden miner.
        alive = seen[-n:].any(axis=0).sum()
        if not silent.any() or alive < self.fleet_share * (alive + silent.sum()):
            return
        for index in np.flatnonzero(silent).tolist():
            device = window.devices[index]
            for lease in view.book.on(device.key, view.at_ns):
                if lease.tenant:
                    yield Signal(
                        rule_id=self.rule_id,
                        kind=self.kind,
                        channel="gap",
                        device=device.key,
                        score=500,
                        message=f"a held device has not reported for {n} samples while {alive} others did",
                        message_zh=f"被占用的加速卡已{n}次采样未上报，同期另有{alive}张正常上报",
                        evidence={"silent_samples": n, "others_reporting": int(alive)},
                        synthetic=device.synthetic,
                        tenant=lease.tenant,
                        job=lease.job,
                    )

    def _sources(self, view: View) -> Iterator[Signal]:
        window, n = view.window, self.samples
        util = window.values["util_percent"][-n:]
        for one, other in window.twins:
            with np.errstate(invalid="ignore"):
                apart = np.abs(util[:, one] - util[:, other])
            both = np.isfinite(apart)
            if both.sum() < 0.75 * n or not (apart[both] >= self.apart_percent).all():
                continue
            device = window.devices[one]
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="source",
                device=device.key,
                score=800,
                message=f"two exporters tell utilisations {np.nanmedian(apart):.0f} points apart",
                message_zh=f"两个采集来源的利用率相差{np.nanmedian(apart):.0f}个百分点",
                evidence={
                    "one": window.devices[one].uuid,
                    "other": window.devices[other].uuid,
                    "util_percent": [rounded(float(np.nanmean(util[:, i]))) for i in (one, other)],
                },
                synthetic=device.synthetic,
            )


DETECTOR = SensorIntegrity
