"""Who holds what, for all devices of a window at once: the leases of a book as columns.

A fleet has one lease or so per device, and a scrape asks all of them the same few questions. Asked one by one
that is most of a scrape's time; asked of arrays it is next to nothing. Objects are made only for the devices
that somebody has something to say about.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.samples import Bools, Ints

JobClass = tuple[str, str]
"""``(kind, GPU model)``."""
OPEN: Final = int(np.iinfo(np.int64).max)
"""The end of a lease that has none."""
UNKNOWN_GRANT: Final = -1
_Item = TypeVar("_Item")
_Code = TypeVar("_Code", bound=Hashable)


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The class of every device: ``names[code[device]]``."""

    names: tuple[JobClass, ...]
    code: Ints

    @classmethod
    def of(cls, classes: Iterable[JobClass]) -> Classes:
        """From one class per device."""
        codes, names = _coded(classes, lambda found: found)
        return cls(names, codes)

    def __getitem__(self, device: int) -> JobClass:
        return self.names[int(self.code[device])]

    def __len__(self) -> int:
        return len(self.code)


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """L leases on S devices, in order of device; on one device as in the book. Shapes (L,) unless said.

    ``column`` is the device, ``start_ns`` and ``end_ns`` when the lease holds (:data:`OPEN`: still).
    ``milli`` (what counts against quota) and ``granted`` are thousandths of a GPU (:data:`UNKNOWN_GRANT`: not
    known). ``job``, ``kind`` and ``entrypoint`` index ``jobs`` (tenant, job), ``kinds`` and ``entrypoints``;
    ``tenant``, one per job, indexes ``tenants`` and is -1 for a job that nobody was admitted with. ``first``
    (S,) is a device's first row, ``count`` (S,) how many it has.
    """

    leases: tuple[Lease, ...]
    column: Ints
    start_ns: Ints
    end_ns: Ints
    milli: Ints
    granted: Ints
    job: Ints
    jobs: tuple[tuple[str, str], ...]
    tenant: Ints
    tenants: tuple[str, ...]
    kind: Ints
    kinds: tuple[str, ...]
    entrypoint: Ints
    entrypoints: tuple[str, ...]
    first: Ints
    count: Ints

    def active(self, at_ns: int) -> Ints:
        """Rows of the leases that hold at ``at_ns``."""
        return np.flatnonzero((self.start_ns <= at_ns) & (at_ns < self.end_ns))

    def sole(self, columns: Ints, start_ns: Ints, end_ns: Ints) -> tuple[Bools, Ints]:
        """Per entry: whether one owner, or nobody, had the device from start to end to itself, and its row.

        The row is -1 where nobody has a lease. Where the first is False it takes a closer look
        (:func:`~compute_guard.usage.attribution.attribute`).
        """
        count = self.count[columns]
        if not len(self.column):
            return np.ones(len(columns), dtype=np.bool_), np.full(len(columns), -1, dtype=np.int64)
        row = np.minimum(self.first[columns], len(self.column) - 1)
        through = (self.start_ns[row] <= start_ns) & (self.end_ns[row] >= end_ns)
        return (count == 0) | ((count == 1) & through), np.where(count == 0, -1, row)

    def kinds_of(self, rows: Ints, devices: int) -> tuple[Ints, tuple[str, ...]]:
        """What the jobs of ``rows`` say they are, by device: (S,) codes into the names returned.

        The last two names are ``shared`` (jobs of several kinds) and empty (no job).
        """
        shared, nothing = len(self.kinds), len(self.kinds) + 1
        found = np.full(devices, nothing, dtype=np.int64)
        named = np.asarray([bool(kind) for kind in self.kinds], dtype=np.bool_)
        rows = rows[named[self.kind[rows]]] if len(rows) else rows
        column, kind = self.column[rows], self.kind[rows]
        found[column] = kind
        found[column[found[column] != kind]] = shared
        return found, (*self.kinds, "shared", "")


def roster(book: LeaseBook, columns: Mapping[str, int], devices: int) -> Roster:
    """The leases of ``book`` on the devices of a window: ``columns`` gives a device's place by its key."""
    places = [columns.get(lease.device, -1) for lease in book.leases]
    column = np.asarray(places, dtype=np.int64)
    order = np.argsort(column, kind="stable")
    order = order[np.searchsorted(column[order], 0) :]  # leases on devices no telemetry speaks of
    in_order = order.tolist()
    leases = tuple([book.leases[row] for row in in_order])
    column = column[order]
    job, jobs = _coded(leases, lambda lease: (lease.tenant, lease.job))
    tenants = sorted({tenant for tenant, _ in jobs if tenant})
    number = {tenant: code for code, tenant in enumerate(tenants)}
    kind, kinds = _coded(leases, lambda lease: lease.kind)
    entrypoint, entrypoints = _coded(leases, lambda lease: lease.entrypoint)
    count = np.bincount(column, minlength=devices)
    return Roster(
        leases=leases,
        column=column,
        start_ns=_ints([lease.start_ns for lease in leases]),
        end_ns=_ints([OPEN if lease.end_ns is None else lease.end_ns for lease in leases]),
        milli=_ints([x.gpu_milli if x.quota_milli is None else x.quota_milli for x in leases]),
        granted=_ints([UNKNOWN_GRANT if x.granted_milli is None else x.granted_milli for x in leases]),
        job=job,
        jobs=jobs,
        tenant=_ints([number.get(tenant, -1) for tenant, _ in jobs]),
        tenants=tuple(tenants),
        kind=kind,
        kinds=kinds,
        entrypoint=entrypoint,
        entrypoints=entrypoints,
        first=np.cumsum(count) - count,
        count=count,
    )


def sums(group: Ints, amounts: Ints, groups: int) -> Ints:
    """The sum of ``amounts`` by group (0 to ``groups`` - 1), exactly."""
    found = np.zeros(groups, dtype=np.int64)
    np.add.at(found, group, amounts)
    return found


def _coded(items: Iterable[_Item], name: Callable[[_Item], _Code]) -> tuple[Ints, tuple[_Code, ...]]:
    """Items as small integers, and what each integer stands for."""
    codes: dict[_Code, int] = {}
    found = [codes.setdefault(name(item), len(codes)) for item in items]
    return _ints(found), tuple(codes)


def _ints(values: Sequence[int]) -> Ints:
    return np.asarray(values, dtype=np.int64)


NOT_GIVEN: Final = roster(LeaseBook(), {}, 0)
"""Stands for a roster that is still to be made."""
