"""Judges every device's load by the calibrated tails of its class, and teaches them what was quiet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from compute_guard.usage.calibration import Calibration
from compute_guard.usage.detectors.base import Typical
from compute_guard.usage.features import features
from compute_guard.usage.roster import Classes, Roster
from compute_guard.usage.samples import Bools, Floats
from compute_guard.usage.window import NEVER, Window


@dataclass(slots=True)
class Typicality:
    """One monitor's judgement. Call :meth:`judge` once per cell, then :meth:`learn` with what was reported.

    ``doubtful``: surprise from which a cell teaches nothing; counted in ``would_signal``, also while the
    detector is in shadow. Made-up readings teach nothing unless ``accept_synthetic``.
    """

    calibration: Calibration
    doubtful: float = 7.5
    accept_synthetic: bool = False
    would_signal: int = 0
    _values: Floats | None = field(default=None)
    _classes: Classes = field(default_factory=lambda: Classes.of(()))
    _surprise: Floats | None = field(default=None)
    _end_ns: int = NEVER

    def judge(self, window: Window, held: Roster) -> Typical | None:
        """How surprising each load is; None while nothing is calibrated or a window is not full."""
        values = features(window)
        self._values, self._surprise = values, None
        self._classes = classes_of(window, held)
        known = np.isfinite(values).any(axis=0)
        if not known.any():
            return None
        tails = [self.calibration.tails(name) for name in self._classes.names]
        if all(found is None for found in tails):
            return None
        beyond = self.calibration.exceedance(values)
        surprise = np.zeros_like(values)
        usual = np.full_like(values, np.nan)
        for code, found in enumerate(tails):
            if found is not None:
                where = self._classes.code == code
                part = np.maximum(found.surprise(values[:, where], 0), found.surprise(beyond[:, where], 1))
                surprise[:, where] = part
                usual[:, where] = found.start[0][:, None]
        self._surprise = surprise
        return Typical(values, surprise, usual, self._classes)

    def learn(self, window: Window, reported: Collection[str]) -> None:
        """Teach the tails this cell, once, but for devices (by key) about which something was said."""
        if self._values is None or window.end_ns == self._end_ns:
            return
        self._end_ns = window.end_ns
        quiet: Bools = window.sample_ns[-1] != NEVER
        if not self.accept_synthetic:
            quiet &= ~window.traits.synthetic
        quiet[[column for key in reported if (column := window.columns.get(key)) is not None]] = False
        if self._surprise is not None:
            odd = self._surprise.max(axis=0) >= self.doubtful
            self.would_signal += int(odd.sum())
            quiet &= ~odd
        self.calibration.learn(self._values, self._classes, quiet)


def classes_of(window: Window, held: Roster) -> Classes:
    """Classes now: kind of the job on each device (``shared`` for several, empty for none) and model."""
    kind, kinds = held.kinds_of(held.active(window.end_ns - 1), len(window.devices))
    models = window.traits.models
    together = kind * max(len(models), 1) + window.traits.model
    present, code = np.unique(together, return_inverse=True)
    names = tuple((kinds[which // len(models)], models[which % len(models)]) for which in present.tolist())
    return Classes(names, code)
