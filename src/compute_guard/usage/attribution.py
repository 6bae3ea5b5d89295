"""Whose GPU-second it was: a ledger in which every nanosecond of every device is counted exactly once.

Each nanosecond of a device goes to one of four buckets:

- ``tenant``: a job that holds a lease on the device;
- ``system``: nobody's lease and nobody's process (idle capacity), or the platform's own processes;
- ``unattributed``: a process that no lease explains;
- ``contested``: leases that together claim more than the device, with no accounting to divide by.

Shared devices are divided by per-process accounting where the driver gives it, else by the shares the leases
ask for. The device's value is never copied to each user of it. All arithmetic is in integers, and shares are
rounded by largest remainder, so the parts of an interval add up to it exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final, Literal

WHOLE_MILLI: Final = 1000
SYSTEM_PROCESSES: Final = frozenset(
    {
        "Xorg",
        "dcgm-exporter",
        "gnome-shell",
        "nv-hostengine",
        "nvidia-cuda-mps-control",
        "nvidia-cuda-mps-server",
        "nvidia-persistenced",
        "nvidia-smi",
    }
)
"""Executables that belong to the platform, wherever they run."""
SYSTEM_MEMORY_BYTES: Final = 2**30
"""A process with a platform name that holds more than this is not believed: names are free to choose."""

Bucket = Literal["tenant", "system", "unattributed", "contested"]


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Who a share belongs to. ``tenant`` and ``job`` are empty except in the bucket ``tenant``."""

    bucket: Bucket
    tenant: str = ""
    job: str = ""
    reason: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Bucket, tenant and job: what a ledger is summed by."""
        return (self.bucket, self.tenant, self.job)


IDLE: Final = Owner("system", reason="idle")
NOT_ADMITTED: Final = Owner("unattributed", reason="holder_not_admitted")


@dataclass(frozen=True, slots=True)
class Lease:
    """A job's right to ``gpu_milli`` thousandths of a device from ``start_ns`` to ``end_ns`` (None: still).

    ``kind`` is what the job says it is (``batch``, ``notebook``, ``service``, ``simulation``), ``entrypoint``
    its command as submitted (used for matching, never stored whole), ``pids`` the processes known to be its.
    ``quota_milli`` is what the lease counts against quota: 0 on what another lease stands for already (a
    further slice of one GPU, or the GPU as a second exporter names it); None: ``gpu_milli``.
    """

    device: str
    tenant: str
    job: str
    start_ns: int = 0
    end_ns: int | None = None
    gpu_milli: int = WHOLE_MILLI
    user: str = ""
    kind: str = "batch"
    entrypoint: str = ""
    pids: frozenset[int] = frozenset()
    quota_milli: int | None = None
    granted_milli: int | None = None  # what the whole job reserved, None when that is not known

    def active(self, at_ns: int) -> bool:
        """Whether the lease holds at ``at_ns``."""
        return self.start_ns <= at_ns and (self.end_ns is None or at_ns < self.end_ns)


@dataclass(frozen=True, slots=True)
class Use:
    """One process on a device at one time. ``weight``: its accounted share, None without accounting."""

    pid: int
    name: str = ""
    weight: int | None = None
    memory_bytes: int = 0

    @property
    def is_platform(self) -> bool:
        """Whether the process is believed to be the platform's own."""
        return self.name in SYSTEM_PROCESSES and self.memory_bytes <= SYSTEM_MEMORY_BYTES


@dataclass(frozen=True, slots=True)
class Share:
    """``ns`` nanoseconds of ``device`` that belong to ``owner``."""

    device: str
    owner: Owner
    ns: int


