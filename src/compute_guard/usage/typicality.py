"""Judges every device's load by the calibrated tails of its class, and teaches them what was quiet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from compute_guard.usage.attribution import LeaseBook
from compute_guard.usage.calibration import Calibration, JobClass
from compute_guard.usage.detectors.base import Typical
from compute_guard.usage.features import features
from compute_guard.usage.rolling import NEVER, Window
from compute_guard.usage.samples import Bools, Floats


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
    _classes: list[JobClass] = field(default_factory=list)
    _surprise: Floats | None = field(default=None)
    _end_ns: int = NEVER

    def judge(self, window: Window, book: LeaseBook) -> Typical | None:
        """How surprising each load is; None while nothing is calibrated or a window is not full."""
        values = features(window)
        self._values, self._surprise = values, None
        self._classes = classes_of(window, book)
        known = np.isfinite(values).any(axis=0)
        if not known.any():
            return None
        tails = {name: self.calibration.tails(name) for name in set(self._classes)}
        if all(found is None for found in tails.values()):
            return None
        beyond = self.calibration.exceedance(values)
        surprise = np.zeros_like(values)
        usual = np.full_like(values, np.nan)
        names = np.asarray([hash(name) for name in self._classes])
        for name, found in tails.items():
            if found is not None:
                where = names == hash(name)
                part = np.maximum(found.surprise(values[:, where], 0), found.surprise(beyond[:, where], 1))
                surprise[:, where] = part
                usual[:, where] = found.start[0][:, None]
        self._surprise = surprise
        return Typical(values, surprise, usual, tuple(self._classes))

    def learn(self, window: Window, reported: Collection[str]) -> None:
        """Teach the tails this cell, once, but for devices (by key) about which something was said."""
        if self._values is None or window.end_ns == self._end_ns:
            return
        self._end_ns = window.end_ns
        made_up = self.accept_synthetic
        may = [d.key not in reported and (made_up or not d.synthetic) for d in window.devices]
        quiet: Bools = np.asarray(may, dtype=np.bool_) & (window.sample_ns[-1] != NEVER)
        if self._surprise is not None:
            odd = self._surprise.max(axis=0) >= self.doubtful
            self.would_signal += int(odd.sum())
            quiet &= ~odd
        self.calibration.learn(self._values, self._classes, quiet)


def classes_of(window: Window, book: LeaseBook) -> list[JobClass]:
    """Classes now: kind of the job on each device (``shared`` for several, empty for none) and model."""
    found = [("", device.model) for device in window.devices]
    at_ns = window.end_ns - 1
    for lease in book.leases:
        column = window.columns.get(lease.device)
        if column is not None and lease.active(at_ns):
            kind, model = found[column]
            found[column] = (lease.kind if kind in ("", lease.kind) else "shared", model)
    return found
