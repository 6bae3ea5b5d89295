"""How many accelerators each tenant keeps busy, five minutes a point, and how new the course of it is.

Weeks of points are kept on disk, so that a restarted monitor knows last week. Made-up readings teach nothing
unless ``accept_synthetic``: a drill must not become a habit.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from compute_guard.usage.detectors.base import Course
from compute_guard.usage.history import write
from compute_guard.usage.novelty import LIMIT, Alarms, Novelty, Vector
from compute_guard.usage.roster import Roster
from compute_guard.usage.window import NEVER, Window
from guard_core.errors import UserError

CELL_NS: Final = 300 * 1_000_000_000
DAY: Final = 288
KEEP: Final = 28 * DAY
FORGIVE: Final = 12
"""Points by which the clock may go back; beyond, it is the right one."""
FORMAT: Final = 1


@dataclass(slots=True)
class _Tenant:
    """One tenant's points; those from ``heard`` on are still to be given to its judge."""

    values: list[float]
    judge: Novelty
    alarms: Alarms
    heard: int = 0
    course: Course | None = None


@dataclass(slots=True)
class Courses:
    """One monitor's account. Call :meth:`take` once per scrape.

    ``quiet_days``: how long a tenant is watched before anything is said. ``reheard``: points per scrape that
    are judged again after a start, so that no scrape waits for weeks of all tenants.
    """

    quiet_days: float = 8.0
    limit: float = LIMIT
    accept_synthetic: bool = False
    reheard: int = 4_000
    _tenants: dict[str, _Tenant] = field(default_factory=dict)
    _cell: int = NEVER
    _busy: dict[str, list[float]] = field(default_factory=dict)
    _ticks: int = 0
    _unsaved: bool = False

    def take(self, window: Window, held: Roster) -> Mapping[str, Course]:
        """Account for the newest cell of ``window``; the latest course of every tenant that has one."""
        cell = (window.end_ns - 1) // CELL_NS
        if self._cell != NEVER and cell > self._cell:
            self._close(cell)
        elif cell < self._cell - FORGIVE:
            self._cell = cell  # the clocks were ahead; nothing is heard twice, some hours are longer
        if cell >= self._cell:
            self._cell = cell
            self._ticks += 1
            for tenant, busy in self._busy_now(window, held).items():
                self._busy.setdefault(tenant, []).append(busy)
        self._hear()
        found = {name: one.course for name, one in self._tenants.items() if one.course is not None}
        return MappingProxyType(found)

    def _busy_now(self, window: Window, held: Roster) -> dict[str, float]:
        rows = held.active(window.end_ns - 1)
        tenant = held.tenant[held.job[rows]] if len(rows) else rows
        counted = tenant >= 0
        if not self.accept_synthetic:
            counted &= ~window.traits.synthetic[held.column[rows]]
        rows, tenant = rows[counted], tenant[counted]
        util = np.nan_to_num(window.mean("util_percent", 2)[held.column[rows]]) / 100
        share = np.clip(held.milli[rows] / 1000, 0.0, 1.0)
        busy = np.bincount(tenant, weights=util * share, minlength=len(held.tenants))
        return {held.tenants[code]: float(busy[code]) for code in np.unique(tenant).tolist()}

    def _close(self, cell: int) -> None:
        """End the present point; cells that nobody watched are taken to be as the day before."""
        for name in self._busy:
            if name not in self._tenants:
                self._tenants[name] = self._new([])
        unseen = min(cell - self._cell - bool(self._ticks), KEEP)
        for name, one in self._tenants.items():
            if self._ticks:
                one.values.append(sum(self._busy.get(name, ())) / self._ticks)
            for _ in range(unseen):
                one.values.append(one.values[-DAY if len(one.values) >= DAY else -1])
            spare = len(one.values) - KEEP
            if spare > 0 and one.heard >= spare:
                del one.values[:spare]
                one.heard -= spare
        self._busy, self._ticks, self._unsaved = {}, 0, True

    def _hear(self) -> None:
        left = self.reheard
        for one in self._tenants.values():
            while one.heard < len(one.values) and left > 0:
                left -= 1
                one.course = self._judged(one)
                one.heard += 1

    def _judged(self, one: _Tenant) -> Course:
        at = one.heard
        parts = one.judge.take(one.values[at])
        score = sum(parts.values())
        begun = one.alarms.take(score, one.judge.seen)
        earlier = [one.values[at - days * DAY] for days in range(1, at // DAY + 1)]
        return Course(
            busy=one.values[at],
            usual=float(np.median(earlier)) if earlier else float("nan"),
            score=score,
            parts=parts,
            told=begun or (one.course is not None and one.course.told and score >= self.limit),
            days=at / DAY,
        )

    def _new(self, values: list[float]) -> _Tenant:
        return _Tenant(values, Novelty(DAY, KEEP), Alarms(round(self.quiet_days * DAY), KEEP, self.limit))

    # --- kept on disk ---------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write every tenant's points, whole or not at all; nothing when there are no new ones.

        Raises UserError when the disk refuses.
        """
        if not self._unsaved:
            return
        sink = io.BytesIO()
        series = {f"tenant:{name}": np.asarray(one.values, np.float32) for name, one in self._tenants.items()}
        np.savez(sink, allow_pickle=False, format=[FORMAT], cell=[self._cell], **series)
        write(path, sink.getvalue())
        self._unsaved = False

    def load(self, path: Path) -> None:
        """Go on from the points kept at ``path``, if any. Raises UserError for a damaged file."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                if kept["format"].tolist() != [FORMAT]:
                    return
                self._cell = int(kept["cell"][0])
                for key in kept.files:
                    kind, _, name = key.partition(":")
                    if kind == "tenant":
                        points: Vector = kept[key].astype(np.float64)
                        self._tenants[name] = self._new(points.tolist())
        except (FileNotFoundError, NotADirectoryError):
            return
        except Exception as error:
            raise UserError(
                f"the courses {path} are damaged ({error}); delete the file, and the monitor begins anew"
            ) from error