@dataclass(frozen=True)
class LeaseBook:
    """All leases, by device. Immutable; a monitor gets a new book when jobs come and go."""

    leases: tuple[Lease, ...] = ()

    @cached_property
    def _by_device(self) -> Mapping[str, tuple[Lease, ...]]:
        index: dict[str, list[Lease]] = {}
        for lease in self.leases:
            index.setdefault(lease.device, []).append(lease)
        return {key: tuple(found) for key, found in index.items()}

    @classmethod
    def of(cls, leases: Iterable[Lease]) -> LeaseBook:
        """A book of ``leases``."""
        return cls(tuple(leases))

    def on(self, device: str, at_ns: int) -> tuple[Lease, ...]:
        """The leases that hold on ``device`` at ``at_ns``."""
        return tuple(lease for lease in self._by_device.get(device, ()) if lease.active(at_ns))

    def sole_owner(self, device: str, start_ns: int, end_ns: int) -> Owner | None:
        """Who had the device to itself from ``start_ns`` to ``end_ns``, None when it takes a closer look."""
        leases = self._by_device.get(device, ())
        if not leases:
            return IDLE
        (lease, *others) = leases
        if others or lease.start_ns > start_ns or (lease.end_ns is not None and lease.end_ns < end_ns):
            return None
        return _owner(lease)

    def changes(self, device: str, start_ns: int, end_ns: int) -> tuple[int, ...]:
        """Times within ``(start, end)`` at which a lease on ``device`` begins or ends, sorted."""
        times = {
            time
            for lease in self._by_device.get(device, ())
            for time in (lease.start_ns, lease.end_ns)
            if time is not None and start_ns < time < end_ns
        }
        return tuple(sorted(times))

    def devices_of(self, tenant: str, job: str) -> tuple[str, ...]:
        """Devices on which a job ever held a lease."""
        return tuple(sorted({x.device for x in self.leases if (x.tenant, x.job) == (tenant, job)}))


def attribute(
    device: str, start_ns: int, end_ns: int, book: LeaseBook, uses: Sequence[Use] = ()
) -> list[Share]:
    """Divide ``[start_ns, end_ns)`` of ``device``; the parts add up to ``end_ns - start_ns`` exactly.

    ``uses`` are the processes seen in the interval. Raises ValueError when the interval runs backwards.
    """
    if end_ns < start_ns:
        raise ValueError(f"the interval of {device} ends before it starts")
    if not uses and (owner := book.sole_owner(device, start_ns, end_ns)) is not None:
        return [Share(device, owner, end_ns - start_ns)] if end_ns > start_ns else []
    shares: list[Share] = []
    edges = [start_ns, *book.changes(device, start_ns, end_ns), end_ns]
    for first, last in pairwise(edges):
        if last > first:
            weights = _claims(book.on(device, first), uses)
            owners = sorted(weights)
            parts = divide(last - first, [weights[owner] for owner in owners])
            shares += [Share(device, o, ns) for o, ns in zip(owners, parts, strict=True) if ns]
    return shares


def divide(total: int, weights: Sequence[int]) -> list[int]:
    """Integers in proportion to ``weights`` that add up to ``total`` exactly (largest remainder).

    Raises ValueError for negative weights or when none is positive.
    """
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0:
        raise ValueError("shares need non-negative weights, at least one above 0")
    parts = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for index in order[: total - sum(parts)]:
        parts[index] += 1
    return parts


def strangers(leases: Sequence[Lease], uses: Sequence[Use]) -> tuple[Use, ...]:
    """The processes among ``uses`` that no lease explains.

    A lease whose processes are not known may explain any process; so only when all are known is one foreign.
    A lease without a tenant (a holder that was never admitted) explains nothing.
    """
    leases = [lease for lease in leases if lease.tenant]
    explained = {pid for lease in leases for pid in lease.pids}
    if any(not lease.pids for lease in leases):
        return ()
    return tuple(use for use in uses if use.pid not in explained and not use.is_platform)


