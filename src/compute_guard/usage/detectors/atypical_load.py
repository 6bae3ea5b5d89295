"""USAG016: a load that jobs of its class do not show.

Made for what no rule foresaw, and for clusters whose exporters give utilisation and memory only: mining under
another program's cover, ramped, duty-cycled or beside real work; a service that becomes something else; a
hang at full load; memory that creeps. The surprise comes from :mod:`compute_guard.usage.calibration`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compute_guard.usage.detectors.base import Signal, View, rounded
from compute_guard.usage.features import FEATURES


@dataclass(frozen=True, slots=True)
class AtypicalLoad:
    """``surprise``: -log10 of the tail probability. ``shadow``: judge and count, say nothing."""

    rule_id: ClassVar[str] = "USAG016"
    kind: ClassVar[str] = "atypical_load"

    surprise: float = 7.5
    shadow: bool = False

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per device whose load is that surprising now."""
        typical = view.typical
        if typical is None or self.shadow:
            return
        names = list(FEATURES)
        row = {name: number for number, name in enumerate(names)}
        for index in np.flatnonzero(typical.surprise.max(axis=0) >= self.surprise).tolist():
            device = view.window.devices[index]
            column = typical.surprise[:, index]
            order = np.argsort(column)[::-1]
            told = [names[i] for i in order[:3] if column[i] >= self.surprise / 2]
            first = int(order[0])
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="calibration",
                device=device.key,
                score=min(1000, int(60 * column[first])),
                message=f"{typical.values[first, index]:.4g} {FEATURES[names[first]].words}: "
                f"one in 10^{column[first]:.0f} for {typical.classes[index][0] or 'this'} jobs",
                message_zh=f"{FEATURES[names[first]].zh.format(f'{typical.values[first, index]:.4g}')}，"
                f"在同类作业中约为10^{column[first]:.0f}分之一",
                evidence={
                    "features": {n: rounded(float(typical.values[row[n], index])) for n in told},
                    "surprise": {n: rounded(float(column[row[n]]), 1) for n in told},
                    "usual_at_most": {n: rounded(float(typical.usual[row[n], index])) for n in told},
                    "class": "/".join(part or "?" for part in typical.classes[index]),
                },
                synthetic=device.synthetic,
            )


DETECTOR = AtypicalLoad
