"""How surprising a load is among loads of its class: tails learned from the fleet itself, in shadow.

A class is what a job says it is and the GPU model it runs on. Per class and feature two tails are kept: of
the value, and of how far a device goes beyond *its own* high-water mark of earlier hours. The second is what
makes a device stand out that was always quiet. A tail is a histogram and, beyond its 99th
percentile, an exponential (Pickands-Balkema-de Haan with shape 0, which for bounded readings errs towards
silence). The score is -log10 of the tail's probability, so thresholds mean the same everywhere.

Nothing is said about a class before it has been watched for ``shadow_hours`` device hours; until then the
whole fleet's tails serve, and before those are known, none. What is reported is kept out of the tails: a
miner must not teach the fleet that mining is usual. Histograms add, so fleets merge.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from compute_guard.usage.features import FEATURES
from compute_guard.usage.history import write
from compute_guard.usage.roster import Classes, JobClass
from compute_guard.usage.samples import Bools, Floats
from guard_core.errors import UserError

FLEET: Final[JobClass] = ("*", "*")
BINS: Final = 1024
TAIL: Final = 0.01
LAG: Final = 48  # cells before what is seen counts as a device's own past
BLOCK: Final = 12  # cells per step of the high-water mark
OWN_CELLS: Final = 240  # cells of own past before it is spoken of
FORMAT: Final = 1
_LOW: Final = np.asarray([f.low for f in FEATURES.values()])[:, None]
_HIGH: Final = np.asarray([f.high for f in FEATURES.values()])[:, None]
_FLOOR: Final = np.asarray([f.floor for f in FEATURES.values()])
_ROWS: Final = len(FEATURES)


@dataclass(frozen=True, slots=True)
class Tails:
    """Tails of a class: from ``start`` on, exponential with ``scale``; ``mass`` above. (2, features) each.

    ``start`` is infinite where too little was seen to speak of a tail.
    """

    start: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    mass: npt.NDArray[np.float64]

    def surprise(self, values: Floats, row: int) -> Floats:
        """-log10 of the tail probability, shape as ``values`` (features, S); 0 below the tail and for NaN."""
        start, scale = self.start[row][:, None], self.scale[row][:, None]
        with np.errstate(invalid="ignore"):
            far = (values - start) / (scale * np.log(10)) - np.log10(self.mass[row][:, None])
            found: Floats = np.where(values > start, far, 0.0).astype(np.float32)
        return found


@dataclass(slots=True)
class Calibration:
    """The tails of one fleet and every device's own high-water marks. One owner updates it.

    ``step_seconds``: of a cell. ``every``: histograms take each device's every n-th cell, as neighbours say
    nearly the same. Once a class has ``keep`` counts, they are halved: what is usual may change.
    ``frozen``: the tails stay as calibrated; a device's own past is still learned.
    """

    step_seconds: float
    shadow_hours: float = 100.0
    every: int = 4
    keep: int = 20_000_000
    frozen: bool = False
    _counts: dict[JobClass, npt.NDArray[np.int64]] = field(default_factory=dict)
    _tails: dict[JobClass, Tails | None] = field(default_factory=dict)
    _own: Floats = field(default_factory=lambda: np.full((_ROWS, 0), -np.inf, dtype=np.float32))
    _pending: list[Floats] = field(default_factory=list)
    _age: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    _ticks: int = 0

    def exceedance(self, values: Floats) -> Floats:
        """How far ``values`` (features, S) lie beyond each device's own past; NaN where that is too short."""
        self._grow(values.shape[1])
        found = values - self._own
        found[:, self._age < OWN_CELLS] = np.nan
        return found

    def learn(self, values: Floats, classes: Classes, quiet: Bools) -> None:
        """Take one cell of every device. ``quiet`` (S,): nothing was said about it, so it may teach."""
        beyond = self.exceedance(values)
        usable = quiet & np.isfinite(values).any(axis=0)
        self._ticks += 1
        if self._ticks % self.every == 0 and not self.frozen:
            self._count(values, beyond, classes, usable)
        seen = np.where(usable & np.isfinite(values), values, -np.inf).astype(np.float32)
        if self._ticks % BLOCK == 1 or not self._pending:
            self._pending.append(np.full_like(seen, -np.inf))
        newest = self._pending[-1]
        if newest.shape != seen.shape:
            self._pending = [_wider(block, seen.shape[1]) for block in self._pending]
            newest = self._pending[-1]
        np.maximum(newest, seen, out=newest)
        if len(self._pending) > LAG // BLOCK + 1:
            np.maximum(self._own, _wider(self._pending.pop(0), self._own.shape[1]), out=self._own)
        self._age += usable

    def tails(self, job_class: JobClass) -> Tails | None:
        """The tails of a class, of the fleet while the class is young, None while the fleet is."""
        for name in (job_class, FLEET):
            if self.hours(name) >= self.shadow_hours:
                if self._tails.get(name) is None:
                    self._tails[name] = _fit(self._counts[name], self._enough())
                return self._tails[name]
        return None

    def _enough(self) -> int:
        return int(self.shadow_hours * 3_600 / (self.every * self.step_seconds))

    def hours(self, job_class: JobClass) -> float:
        """Device hours a class was watched for."""
        counts = self._counts.get(job_class)
        return 0.0 if counts is None else float(counts[0, 3].sum()) * self.every * self.step_seconds / 3_600

    def classes(self) -> dict[JobClass, float]:
        """Hours watched, by class."""
        return {name: self.hours(name) for name in sorted(self._counts)}

    def merge(self, other: Calibration) -> None:
        """Take over what another fleet's calibration counted."""
        for name, counts in other._counts.items():
            self._counts[name] = self._counts.get(name, np.zeros_like(counts)) + counts
        self._tails.clear()

    def _count(self, values: Floats, beyond: Floats, classes: Classes, usable: Bools) -> None:
        bins = np.stack([_bins(values), _bins(beyond, around=True)])
        known = np.stack([np.isfinite(values), np.isfinite(beyond)]) & usable
        total = np.zeros((2, _ROWS, BINS), dtype=np.int64)
        for code, name in enumerate(classes.names):
            chosen = known & (classes.code == code)
            counts = np.zeros((2, _ROWS, BINS), dtype=np.int64)
            for kind in range(2):
                for row in range(_ROWS):
                    picked = bins[kind, row][chosen[kind, row]]
                    counts[kind, row] = np.bincount(picked, minlength=BINS)
            total += counts
            self._add(name, counts)
        self._add(FLEET, total)

    def _add(self, name: JobClass, counts: npt.NDArray[np.int64]) -> None:
        held = self._counts.get(name)
        held = counts if held is None else held + counts
        self._counts[name] = held // 2 if held[0, 3].sum() > self.keep else held
        if self._ticks % (self.every * 64) == 0:
            self._tails.clear()  # fitted anew when asked for; a tail moves slowly

    def _grow(self, size: int) -> None:
        if size > self._own.shape[1]:
            self._own = _wider(self._own, size)
            self._age = np.concatenate([self._age, np.zeros(size - len(self._age), dtype=np.int32)])

    # --- kept on disk ---------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the histograms, whole or not at all. Own high-water marks are a process's, and not kept.

        Raises UserError when the disk refuses.
        """
        names = sorted(self._counts)
        sink = io.BytesIO()
        np.savez_compressed(
            sink,
            format=np.asarray([FORMAT, BINS, _ROWS, self.every]),
            features=np.asarray(list(FEATURES)),
            step_seconds=np.asarray([self.step_seconds]),
            names=np.asarray([f"{kind}\x1f{model}" for kind, model in names], dtype="U300"),
            counts=np.stack([self._counts[n] for n in names]) if names else np.zeros((0, 2, _ROWS, BINS)),
        )
        write(path, sink.getvalue())

    @classmethod
    def load(cls, path: Path, *, step_seconds: float, shadow_hours: float = 100.0) -> Calibration:
        """The calibration kept at ``path``; a new one when there is none, or of other features or steps.

        Raises UserError for a damaged file.
        """
        fresh = cls(step_seconds, shadow_hours)
        try:
            with np.load(path, allow_pickle=False) as kept:
                same = kept["format"].tolist() == [FORMAT, BINS, _ROWS, fresh.every]
                same = same and kept["features"].tolist() == list(FEATURES)
                if same and float(kept["step_seconds"][0]) == step_seconds:
                    for name, counts in zip(kept["names"].tolist(), kept["counts"], strict=True):
                        kind, _, model = str(name).partition("\x1f")
                        fresh._counts[kind, model] = counts.astype(np.int64)
        except (FileNotFoundError, NotADirectoryError):
            return fresh
        except Exception as error:
            raise UserError(
                f"the calibration {path} is damaged ({error}); delete it, and the monitor calibrates anew"
            ) from error
        return fresh


def _bins(values: Floats, *, around: bool = False) -> npt.NDArray[np.int64]:
    """Bin of each value; with ``around``, of differences, whose range is as wide on both sides of 0."""
    low = _LOW - _HIGH if around else _LOW
    with np.errstate(invalid="ignore"):
        place = (values - low) / (_HIGH - low) * BINS
        clipped: npt.NDArray[np.int64] = np.clip(np.nan_to_num(place), 0, BINS - 1).astype(np.int64)
    return clipped


def _fit(counts: npt.NDArray[np.int64], enough: int) -> Tails:
    """Start, scale and mass of both tails of every feature from histograms (2, features, BINS)."""
    start, scale, mass = (np.zeros((2, _ROWS)) for _ in range(3))
    for kind in range(2):
        low = (_LOW - _HIGH if kind else _LOW)[:, 0]
        width = (_HIGH[:, 0] - low) / BINS
        for row in range(_ROWS):
            held = counts[kind, row]
            total = int(held.sum())
            if total < max(enough, 1):
                start[kind, row], scale[kind, row], mass[kind, row] = np.inf, 1.0, 1.0
                continue
            above = np.cumsum(held[::-1])[::-1]  # counts in this bin and beyond
            light = above <= TAIL * total
            first = int(np.argmax(light)) if light.any() else BINS - 1
            edge = low[row] + first * width[row]
            beyond = held[first:]
            number = int(beyond.sum())
            middle = (np.arange(len(beyond)) + 0.5) * width[row]
            average = float((beyond * middle).sum() / number) if number else 0.0
            start[kind, row], scale[kind, row] = edge, max(average, _FLOOR[row])
            mass[kind, row] = max(number, 1) / total
    return Tails(start, scale, mass)


def _wider(array: Floats, size: int) -> Floats:
    extra = size - array.shape[1]
    if extra <= 0:
        return array
    return np.hstack([array, np.full((array.shape[0], extra), -np.inf, dtype=np.float32)])
