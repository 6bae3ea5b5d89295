"""Whose every nanosecond of every device was, and what it leaves of a tenant's allowance for the day.

A device that one job has to itself, nearly every one, is summed as columns; one that is shared, changes hands
or has processes of its own is looked at closely (:func:`~compute_guard.usage.attribution.attribute`). Both
keep the invariant: what is attributed is what has passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from compute_guard.quota.limits import GPU, Quotas, base_of
from compute_guard.usage.attribution import IDLE, NOT_ADMITTED, LeaseBook, Ledger, Use, attribute
from compute_guard.usage.detectors.base import Entitlement
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.roster import NOT_GIVEN, Roster, roster, sums
from compute_guard.usage.samples import Frame, Ints
from compute_guard.usage.window import NEVER

_DAY_NS: Final = 86_400 * 1_000_000_000


@dataclass(slots=True)
class GpuTime:
    """The account of one stream of frames. ``uses``: the processes last seen, by device key.

    ``limits``: thousandths of a GPU a tenant may hold at once; ``daily_ms``: GPU-milliseconds in a UTC day.
    """

    rolling: Rolling
    limits: Mapping[str, int] = field(default_factory=dict)
    daily_ms: Mapping[str, int] = field(default_factory=dict)
    uses: dict[str, tuple[Use, ...]] = field(default_factory=dict)
    _last_ns: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _roster: Roster = NOT_GIVEN
    _roster_of: LeaseBook | None = None
    _whole_ns: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))  # by job; last: nobody's
    _ledger: Ledger = field(default_factory=Ledger)
    _day: int = 0
    _spent: dict[str, int] = field(default_factory=dict)

    def take(self, frame: Frame, book: LeaseBook) -> Roster:
        """Account for the time up to ``frame``, which ``rolling`` has taken; who holds what now."""
        self._see_processes(frame)
        held = self._rostered(book)
        self._account(frame, book, held)
        return held

    def follow_back(self, now_ns: int) -> None:
        """The clock had been ahead: time is attributed from each device's next reading on."""
        self._last_ns[:] = NEVER
        if now_ns // _DAY_NS < self._day:
            self._day, self._spent = now_ns // _DAY_NS, {}

    def spent(self) -> dict[str, Any]:
        """GPU-milliseconds by tenant since the beginning of the UTC day ``day`` (days since the epoch)."""
        return {"day": self._day, "gpu_ms": {t: ns // 1_000_000 for t, ns in sorted(self._spent.items())}}

    def restore(self, spent: Mapping[str, Any]) -> None:
        """Go on from what the monitor before this one had counted."""
        self._day = int(spent.get("day", 0))
        self._spent = {str(t): int(ms) * 1_000_000 for t, ms in spent.get("gpu_ms", {}).items()}

    def entitlements(self, now_ns: int) -> dict[str, Entitlement]:
        """What each tenant may use, and of the day's allowance has used."""
        today = now_ns // _DAY_NS == self._day
        return {
            tenant: Entitlement(
                limit_milli=self.limits.get(tenant),
                daily_ms=self.daily_ms.get(tenant),
                spent_ms=self._spent.get(tenant, 0) // 1_000_000 if today else 0,
            )
            for tenant in {*self.limits, *self.daily_ms}
        }

    def _rostered(self, book: LeaseBook) -> Roster:
        """The book as columns; made anew when jobs or devices have come or gone."""
        devices = len(self.rolling.devices)
        if self._roster_of is not book or len(self._roster.count) != devices:
            self.settled()
            self._roster, self._roster_of = roster(book, self.rolling.columns, devices), book
            self._whole_ns = np.zeros(len(self._roster.jobs) + 1, dtype=np.int64)
        return self._roster

    def _see_processes(self, frame: Frame) -> None:
        """Remember the processes of the newest sample of each device; none seen means none there."""
        if self.uses:
            spoken_of = {frame.devices[index].key for index in np.unique(frame.device).tolist()}
            self.uses = {key: uses for key, uses in self.uses.items() if key not in spoken_of}
        seen: dict[int, list[Use]] = {}
        for _, device, pid, memory, share, name in frame.processes.rows():
            weight = None if share != share else int(share * 1000)
            seen.setdefault(device, []).append(Use(pid, name, weight, memory))
        for index, uses in seen.items():
            self.uses[frame.devices[index].key] = tuple(uses)

    def _account(self, frame: Frame, book: LeaseBook, held: Roster) -> None:
        """Attribute the time since each device's previous sample. A gap is attributed by its leases too."""
        columns = self.rolling.columns_of(frame.devices)
        extra = len(self.rolling.devices) - len(self._last_ns)
        self._last_ns = np.concatenate([self._last_ns, np.full(extra, NEVER, dtype=np.int64)])
        now_ns = np.full(len(self._last_ns), NEVER, dtype=np.int64)
        np.maximum.at(now_ns, columns[frame.device], frame.ts_ns)
        now_ns[self.rolling.copies()] = NEVER  # one GPU under two names ran once
        going_on = np.flatnonzero((self._last_ns != NEVER) & (now_ns > self._last_ns))
        before, now = self._last_ns[going_on], now_ns[going_on]
        self._last_ns = np.maximum(self._last_ns, now_ns)
        whole, row = held.sole(going_on, before, now)
        in_use = [column for key in self.uses if (column := self.rolling.columns.get(key)) is not None]
        whole &= ~np.isin(going_on, in_use)
        for place in np.flatnonzero(~whole).tolist():
            key = self.rolling.devices[int(going_on[place])].key
            shares = attribute(key, int(before[place]), int(now[place]), book, self.uses.get(key, ()))
            self._ledger.add(shares)
            for share in shares:
                self._spend(share.owner.tenant, share.ns, int(now[place]) // _DAY_NS)
        self._account_whole(held, row[whole], now[whole] // _DAY_NS, (now - before)[whole])

    def _account_whole(self, held: Roster, row: Ints, days: Ints, elapsed: Ints) -> None:
        """Devices that one owner had to itself, nearly all of them: summed by job until :meth:`settled`."""
        job = np.append(held.job, len(held.jobs))[row]  # row -1, nobody's, is the one appended
        np.add.at(self._whole_ns, job, elapsed)
        tenant = np.append(held.tenant, -1)[job]
        for day in np.unique(days).tolist():
            counted = (days == day) & (tenant >= 0)
            ns = sums(tenant[counted], elapsed[counted], len(held.tenants))
            for number in np.flatnonzero(ns).tolist():
                self._spend(held.tenants[number], int(ns[number]), day)

    def settled(self) -> Ledger:
        """The ledger, with the whole devices' time in it: one entry per job that held any."""
        *of_jobs, of_nobody = self._whole_ns.tolist()
        for (tenant, job), ns in zip(self._roster.jobs, of_jobs, strict=True):
            if ns:
                self._ledger.count(("tenant", tenant, job) if tenant else NOT_ADMITTED.key, ns)
        if of_nobody:
            self._ledger.count(IDLE.key, of_nobody)
        self._whole_ns[:] = 0
        return self._ledger

    def _spend(self, tenant: str, ns: int, day: int) -> None:
        """Count against the day's allowance; an interval over midnight counts for the day it ends in."""
        if day > self._day:
            self._day, self._spent = day, {}
        if tenant and day == self._day:
            self._spent[tenant] = self._spent.get(tenant, 0) + ns


def gpu_limits(config: Mapping[str, Any]) -> dict[str, int]:
    """Thousandths of a GPU that each tenant's queues could hold at most, their cohorts idle."""
    limits: dict[str, int] = {}
    if not config:
        return limits
    quotas = Quotas.from_config(config)
    for queue in quotas.queues.values():
        gpus = [name for name in queue.resources if base_of(name) == GPU]  # one for each flavor
        most = sum(quotas.potential(queue.name, name) for name in gpus)
        limits[queue.tenant] = limits.get(queue.tenant, 0) + most
    return limits
