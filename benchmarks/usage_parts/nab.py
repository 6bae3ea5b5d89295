"""The Numenta Anomaly Benchmark, standard profile: chosen on files of odd number, reported on even ones.

The scorer follows nab/scorer.py and nab/sweeper.py (Lavin and Ahmad 2015): probation of 15 % (at most 750
points), one credit per window by how early it was found, a weighted debit per false point, one threshold for
all files. The detector is the one that USAG017 ships (``compute_guard.usage.novelty``), with its own limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.csv as csv

from compute_guard.usage.novelty import LIMIT, Alarms, Novelty
from measure import Measure

Vector = npt.NDArray[np.float64]
PROBATION, MOST, FALSE_POINT, HIT, MISS = 0.15, 750, 0.11, 1.0, 1.0
CHOICES = (("shape",), ("shape", "hour"), ("shape", "hour", "jump"), ("shape", "hour", "jump", "level"))
"""What was weighed; the last is what ships."""
BEST = 0.9866142981514303  # the credit of a window found at its first point


def sigmoid(position: float) -> float:
    return 2.0 / (1.0 + np.exp(5.0 * position)) - 1.0 if position <= 3.0 else -1.0


class File:
    """One series with its windows as half-open ranges of points."""

    def __init__(self, path: Path, windows: list[list[str]]) -> None:
        self.category = path.parent.name
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


def files(folder: Path, first: int) -> list[File]:
    """Every other file by name, from ``first`` on; the others are not opened."""
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text())
    return [File(folder / "data" / name, windows[name]) for name in sorted(windows)[first::2]]


def parts_of(f: File) -> dict[str, Vector]:
    """What the product's detector says of each point, by part."""
    novelty = Novelty(f.day, keep=len(f.values))
    told = [novelty.take(value) for value in f.values.tolist()]
    return {name: np.asarray([each[name] for each in told]) for name in told[0]}


def alarms_of(f: File, scores: Vector, limit: float) -> npt.NDArray[np.int64]:
    alarms = Alarms(f.first, len(f.values), limit)
    high = np.flatnonzero(scores >= limit).tolist()
    return np.asarray([i for i in high if alarms.take(float(scores[i]), i + 1)], dtype=np.int64)


def standard(raw: Vector, windows: Vector) -> float:
    return float(100 * (raw.sum() + MISS * windows.sum()) / ((HIT + MISS) * windows.sum()))


def raw_scores(scored: list[tuple[File, Vector]], limits: Vector) -> Vector:
    """By limit and file."""
    return np.asarray([[f.score(alarms_of(f, s, float(limit))) for f, s in scored] for limit in limits])


def smoothed_best(raw: Vector) -> int:
    """The limit whose neighbours are good as well: the best of one fold alone would be a fit."""
    total = np.pad(raw.sum(axis=1), 2, mode="edge")
    return int(np.argmax(np.convolve(total, np.asarray([1, 2, 4, 2, 1]) / 10, "valid")))


def category_left_out(raw: Vector, windows: Vector, categories: list[str]) -> float:
    """The score of each category at the limit chosen on all others."""
    group = np.asarray(categories)
    judged = np.zeros(len(windows))
    for name in sorted(set(categories)):
        rest = np.where(group == name, 0.0, raw)
        judged[group == name] = raw[smoothed_best(rest), group == name]
    return standard(judged, windows)


def resampled(raw: Vector, windows: Vector) -> tuple[float, float]:
    """Where 95 in 100 scores lie when the files are drawn anew: how much one number means."""
    drawn = np.random.default_rng(0).integers(0, len(raw), (2_000, len(raw)))
    found = 100 * (raw[drawn].sum(1) + windows[drawn].sum(1)) / (2 * windows[drawn].sum(1))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def measures(folder: Path, half: str = "both") -> Iterator[Measure]:
    """``half``: ``odd`` reads the files of odd number only, as was done while the detector was chosen."""
    place = folder / "nab"
    if not place.is_dir():
        print(f"skipped: there is no nab below {folder}")
        return
    yield from _tuning(files(place, 0))
    if half == "both":
        yield from _reported(files(place, 1))


def _tuning(odd: list[File]) -> Iterator[Measure]:
    parts = [parts_of(f) for f in odd]
    windows = np.asarray([len(f.windows) for f in odd])
    for names in CHOICES:
        sums = [np.sum([found[name] for name in names], axis=0) for found in parts]
        scored = list(zip(odd, sums, strict=True))
        pool = np.concatenate([s[f.first :] for f, s in scored])
        limits = np.unique(np.quantile(pool, 1 - np.geomspace(1e-4, 3e-2, 40)))
        raw = raw_scores(scored, limits)
        best = smoothed_best(raw)
        found = category_left_out(raw, windows, [f.category for f in odd])
        words = f"{' + '.join(names)}: {found:.1f} with each category left out"
        print(f"  {words}, {standard(raw[best], windows):.1f} at {limits[best]:.2f}", flush=True)
    (raw,) = raw_scores(scored, np.asarray([LIMIT]))
    yield Measure("NAB standard, odd files, it was chosen on them", standard(raw, windows), "score")
    yield Measure("same, each category at the limit of the others", found, "score")


def _reported(even: list[File]) -> Iterator[Measure]:
    scored = [(f, np.sum(list(parts_of(f).values()), axis=0)) for f in even]
    windows = np.asarray([len(f.windows) for f in even])
    (raw,) = raw_scores(scored, np.asarray([LIMIT]))
    reported = standard(raw, windows)
    low, high = resampled(raw, windows)
    yield Measure(
        "NAB standard, even files", reported, "score", "RCF, published", 51.7, reported / 51.7,
        ">= 65", bool(reported >= 65),
    )  # fmt: skip
    yield Measure("same, files drawn anew: 2.5 % lie below", low, "score")
    yield Measure("same, files drawn anew: 2.5 % lie above", high, "score")
