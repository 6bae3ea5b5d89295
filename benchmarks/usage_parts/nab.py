"""The Numenta Anomaly Benchmark, standard profile: tuned on files of odd number, reported on even ones.

The scorer follows nab/scorer.py and nab/sweeper.py (Lavin and Ahmad 2015): probation of 15 % (at most 750
points), one credit per window by how early it was found, a weighted debit per false point, one threshold for
all files. The detector is generic and causal: tail probabilities of how new the last few points are, at
several lengths and for their time of day, and of the product kernel's CUSUM, summed and held: a peak speaks
for what follows. Which of these are used is chosen by cross-validation within the odd files.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.csv as csv

from compute_guard.usage.kernel import Series, Tuning
from measure import Measure

Vector = npt.NDArray[np.float64]
PROBATION, MOST, FALSE_POINT, HIT, MISS = 0.15, 750, 0.11, 1.0, 1.0
LENGTHS = (6, 24, 48)
OF_THE_DAY = (24, 48)
PHASES = range(-6, 7, 2)  # points by which a habit may come earlier or later
HOLDS = (50, 100, 200)
TAIL, MOST_SURPRISE = 0.02, 8.0
BEST = 0.9866142981514303  # the credit of a window found at its first point


def sigmoid(position: float) -> float:
    return 2.0 / (1.0 + np.exp(5.0 * position)) - 1.0 if position <= 3.0 else -1.0


class File:
    """One series with its windows as half-open ranges of points."""

    def __init__(self, path: Path, windows: list[list[str]]) -> None:
        table = csv.read_csv(path)
        stamps = np.asarray([str(t)[:19] for t in table["timestamp"].to_pylist()])
        self.values = table["value"].to_numpy().astype(np.float64)
        times = [datetime.fromisoformat(stamp).timestamp() for stamp in stamps[:2_000]]
        self.day = max(1, round(86_400 / float(np.median(np.diff(times)))))  # points in a day
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


def surprise(x: Vector, probation: int) -> Vector:
    """-log10 of the share of the past at least as large as each value.

    Among the largest 2 % the share follows an exponential tail fitted to them (mean excess; Pickands 1975): a
    record by a hair is no great surprise, and there is no end to how great one can be.
    """
    past: list[float] = []
    found = np.zeros(len(x))
    for i, value in enumerate(x.tolist()):
        n = len(past)
        if i >= probation // 3 and n > 10:
            k = max(int(TAIL * n), 5)
            threshold = past[n - k - 1]
            if value <= threshold:
                found[i] = np.log10((n + 2) / (n - bisect_left(past, value) + 1))
            else:
                excess = max(sum(past[n - k :]) / k - threshold, 1e-9)
                found[i] = np.log10((n + 2) / (k + 1)) + (value - threshold) / excess / np.log(10)
        insort(past, value)
    return np.minimum(found, MOST_SURPRISE)


def scaled(f: File) -> npt.NDArray[np.float32]:
    calm = f.values[: max(f.first, 10)]
    return ((f.values - calm.mean()) / max(float(calm.std()), 1e-9)).astype(np.float32)


def novelty(f: File, length: int) -> Vector:
    """Distance of the last ``length`` points to the nearest such stretch of the past that does not overlap.

    A left matrix profile (Yeh and others 2016) without normalisation: level is part of what is new.
    """
    series = scaled(f)
    parts = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(series, length))
    square, found = (parts * parts).sum(axis=1), np.zeros(len(series))
    for start in range(0, len(parts), 512):
        stop = min(len(parts), start + 512)
        apart = square[start:stop, None] + square[None, :stop] - 2 * (parts[start:stop] @ parts[:stop].T)
        apart[np.arange(stop)[None, :] > np.arange(start, stop)[:, None] - length] = np.inf
        nearest = apart.min(axis=1)
        nearest[~np.isfinite(nearest)] = 0.0
        found[start + length - 1 : stop + length - 1] = np.sqrt(np.maximum(nearest, 0.0))
    return found


def unusual_for_the_hour(f: File, length: int) -> Vector:
    """The same distance, to stretches at about the same time of earlier days only."""
    series = scaled(f)
    parts = np.lib.stride_tricks.sliding_window_view(series, length)
    nearest, found = np.full(len(parts), np.inf, dtype=np.float32), np.zeros(len(series))
    for days in range(1, len(parts) // f.day + 1):
        for lag in (days * f.day + phase for phase in PHASES):
            if length <= lag < len(parts):
                apart = ((parts[lag:] - parts[:-lag]) ** 2).sum(axis=1)
                np.minimum(nearest[lag:], apart, out=nearest[lag:])
    nearest[~np.isfinite(nearest)] = 0.0
    found[length - 1 :] = np.sqrt(nearest)
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


def tuned(scored: list[tuple[File, Vector]]) -> tuple[float, float, int]:
    pool = np.concatenate([s[f.first :] for f, s in scored])
    limits = np.unique(np.quantile(pool, 1 - np.geomspace(1e-4, 2e-2, 25)))
    return max(
        (standard(scored, float(limit), hold), float(limit), hold) for limit in limits for hold in HOLDS
    )


def cross_validated(scored: list[tuple[File, Vector]], folds: int = 3) -> float:
    """The score of each third at the limit tuned on the other two, weighted by windows."""
    total = windows = 0.0
    for fold in range(folds):
        _, limit, hold = tuned([x for i, x in enumerate(scored) if i % folds != fold])
        judged = scored[fold::folds]
        count = sum(len(f.windows) for f, _ in judged)
        total, windows = total + count * standard(judged, limit, hold), windows + count
    return total / windows


def resampled(scored: list[tuple[File, Vector]], limit: float, hold: int) -> tuple[float, float]:
    """Where 95 in 100 scores lie when the files are drawn anew: how much one number means."""
    rng = np.random.default_rng(0)
    raw = np.asarray([f.score(held(s, limit, hold)) for f, s in scored])
    windows = np.asarray([len(f.windows) for f, _ in scored])
    drawn = rng.integers(0, len(scored), (2_000, len(scored)))
    found = 100 * (raw[drawn].sum(1) + windows[drawn].sum(1)) / (2 * windows[drawn].sum(1))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def opinions(files: list[File]) -> dict[str, list[Vector]]:
    """What the detector may add up, by name and file."""
    new = [[surprise(novelty(f, n), f.first) for n in LENGTHS] for f in files]
    hour = [[surprise(unusual_for_the_hour(f, n), f.first) for n in OF_THE_DAY] for f in files]
    shift = zip(files, cusums(files, 2 / 49), strict=True)
    return {
        "novelty": [np.sum(parts, axis=0) for parts in new],
        "hour": [np.mean(parts, axis=0) for parts in hour],
        "shift": [surprise(c, f.first) for f, c in shift],
    }


def measures(folder: Path) -> Iterator[Measure]:
    place = folder / "nab"
    if not place.is_dir():
        print(f"skipped: there is no nab below {folder}")
        return
    everything = files(place)
    heard = opinions(everything)
    best, chosen = -np.inf, []
    for names in (("novelty",), ("novelty", "shift"), ("novelty", "hour"), ("novelty", "hour", "shift")):
        sums = [np.sum(parts, axis=0) for parts in zip(*(heard[name] for name in names), strict=True)]
        scored = list(zip(everything, sums, strict=True))
        found = cross_validated(scored[0::2])
        print(f"  {' + '.join(names)}: {found:.1f} by cross-validation within the odd files", flush=True)
        if found > best:
            best, chosen = found, scored
    value, limit, hold = tuned(chosen[0::2])
    reported = standard(chosen[1::2], limit, hold)
    low, high = resampled(chosen[1::2], limit, hold)
    yield Measure("NAB standard, files it was tuned on", value, "score")
    yield Measure("same, by cross-validation within them", best, "score")
    yield Measure(
        "NAB standard, the other files", reported, "score", "RCF, published", 51.7, reported / 51.7,
        ">= 65", bool(reported >= 65),
    )  # fmt: skip
    yield Measure("same, files drawn anew: 2.5 % lie below", low, "score")
    yield Measure("same, files drawn anew: 2.5 % lie above", high, "score")
