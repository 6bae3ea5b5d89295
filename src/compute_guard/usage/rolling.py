"""Readings on a regular time grid, as they come.

:class:`Rolling` takes frames as they arrive, late, doubled, out of order, from clocks that jump, at ten
times the expected rate, and keeps the last ``cells`` cells of ``step_ns`` per device. Each cell holds the
newest sample that fell into it. Everything refused is counted in :class:`Quality`, never lost silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from compute_guard.usage.kernel import FLOORS, Series, Tuning
from compute_guard.usage.samples import COUNTERS, METRICS, Bools, Device, Frame, Ints
from compute_guard.usage.window import NEVER, Traits, Window

STALE_FRAMES = 3
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(slots=True)
class Quality:
    """Counts of what was wrong with the telemetry taken so far."""

    samples: int = 0
    accepted: int = 0
    duplicate: int = 0  # same device, same time as a sample already held
    out_of_order: int = 0  # older than a sample of the same cell
    late: int = 0  # older than the window
    future: int = 0  # its clock runs ahead of the fleet's
    missed_cells: int = 0  # device-cells passed over without a sample
    counter_resets: int = 0
    clock_set_back: int = 0  # the receiver's own clock had been ahead, and the window began anew

    def to_json(self) -> dict[str, int]:
        """Field name to count."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Rolling:
    """The last ``cells`` cells of every device, updated in place; :meth:`snapshot` gives an immutable copy.

    A series that misses more than ``forgive`` cells in a row starts its statistics anew.
    """

    step_ns: int
    cells: int
    forgive: int = 4
    tuning: Tuning = field(default_factory=Tuning)
    idle_util_percent: float = 1.0
    held_bytes: float = 2.0**30
    quality: Quality = field(default_factory=Quality)
    _devices: dict[Device, int] = field(default_factory=dict)
    _in_order: tuple[Device, ...] = ()
    _head: int = NEVER
    _at: Ints = field(init=False)
    _values: dict[str, npt.NDArray[np.floating]] = field(init=False)
    _series: dict[str, Series] = field(init=False)
    _known: tuple[Device, ...] = ()
    _index: npt.NDArray[np.int64] = field(init=False)
    _by_key: dict[str, int] = field(default_factory=dict)
    _places: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    _traits: Traits = field(default_factory=lambda: Traits.of(()))
    _last_cell: Ints = field(init=False)
    _idle_since: Ints = field(init=False)
    _stale: int = 0

    def __post_init__(self) -> None:
        if self.step_ns <= 0 or self.cells < 2:
            raise ValueError("a window needs a positive step and at least two cells")
        self._at = np.full((self.cells, 0), NEVER, dtype=np.int64)
        kinds = {name: np.float64 if name in COUNTERS else np.float32 for name in METRICS}
        self._values = {name: np.full((self.cells, 0), np.nan, dtype=kind) for name, kind in kinds.items()}
        self._series = {name: Series(floor=floor, tuning=self.tuning) for name, floor in FLOORS.items()}
        self._last_cell = np.zeros(0, dtype=np.int64)
        self._idle_since = np.zeros(0, dtype=np.int64)

    @property
    def devices(self) -> tuple[Device, ...]:
        """Every device seen so far, in column order."""
        return self._in_order

    @property
    def columns(self) -> Mapping[str, int]:
        """The column of every device seen so far, by its key."""
        return self._by_key

    def push(self, frame: Frame, *, now_ns: int | None = None) -> None:
        """Take ``frame``. ``now_ns`` is the receiver's time; without it, the frame's median time.

        The median makes one node's jumping clock that node's problem alone: its samples are counted
        as ``future`` or ``late`` while the rest of the fleet goes on. A clock at most one step ahead
        is skew, and its samples count for the present cell.
        """
        if not len(frame):
            return
        columns = self.columns_of(frame.devices)[frame.device]
        self.quality.samples += len(frame)
        now = int(np.median(frame.ts_ns)) if now_ns is None else now_ns
        newest = (int(frame.ts_ns.max()) if now_ns is None and _one_stream(frame) else now) // self.step_ns
        cell = frame.ts_ns // self.step_ns
        ahead = cell > newest + 1
        self.quality.future += int(ahead.sum())
        cell = np.minimum(cell, newest)
        self._follow_back(newest)
        order = np.argsort(frame.ts_ns, kind="stable")
        order = order[~ahead[order]]
        if not len(order):
            return
        # Cell by cell, because the running statistics must see each cell once and in order.
        cells = cell[order]
        starts = np.flatnonzero(np.r_[True, cells[1:] != cells[:-1]])
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
            self._take(frame, order[start:stop], columns, int(cells[start]))

    def _follow_back(self, newest: int) -> None:
        """Begin anew at ``newest`` when frame after frame is older than the whole window.

        One such frame is late. Several in a row say that the clock by which the window was filled had been
        ahead; waiting until it is reached again would be blindness for as long.
        """
        self._stale = self._stale + 1 if self._head != NEVER and newest <= self._head - self.cells else 0
        if self._stale < STALE_FRAMES:
            return
        self._stale, self._head = 0, NEVER
        self._at[:], self._last_cell[:], self._idle_since[:] = NEVER, NEVER, NEVER
        for values in self._values.values():
            values[:] = np.nan
        everything = np.ones(len(self._devices), dtype=np.bool_)
        for series in self._series.values():
            series.forget(everything)
        self.quality.clock_set_back += 1

    def columns_of(self, devices: tuple[Device, ...]) -> Ints:
        """The column of each of ``devices``, which get one when they have none yet."""
        if devices == self._known:  # scrape after scrape names the same objects: a comparison of pointers
            return self._index
        known = self._devices
        before = len(known)
        index = np.asarray([known.setdefault(device, len(known)) for device in devices], dtype=np.int64)
        self._known, self._index = devices, index
        for number, device in enumerate(known):
            if number >= before:
                self._by_key[device.key] = number
                self._places.setdefault((device.node, device.index), []).append(number)
        extra = len(known) - self._at.shape[1]
        if extra > 0:
            self._in_order = tuple(known)
            self._traits = Traits.of(known)
            self._at = np.hstack([self._at, np.full((self.cells, extra), NEVER, dtype=np.int64)])
            for name, array in self._values.items():
                self._values[name] = np.hstack(
                    [array, np.full((self.cells, extra), np.nan, dtype=array.dtype)]
                )
            for series in self._series.values():
                series.grow(len(known))
            nothing = np.full(extra, NEVER, dtype=np.int64)
            self._last_cell = np.concatenate([self._last_cell, nothing])
            self._idle_since = np.concatenate([self._idle_since, nothing])
        return index

    def _take(self, frame: Frame, rows: Ints, columns: Ints, cell: int) -> None:
        if self._head == NEVER:
            self._head = cell
        elif cell <= self._head - self.cells:
            self.quality.late += len(rows)
            return
        elif cell > self._head:
            self._advance(cell)
        slot = cell % self.cells
        at, where = frame.ts_ns[rows], columns[rows]
        held = self._at[slot, where]
        self.quality.duplicate += int((at == held).sum())
        self.quality.out_of_order += int((at < held).sum())
        fresh = at > held
        rows, where, at = rows[fresh], where[fresh], at[fresh]
        once = ~self._doubled(where, at)
        rows, where, at = rows[once], where[once], at[once]
        self.quality.accepted += len(rows)
        self._at[slot, where] = (
            at  # rows are in time order, so the newest of a cell is written last and stays
        )
        read = [name for name in METRICS if name in frame.values]
        for name in read:
            self._values[name][slot, where] = frame.values[name][rows]
        self._observe(slot, where, cell, read)

    def _doubled(self, where: Ints, at: Ints) -> Bools:
        """Which samples repeat the device and time of another of the same frame; the first is kept."""
        doubled = np.zeros(len(at), dtype=np.bool_)
        if len(at) and np.bincount(where).max() > 1:
            order = np.lexsort((at, where))
            same = (where[order][1:] == where[order][:-1]) & (at[order][1:] == at[order][:-1])
            doubled[order[1:][same]] = True
            self.quality.duplicate += int(same.sum())
        return doubled

    def _observe(self, slot: int, where: Ints, cell: int, read: list[str]) -> None:
        """Feed the newest samples to the running statistics: each device's cell once, never backwards.

        Keyed by the device's own last cell, not the fleet's: a node that always reports one cell late
        is judged like any other, and a flood of samples does not make a series look older than it is.
        """
        last = self._last_cell[where]
        forward = cell > last
        where, last = where[forward], last[forward]
        if not len(where):
            return
        known = last != NEVER
        gap = np.where(known, cell - last - 1, 0)
        self.quality.missed_cells += int(gap.sum())
        self._last_cell[where] = cell
        mask = np.zeros(len(self._devices), dtype=np.bool_)
        mask[where] = True
        returned = np.zeros_like(mask)
        returned[where[gap > self.forgive]] = True
        self._count_resets(slot, mask, read)
        self._idle_since[returned] = NEVER
        self._watch_idling(slot, mask)
        for name in read:
            series = self._series.get(name)
            if series is not None:
                if returned.any():
                    series.forget(returned)
                values = self._values[name][slot]
                series.update(values if mask.all() else np.where(mask, values, np.float32(np.nan)))

    def _watch_idling(self, slot: int, seen: Bools) -> None:
        """Hours of holding would need hours of cells; one time per device says the same."""
        util, memory = self._values["util_percent"][slot], self._values["memory_used_bytes"][slot]
        idle = seen & (util < self.idle_util_percent) & (memory >= self.held_bytes)
        busy = seen & ~idle & ~(np.isnan(util) | np.isnan(memory))
        self._idle_since[busy] = NEVER
        starts = idle & (self._idle_since == NEVER)
        self._idle_since[starts] = self._at[slot][starts]

    def _advance(self, cell: int) -> None:
        for step in range(min(cell - self._head, self.cells)):
            slot = (cell - step) % self.cells
            self._at[slot] = NEVER
            for array in self._values.values():
                array[slot] = np.nan
        self._head = cell

    def _count_resets(self, slot: int, seen: Bools, read: list[str]) -> None:
        before = (slot - 1) % self.cells
        both = seen & (self._at[before] != NEVER)
        for name in COUNTERS:
            if name in read:
                drop = self._values[name][slot] < self._values[name][before]
                self.quality.counter_resets += int((drop & both).sum())

    def snapshot(self) -> Window:
        """The window up to the newest cell. Raises ValueError before the first sample."""
        if self._head == NEVER:
            raise ValueError("no sample was taken yet")
        slots = [(self._head - back) % self.cells for back in range(self.cells - 1, -1, -1)]
        return Window(
            devices=self.devices,
            step_ns=self.step_ns,
            end_ns=(self._head + 1) * self.step_ns,
            sample_ns=_frozen(self._at[slots]),
            values={name: _frozen(array[slots]) for name, array in self._values.items()},
            scores={name: series.scores() for name, series in self._series.items()},
            idle_since_ns=_frozen(self._idle_since.copy()),
            traits=self._traits,
            columns=self._by_key,
            twins=self._twins(),
        )

    def _twins(self) -> tuple[tuple[int, int], ...]:
        """Pairs of columns at one place; slices of one device (``uuid/slice``) are devices of their own."""
        shared = [m for m in self._shared() if not any(map(self._is_slice, m))]
        return tuple(pair for members in shared for pair in combinations(members, 2))

    def copies(self) -> Ints:
        """Columns of devices that another column stands for already: their time must not count again.

        Of several whole devices at one place all but the first; beside slices of it, every whole one.
        """
        found = []
        for members in self._shared():
            whole = [column for column in members if not self._is_slice(column)]
            found += whole[1:] if len(whole) == len(members) else whole
        return np.asarray(found, dtype=np.int64)

    def _shared(self) -> list[list[int]]:
        """The columns of each place that has several."""
        if len(self._places) == len(self._devices):
            return []
        return [members for members in self._places.values() if len(members) > 1]

    def _is_slice(self, column: int) -> bool:
        uuid = self._in_order[column].uuid  # dcgm-exporter's with the slice behind a slash; NVML's own
        return "/" in uuid or uuid.startswith("MIG-")


def _one_stream(frame: Frame) -> bool:
    """True when the frame spans time rather than devices: a replayed recording, whose end is "now"."""
    return len(frame) > 2 * len(frame.devices)


def _frozen(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    array.flags.writeable = False
    return array
