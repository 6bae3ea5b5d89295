"""How new the course of one series is: every point is compared with all that was seen before it.

For the last 6, 24 and 48 points: the distance to the nearest such stretch of the past that does not overlap
them (a left matrix profile, Yeh and others 2016, without normalisation: level is part of what is new), and to
the nearest one at about the same time of an earlier day; and how far the level of the last points lies from
the longer one. Each distance is told as a tail probability of its own past, and these add up: a level that
was never there, at an hour when it never was, in a shape that was never seen. All of it is streaming: a point
costs a few passes over the past kept.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
LENGTHS: Final = (6, 24, 48)
OF_THE_DAY: Final = (24, 48)
SPAN: Final = 288
LEVELS: Final = (24, 144)
PHASES: Final = np.arange(-6, 7, 2)  # points by which a habit may come earlier or later
TAIL: Final = 0.02
MOST: Final = 8.0
LIMIT: Final = 8.5
"""The score from which a course is told."""
REST_OF_QUIET: Final = 0.15
REST_OF_SEEN: Final = 0.04
ROUNDING: Final = 1e-9
"""Sums of squares below this share of the largest term are what rounding left of none."""


@dataclass(slots=True)
class Tail:
    """-log10 of the share of the past at least as large as a value, over the last ``keep`` values.

    Among the largest 2 % the share follows an exponential tail fitted to them (mean excess; Pickands 1975): a
    record by a hair is no great surprise, and there is no end to how great one can be, up to ``MOST``.
    """

    keep: int
    _sorted: list[float] = field(default_factory=list)
    _order: deque[float] = field(default_factory=deque)

    def take(self, value: float) -> float:
        """How surprising ``value`` is; it belongs to the past from now on."""
        found = self._surprise(value)
        if len(self._order) == self.keep:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]
        self._order.append(value)
        insort(self._sorted, value)
        return found

    def _surprise(self, value: float) -> float:
        past, n = self._sorted, len(self._sorted)
        if n <= 10:
            return 0.0
        k = max(int(TAIL * n), 5)
        threshold = past[n - k - 1]
        if value <= threshold:
            return math.log10((n + 2) / (n - bisect_left(past, value) + 1))
        excess = max(sum(past[n - k :]) / k - threshold, 1e-9)
        return min(math.log10((n + 2) / (k + 1)) + (value - threshold) / excess / math.log(10), MOST)


@dataclass(slots=True)
class Stretches:
    """Squared distances of the last ``length`` points to every earlier stretch, by how long ago it ended.

    With each point the sum for a lag gains its newest term and loses its oldest.
    """

    length: int
    keep: int
    _sums: Vector = field(init=False)
    _largest: float = 0.0

    def __post_init__(self) -> None:
        self._sums = np.zeros(self.keep + 1)

    def take(self, past: Vector) -> None:
        """``past``: the values up to now, oldest first, at most ``keep + length + 1``."""
        last = len(past) - 1
        lags = min(last, self.keep)
        added = (past[last] - past[last - lags : last][::-1]) ** 2
        self._sums[1 : lags + 1] += added
        self._largest = max(self._largest, float(added.max(initial=0.0)))
        old = last - self.length
        lags = min(old, self.keep)
        if lags > 0:
            self._sums[1 : lags + 1] -= (past[old] - past[old - lags : old][::-1]) ** 2

    def nearest(self, seen: int, lags: npt.NDArray[np.int64] | None = None) -> float:
        """Distance to the nearest stretch of the ``seen`` values, at ``lags`` if given; 0 without one."""
        most = min(seen - self.length, self.keep)
        if lags is None:
            among = self._sums[self.length : most + 1]
        else:
            among = self._sums[lags[(lags >= self.length) & (lags <= most)]]
        least = float(among.min()) if len(among) else 0.0
        return math.sqrt(least) if least > ROUNDING * self._largest else 0.0


@dataclass(slots=True)
class Level:
    """How far the last points lie from what went before.

    ``jump``: an average of the last few from one of the last ``SPAN``, in mean deviations; one number per
    length of ``LEVELS``: the mean of the last points from the mean of all.
    """

    _slow: float = 0.0
    _fast: float = 0.0
    _deviation: float = 0.0
    _seen: int = 0
    _total: float = 0.0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=max(LEVELS)))

    def take(self, value: float) -> tuple[float, ...]:
        """Jump, then level by length, after ``value``. The slow average takes it up afterwards."""
        if self._seen == 0:
            self._slow = self._fast = value
        self._seen += 1
        self._total += value
        self._recent.append(value)
        self._fast += (value - self._fast) / 3
        jump = abs(self._fast - self._slow) / max(self._deviation, 1e-9) if self._seen > 11 else 0.0
        rate = 2 / (SPAN + 1)
        self._deviation += rate * (abs(value - self._slow) - self._deviation)
        self._slow += rate * (value - self._slow)
        recent = np.asarray(self._recent)
        usual = self._total / self._seen
        return (jump, *(abs(float(recent[-length:].mean()) - usual) for length in LEVELS))


@dataclass(slots=True)
class Novelty:
    """One series, a point at a time. ``day``: points in a day. ``keep``: how much of the past counts."""

    day: int
    keep: int
    seen: int = 0
    _past: Vector = field(default_factory=lambda: np.empty(0))
    _stretches: tuple[Stretches, ...] = field(init=False)
    _daily: npt.NDArray[np.int64] = field(init=False)
    _level: Level = field(default_factory=Level)
    _tails: tuple[Tail, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._stretches = tuple(Stretches(length, self.keep) for length in LENGTHS)
        days = np.arange(1, self.keep // self.day + 1) * self.day
        self._daily = (days[:, None] + PHASES).ravel()
        self._tails = tuple(Tail(self.keep) for _ in (*LENGTHS, *OF_THE_DAY, "jump", *LEVELS))

    def take(self, value: float) -> dict[str, float]:
        """How surprising the course is after ``value``, as powers of ten, by part; their sum is the score."""
        self._past = np.append(self._past[-(self.keep + max(LENGTHS) + 1) :], value)
        self.seen += 1
        for stretches in self._stretches:
            stretches.take(self._past)
        shapes = [stretches.nearest(self.seen) for stretches in self._stretches]
        hours = [
            stretches.nearest(self.seen, self._daily)
            for stretches in self._stretches
            if stretches.length in OF_THE_DAY
        ]
        distances = (*shapes, *hours, *self._level.take(value))
        found = [tail.take(distance) for tail, distance in zip(self._tails, distances, strict=True)]
        shape, hour = found[: len(LENGTHS)], found[len(LENGTHS) : len(LENGTHS) + len(OF_THE_DAY)]
        jump, *level = found[len(LENGTHS) + len(OF_THE_DAY) :]
        return {
            "shape": sum(shape),
            "hour": sum(hour) / len(hour),
            "jump": jump,
            "level": sum(level) / len(level),
        }


@dataclass(slots=True)
class Alarms:
    """When a score is told: from ``limit`` on, not among the first ``quiet`` points, not while it rests.

    After an alarm it rests, the longer the more was seen (up to ``keep`` points): so a series that is never
    calm has a bounded share of alarms, however much is watched.
    """

    quiet: int
    keep: int
    limit: float = LIMIT
    _last: int | None = None

    def take(self, score: float, seen: int) -> bool:
        """Whether the point, the ``seen``-th, is told."""
        if score < self.limit or seen <= self.quiet:
            return False
        rest = max(REST_OF_QUIET * self.quiet, REST_OF_SEEN * min(seen - 1, self.keep))
        if self._last is not None and seen - self._last <= rest:
            return False
        self._last = seen
        return True
