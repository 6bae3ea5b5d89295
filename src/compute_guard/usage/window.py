"""What the detectors look at: an immutable moment of all devices on a regular time grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from compute_guard.usage.kernel import Scores
from compute_guard.usage.samples import Bools, Device, Doubles, Floats, Ints

NEVER: Final = int(np.iinfo(np.int64).min)
"""The time of what did not happen."""


@dataclass(frozen=True, slots=True, eq=False)
class Traits:
    """What does not change of each device, as columns (S,): its model, an index into ``models``, and whether

    its readings are made up.
    """

    models: tuple[str, ...]
    model: Ints
    synthetic: Bools

    @classmethod
    def of(cls, devices: Iterable[Device]) -> Traits:
        """The traits of ``devices``."""
        models: dict[str, int] = {}
        found = [(models.setdefault(d.model, len(models)), d.synthetic) for d in devices]
        table = np.asarray(found, dtype=np.int64).reshape(-1, 2)
        return cls(tuple(models), table[:, 0], table[:, 1].astype(np.bool_))


@dataclass(frozen=True, slots=True)
class Window:
    """An immutable look at all devices: T cells by S devices.

    ``sample_ns`` (T, S) is the time of each held sample, or the smallest int64 where there is none.
    ``values[metric]`` is (T, S), NaN where missing. ``scores[metric]`` are the running statistics
    after the newest sample. ``idle_since_ns`` (S,): since when a device has held memory without computing,
    the smallest int64 where it does not. ``traits``: models and provenance. ``columns``: device key -> its
    column. ``twins``: pairs of columns that are one device as two exporters name it (same node and index).
    """

    devices: tuple[Device, ...]
    step_ns: int
    end_ns: int
    sample_ns: Ints
    values: Mapping[str, npt.NDArray[np.floating]]
    scores: Mapping[str, Scores]
    idle_since_ns: Ints
    traits: Traits
    columns: Mapping[str, int] = field(default_factory=dict)
    twins: tuple[tuple[int, int], ...] = ()
    _medians: dict[tuple[str, int | None, int | None], npt.NDArray[np.floating]] = field(default_factory=dict)
    _means: dict[tuple[str, int], Floats] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        """T, the number of cells."""
        return int(self.sample_ns.shape[0])

    def coverage(self, metric: str, cells: int) -> Floats:
        """Share of the last ``cells`` cells with a value of ``metric``, per device, shape (S,)."""
        part = self.values[metric][-cells:]
        if self._complete(metric, cells):
            return np.ones(part.shape[1], dtype=np.float32)
        share: Floats = np.isfinite(part).mean(axis=0, dtype=np.float32)
        return share

    def known(self, metric: str, cells: int, *, share: float = 0.5) -> Bools:
        """Where ``metric`` is observed often enough to speak of it, shape (S,)."""
        return self.coverage(metric, cells) >= np.float32(share)

    def mean(self, metric: str, cells: int) -> Floats:
        """Mean over the last ``cells`` cells, ignoring gaps; NaN where nothing was seen. Shape (S,); kept."""
        key = (metric, cells)
        if key not in self._means:
            part = self.values[metric][-cells:]
            if self._complete(metric, cells):
                self._means[key] = (part.sum(axis=0) / np.int64(len(part))).astype(np.float32)
            else:
                seen = np.isfinite(part)
                with np.errstate(invalid="ignore", divide="ignore"):
                    average = np.where(seen, part, 0).sum(axis=0) / seen.sum(axis=0)
                self._means[key] = average.astype(np.float32)
        return self._means[key]

    def _complete(self, metric: str, cells: int) -> bool:
        """Whether all of the last ``cells`` cells of every device were read: a sum tells, as NaN spreads."""
        with np.errstate(invalid="ignore", over="ignore"):
            return bool(np.isfinite(self.values[metric][-cells:].sum()))

    def spread(self, metric: str, cells: int) -> Floats:
        """Largest less smallest value over the last ``cells`` cells; NaN unless all were seen. Shape (S,)."""
        part = self.values[metric][-cells:]
        with np.errstate(invalid="ignore"):
            width: Floats = (part.max(axis=0) - part.min(axis=0)).astype(np.float32)
        return width

    def median(self, metric: str, first: int | None, last: int | None) -> npt.NDArray[np.floating]:
        """Median of the cells ``[first:last]`` over what was seen, shape (S,); kept, as several ask."""
        key = (metric, first, last)
        if key not in self._medians:
            self._medians[key] = median(self.values[metric][first:last])
        return self._medians[key]

    def rate(self, counter: str, cells: int | None = None) -> Doubles:
        """Increase per second of a counter between consecutive samples, shape (T-1, S) or (``cells``, S).

        NaN where either sample is missing or the counter went down (a reset).
        """
        first = 0 if cells is None else max(0, self.cells - cells - 1)
        values, at_ns = self.values[counter][first:], self.sample_ns[first:]
        seconds = (at_ns[1:] - at_ns[:-1]) / 1e9
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            steps = np.asarray((values[1:] - values[:-1]) / seconds, dtype=np.float64)
            steps[(steps < 0) | (at_ns[:-1] == NEVER) | (at_ns[1:] == NEVER)] = np.nan
        return steps

    def column(self, device: int, metric: str) -> tuple[Ints, npt.NDArray[np.floating]]:
        """Times and values of one device's metric where seen: the evidence, shape (k,) each."""
        seen = self.sample_ns[:, device] != NEVER
        return self.sample_ns[seen, device], self.values[metric][seen, device]


def median(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Median of each column over what was seen; NaN where nothing was."""
    ordered = np.sort(np.ascontiguousarray(values.T), axis=1)  # rows sort fastest; NaN last
    length = values.shape[0]
    if not np.isnan(ordered[:, -1]).any():
        middle: npt.NDArray[np.floating] = (ordered[:, (length - 1) // 2] + ordered[:, length // 2]) / 2
        return middle
    count = np.isfinite(ordered).sum(axis=1)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(np.maximum(count, 1) // 2, length - 1)
    rows = np.arange(len(ordered))
    known: npt.NDArray[np.floating] = (ordered[rows, low] + ordered[rows, high]) / 2
    return known
