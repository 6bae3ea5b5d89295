"""What quotas.yaml says: queues, cohorts, flavors, and the limits of each, in Kueue's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compute_guard.quota.amounts import CPU, GPU, STORAGE_LIMIT, Amounts, base_of, total
from guard_core.errors import UserError

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class ResourceQuota:
    """One queue's quota of one resource. ``None`` as a limit means "no limit"."""

    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("nominal", "borrowing_limit", "lending_limit"):
            value = getattr(self, name)
            if value is None and name != "nominal":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= STORAGE_LIMIT:
                raise UserError(f"quota {name} must be a non-negative integer, got {value!r}")

    @property
    def guaranteed(self) -> int:
        """The part of the nominal quota that is never lent."""
        return 0 if self.lending_limit is None else max(0, self.nominal - self.lending_limit)

    @property
    def lendable(self) -> int:
        """The part of the nominal quota that the cohort may use while it is idle."""
        return self.nominal - self.guaranteed

    def beyond_guaranteed(self, used: int) -> int:
        """How much of ``used`` counts against the cohort."""
        return max(0, used - self.guaranteed)


NO_QUOTA = ResourceQuota(0, 0, 0)
"""A resource a queue does not name: it has none of it and may borrow none."""


@dataclass(frozen=True, slots=True)
class Preemption:
    """What a queue may take back, and how its own work is taken out (Kueue's ``preemption``).

    ``reclaim_within_cohort``: whose borrowed quota the queue may take back for what is its own (``never``,
    ``lower_priority``, ``any``). ``within_queue``: whether a higher priority ends a lower one in the same
    queue (``never``, ``lower_priority``). The rest is for the queue's own jobs when they have to go: the
    time between notice and stop, whether they wait again (``requeue``) or end (``end``), and whether a quota
    that was lowered below what runs takes jobs out (``lowered_quota``: ``keep`` or ``preempt``).
    """

    reclaim_within_cohort: str = "never"
    within_queue: str = "never"
    grace_seconds: int = 30
    then: str = "requeue"
    lowered_quota: str = "keep"


@dataclass(frozen=True, slots=True)
class Budget:
    """GPU-hours a queue may have used, as decayed by half-life: a spent budget refills by itself."""

    gpu_hours: int
    half_life_hours: int

    @property
    def half_life_ms(self) -> int:
        """The half-life in milliseconds."""
        return self.half_life_hours * HOUR_MS

    @property
    def limit(self) -> int:
        """The budget in the meter's unit: thousandths of a GPU times milliseconds."""
        return self.gpu_hours * 1000 * HOUR_MS


@dataclass(frozen=True, slots=True)
class FairShare:
    """How use is remembered. ``cost`` is what a thousandth of a resource counts."""

    half_life_hours: int = 168
    cost: Mapping[str, int] = field(default_factory=lambda: {GPU: 32, CPU: 1})
    patience_seconds: int = 3600
    """A job that would borrow and has waited so long keeps room from those behind it."""
    preempt: bool = False
    """Whether a borrower takes from one whose queue would still have had more for its weight."""

    @property
    def half_life_ms(self) -> int:
        """The half-life in milliseconds."""
        return self.half_life_hours * HOUR_MS

    def rate(self, amounts: Mapping[str, int]) -> int:
        """What holding ``amounts`` costs in one millisecond."""
        return sum(self.cost.get(base_of(name), 0) * value for name, value in amounts.items())


@dataclass(frozen=True, slots=True)
class Flavor:
    """A kind of node (a GPU type): the Ray labels its nodes carry, and their pool in nodes.yaml, if any."""

    name: str
    node_labels: Mapping[str, str] = field(default_factory=dict)
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Queues (and cohorts) that lend to each other. ``resources`` is quota of its own, shared by all in
    it."""

    name: str
    parent: str | None = None
    resources: Mapping[str, ResourceQuota] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A tenant's queue and its quotas (Kueue's ClusterQueue). Flavored resources stand in ``resources``

    under ``resource@flavor``; ``flavors`` is the order in which they are tried.
    """

    name: str
    tenant: str
    cohort: str | None
    resources: Mapping[str, ResourceQuota]
    weight: int = 1
    per_user: Mapping[str, int] = field(default_factory=dict)
    """The most that one user may hold in this queue, by resource; a resource not named has no such cap."""
    flavors: tuple[str, ...] = ()
    preemption: Preemption = field(default_factory=Preemption)
    budget: Budget | None = None
    max_pending: int | None = None
    """The most jobs that may wait in this queue; None: no such limit."""

    def __post_init__(self) -> None:
        for resource, cap in self.per_user.items():
            if isinstance(cap, bool) or not isinstance(cap, int) or not 0 <= cap <= STORAGE_LIMIT:
                raise UserError(f"per_user cap of {resource} must be a non-negative integer, got {cap!r}")

    def quota(self, resource: str) -> ResourceQuota:
        """The quota of ``resource``; nothing at all when the queue does not name it."""
        return self.resources.get(resource, NO_QUOTA)

    def assignments(self, requests: Amounts, wanted: Sequence[str] = ()) -> tuple[tuple[str, Amounts], ...]:
        """The ways to place ``requests``: (flavor, amounts), in the order they are tried, never empty.

        A request that no flavor of the queue is about has one way, without a flavor. ``wanted`` narrows the
        flavors; when none is left the first way asks for what cannot be had, so it is refused with its name.
        """
        flavored = {name.partition("@")[0] for name in self.resources if "@" in name}
        if not self.flavors or not flavored & set(requests):
            return (("", requests),)
        names = [name for name in self.flavors if not wanted or name in wanted] or list(wanted)
        return tuple(
            (
                name,
                Amounts({(f"{r}@{name}" if r in flavored else r): value for r, value in requests.items()}),
            )
            for name in names
        )

    def keeps_user(self, requests: Amounts, held: Amounts) -> bool:
        """Whether a user who holds ``held`` may not have ``requests`` too, which alone would be permitted."""
        if not self.per_user:
            return False
        possible = all(total(requests, name) <= cap for name, cap in self.per_user.items())
        now = all(
            not (asked := total(requests, name)) or total(held, name) + asked <= cap
            for name, cap in self.per_user.items()
        )
        return possible and not now