def _claims(leases: Sequence[Lease], uses: Sequence[Use]) -> dict[Owner, int]:
    """Owners of a moment and their weights: at least one owner, weights not all zero."""
    foreign = strangers(leases, uses)
    if foreign:  # then the processes of a holder without a tenant are among them, and count once
        leases = [lease for lease in leases if lease.tenant]
    if not leases:
        return _unleased(foreign, [use for use in uses if use.is_platform])
    jobs = {pid: lease.job for lease in leases for pid in lease.pids}
    counted: dict[str, int] = {}
    for use in uses:
        if use.pid in jobs:
            counted[jobs[use.pid]] = counted.get(jobs[use.pid], 0) + (use.weight or 0)
    claims = _leased(leases, counted)
    if foreign:
        weight = sum(use.weight or 0 for use in foreign)
        accounted = weight > 0 or sum(counted.values()) > 0
        # Without accounting a stranger counts as one more user of the device, as large as an average lease.
        share = weight if accounted else sum(claims.values()) // len(leases)
        claims[Owner("unattributed", reason="process_without_lease")] = share
    return claims


def _unleased(foreign: Sequence[Use], platform: Sequence[Use]) -> dict[Owner, int]:
    if not foreign:
        return {Owner("system", reason="platform_process" if platform else "idle"): 1}
    stranger, ours = sum(u.weight or 0 for u in foreign), sum(u.weight or 0 for u in platform)
    claims = {Owner("unattributed", reason="process_without_lease"): max(stranger, 1)}
    if ours:
        claims[Owner("system", reason="platform_process")] = ours
    return claims


def _leased(leases: Sequence[Lease], counted: Mapping[str, int]) -> dict[Owner, int]:
    owners = {lease: _owner(lease) for lease in leases}
    if len(leases) == 1:
        return {owners[leases[0]]: max(counted.get(leases[0].job, 0), 1)}
    if sum(counted.values()) > 0 and all(lease.pids for lease in leases):
        return _summed((owners[lease], counted.get(lease.job, 0)) for lease in leases)
    if sum(lease.gpu_milli for lease in leases) <= WHOLE_MILLI:
        return _summed((owners[lease], lease.gpu_milli) for lease in leases)
    return {Owner("contested", reason="leases_exceed_the_device"): 1}


def _summed(weights: Iterable[tuple[Owner, int]]) -> dict[Owner, int]:
    """Weights by owner: several holders that were never admitted are one owner, nobody."""
    found: dict[Owner, int] = {}
    for owner, weight in weights:
        found[owner] = found.get(owner, 0) + weight
    return found


def _owner(lease: Lease) -> Owner:
    return _owner_of(lease.tenant, lease.job)


@lru_cache(maxsize=65_536)
def _owner_of(tenant: str, job: str) -> Owner:
    if tenant:
        return Owner("tenant", tenant, job, "lease")
    return NOT_ADMITTED


@dataclass(slots=True)
class Ledger:
    """Running sums of shares. Adding is associative and commutative: ledgers of many nodes merge."""

    ns: dict[tuple[str, str, str], int] = field(default_factory=dict)
    device_ns: int = 0

    def add(self, shares: Iterable[Share]) -> None:
        """Count ``shares``."""
        for share in shares:
            self.count(share.owner.key, share.ns)

    def count(self, key: tuple[str, str, str], ns: int) -> None:
        """Count ``ns`` nanoseconds of an owner's (:attr:`Owner.key`)."""
        self.ns[key] = self.ns.get(key, 0) + ns
        self.device_ns += ns

    def merge(self, other: Ledger) -> None:
        """Count everything ``other`` counted."""
        for key, ns in other.ns.items():
            self.ns[key] = self.ns.get(key, 0) + ns
        self.device_ns += other.device_ns

    def rows(self) -> Iterator[dict[str, str | int]]:
        """Bucket, tenant, job and whole milliseconds, largest first."""
        for (bucket, tenant, job), ns in sorted(self.ns.items(), key=lambda item: (-item[1], item[0])):
            yield {"bucket": bucket, "tenant": tenant, "job": job, "gpu_ms": ns // 1_000_000}
