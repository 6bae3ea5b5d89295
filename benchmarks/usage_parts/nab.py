"""The Numenta Anomaly Benchmark, standard profile: tuned on files of odd number, reported on even ones.

The scorer follows nab/scorer.py and nab/sweeper.py (Lavin and Ahmad 2015): probation of 15 % (at most 750
points), one credit per window by how early it was found, a weighted debit per false point, one threshold for
all files. The detector is generic and causal: conformal tail probabilities of how new the last few points
are, at several lengths, and of the product kernel's CUSUM, summed and held: a peak speaks for what follows.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.csv as csv

from compute_guard.usage.kernel import Series, Tuning
from measure import Measure

Vector = npt.NDArray[np.float64]
PROBATION, MOST, FALSE_POINT, HIT, MISS = 0.15, 750, 0.11, 1.0, 1.0
LENGTHS = (6, 12, 24, 48)
BEST = 0.9866142981514303  # the credit of a window found at its first point


def sigmoid(position: float) -> float:
    return 2.0 / (1.0 + np.exp(5.0 * position)) - 1.0 if position <= 3.0 else -1.0


class File:
    """One series with its windows as half-open ranges of points."""

    def __init__(self, path: Path, windows: list[list[str]]) -> None:
        table = csv.read_csv(path)
        stamps = np.asarray([str(t)[:19] for t in table["timestamp"].to_pylist()])
        self.values = table["value"].to_numpy().astype(np.float64)
        ranges = [
            (int(np.searchsorted(stamps, a[:19])), int(np.searchsorted(stamps, b[:19], "right")))
            for a, b in windows
        ]
        self.first = min(int(PROBATION * len(stamps)), MOST)
        self.windows = [r for r in ranges if r[0] >= self.first] or [r for r in ranges if r[1] > self.first]
        self._debits = self._weights()

    def _weights(self) -> Vector:
        """The debit of a false alarm at each point; 0 inside windows."""
        debit = np.full(len(self.values), -FALSE_POINT)
        ends = sorted(self.windows)
        for number, (start, end) in enumerate(ends):
            stop = ends[number + 1][0] if number + 1 < len(ends) else len(debit)
            width = max(end - start - 1, 1)
            for i in range(end, stop):
                debit[i] = FALSE_POINT * sigmoid((i - end + 1) / width)
            debit[start:end] = 0.0
        return debit

    def score(self, alarms: npt.NDArray[np.int64]) -> float:
        alarms = alarms[alarms >= self.first]
        total = float(self._debits[alarms].sum())
        for start, end in self.windows:
            inside = alarms[(alarms >= start) & (alarms < end)]
            if len(inside):
                total += HIT * sigmoid(-(end - inside[0]) / (end - start)) / BEST
            else:
                total -= MISS
        return total


def files(folder: Path) -> list[File]:
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text())
    return [File(folder / "data" / name, ranges) for name, ranges in sorted(windows.items())]


def conformal(x: Vector, probation: int) -> Vector:
    """-log10 of the share of the past at least as large as each value."""
    past: list[float] = []
    found = np.zeros(len(x))
    for i, value in enumerate(x.tolist()):
        if i >= probation // 3:
            larger = len(past) - bisect_left(past, value)
            found[i] = np.log10((len(past) + 2) / (larger + 1))
        insort(past, value)
    return found


def novelty(f: File, length: int) -> Vector:
    """Distance of the last ``length`` points to the nearest such stretch of the past that does not overlap.

    A left matrix profile (Yeh and others 2016) without normalisation: level is part of what is new.
    """
    calm = f.values[: max(f.first, 10)]
    scaled = ((f.values - calm.mean()) / max(float(calm.std()), 1e-9)).astype(np.float32)
    parts = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(scaled, length))
    square, found = (parts * parts).sum(axis=1), np.zeros(len(scaled))
    for start in range(0, len(parts), 512):
        stop = min(len(parts), start + 512)
        apart = square[start:stop, None] + square[None, :stop] - 2 * (parts[start:stop] @ parts[:stop].T)
        apart[np.arange(stop)[None, :] > np.arange(start, stop)[:, None] - length] = np.inf
        nearest = apart.min(axis=1)
        nearest[~np.isfinite(nearest)] = 0.0
        found[start + length - 1 : stop + length - 1] = np.sqrt(np.maximum(nearest, 0.0))
    return found


def cusums(files: list[File], rate: float) -> list[Vector]:
    """By file: the larger CUSUM of the product's kernel."""
    length = max(len(f.values) for f in files)
    matrix = np.full((length, len(files)), np.nan, dtype=np.float32)
    for column, f in enumerate(files):
        calm = max(float(np.median(np.abs(np.diff(f.values[: max(f.first, 10)])))), 1e-9)
        matrix[: len(f.values), column] = f.values / calm  # so that one floor fits all series
    series = Series(floor=1.0, size=len(files), tuning=Tuning(rate))
    found = np.zeros_like(matrix)
    for t in range(length):
        series.update(matrix[t])
        scores = series.scores()
        found[t] = np.maximum(scores.cusum_high, scores.cusum_low)
    return [found[: len(f.values), column].astype(np.float64) for column, f in enumerate(files)]


def held(scores: Vector, limit: float, hold: int) -> npt.NDArray[np.int64]:
    alarms, last = [], -(10**9)
    for i in np.flatnonzero(scores >= limit).tolist():
        if i - last > hold:
            alarms.append(i)
            last = i
    return np.asarray(alarms, dtype=np.int64)


def standard(scored: list[tuple[File, Vector]], limit: float, hold: int) -> float:
    windows = sum(len(f.windows) for f, _ in scored)
    raw = sum(f.score(held(s, limit, hold)) for f, s in scored)
    return 100 * (raw + MISS * windows) / ((HIT + MISS) * windows)


def tuned(scored: list[tuple[File, Vector]], holds: tuple[int, ...]) -> tuple[float, float, int]:
    pool = np.concatenate([s[f.first :] for f, s in scored])
    limits = np.unique(np.quantile(pool, 1 - np.geomspace(1e-4, 2e-2, 25)))
    return max(
        (standard(scored, float(limit), hold), float(limit), hold) for limit in limits for hold in holds
    )


def measures(folder: Path) -> Iterator[Measure]:
    place = folder / "nab"
    if not place.is_dir():
        print(f"skipped: there is no nab below {folder}")
        return
    everything = files(place)
    tails = {length: [conformal(novelty(f, length), f.first) for f in everything] for length in LENGTHS}
    shifts = [conformal(c, f.first) for f, c in zip(everything, cusums(everything, 2 / 49), strict=True)]
    best: tuple[float, float, int] | None = None
    chosen: list[tuple[File, Vector]] = []
    for lengths in ((24,), (6, 24), (6, 24, 48), LENGTHS):
        for shifted in (0.0, 1.0):
            parts = zip(everything, shifts, *(tails[length] for length in lengths), strict=True)
            scored = [(f, shifted * shift + np.sum(tail, axis=0)) for f, shift, *tail in parts]
            found = tuned(scored[0::2], (50, 100, 200, 400))
            if best is None or found[0] > best[0]:
                best, chosen = found, scored
    assert best is not None
    value, limit, hold = best
    reported = standard(chosen[1::2], limit, hold)
    yield Measure("NAB standard, files it was tuned on", value, "score")
    yield Measure(
        "NAB standard, the other files", reported, "score", "RCF, published", 51.7, reported / 51.7,
        ">= 65", reported >= 65,
    )  # fmt: skip
