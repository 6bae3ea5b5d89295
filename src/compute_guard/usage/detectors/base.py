"""What a detector sees and what it says.

A detector is a frozen dataclass of its parameters with one pure method: the same view gives the same signals.
It looks at all devices at once (arrays of shape (S,)) and makes Python objects only for those that stand out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from compute_guard.usage.activity import NOTHING, Activity, Flows
from compute_guard.usage.attribution import Lease, LeaseBook, Use
from compute_guard.usage.roster import NOT_GIVEN, Classes, Roster, roster
from compute_guard.usage.samples import Floats, Ints
from compute_guard.usage.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """What a tenant may use; None is "no limit".

    ``limit_milli``: thousandths of a GPU at once. ``daily_ms``: GPU-milliseconds in a UTC day, of which
    ``spent_ms`` are gone.
    """

    limit_milli: int | None = None
    daily_ms: int | None = None
    spent_ms: int = 0


@dataclass(frozen=True, slots=True)
class Typical:
    """How loads compare with those of their class: feature ``values``, their ``surprise`` (-log10 of the tail

    probability), and what 99 in 100 stay below (``usual``); each (features, S). ``classes``: by device.
    """

    values: Floats
    surprise: Floats
    usual: Floats
    classes: Classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A tenant's use over weeks, now: accelerators ``busy``, and what was ``usual`` at this hour (NaN: new).

    ``parts``: surprise as powers of ten, summed up in ``score``. ``told``: it is surprising enough to say so.
    """

    busy: float
    usual: float
    score: float
    parts: Mapping[str, float]
    told: bool
    days: float


@dataclass(frozen=True, slots=True)
class View:
    """One moment: the telemetry window, who holds what, and more by key.

    ``uses``: which processes were seen, by device. ``entitlements``: what tenants may use, by tenant.
    ``activity``: submissions, reads, refusals, shells. ``flows``: what left each node. ``typical``: how loads
    compare with the calibrated fleet, None before it is calibrated. ``courses``: by tenant. ``roster``: the
    book's leases as columns (made from the book when not given); ``active``: its rows that hold now.
    """

    window: Window
    book: LeaseBook = field(default_factory=LeaseBook)
    uses: Mapping[str, tuple[Use, ...]] = field(default_factory=dict)
    entitlements: Mapping[str, Entitlement] = field(default_factory=dict)
    activity: Activity = NOTHING
    flows: Flows = field(default_factory=Flows)
    typical: Typical | None = None
    roster: Roster = NOT_GIVEN
    courses: Mapping[str, Course] = field(default_factory=dict)
    active: Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.roster is NOT_GIVEN:
            made = roster(self.book, self.window.columns, len(self.window.devices))
            object.__setattr__(self, "roster", made)
        object.__setattr__(self, "active", self.roster.active(self.at_ns))

    @property
    def at_ns(self) -> int:
        """The moment: just before the end of the newest cell."""
        return self.window.end_ns - 1

    @property
    def held(self) -> Iterator[tuple[int, Lease]]:
        """The leases that hold now, with their device's column, one by one."""
        found = self.roster
        for row, column in zip(self.active.tolist(), found.column[self.active].tolist(), strict=True):
            yield column, found.leases[row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One channel of evidence about one device at one moment.

    ``channel`` names an independent source of evidence: two signals of one channel are one piece of evidence.
    ``message`` is one clause without a full stop, ``message_zh`` the same in Simplified Chinese (empty: the
    English one is shown). ``score`` is 0..1000. ``invariant``: what is seen cannot be innocent, so a single
    channel suffices.
    ``job`` and ``tenant`` are set when the signal is about a job whatever device it runs on.
    """

    rule_id: str
    kind: str
    channel: str
    device: str
    score: int
    message: str
    message_zh: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    invariant: bool = False
    synthetic: bool = False
    tenant: str = ""
    job: str = ""


@runtime_checkable
class Detector(Protocol):
    """Finds one kind of abnormal use."""

    rule_id: ClassVar[str]
    kind: ClassVar[str]

    def detect(self, view: View) -> Iterator[Signal]:
        """Signals of this moment. Pure; never raises for odd telemetry."""


def rounded(value: float, digits: int = 2) -> float | None:
    """``value`` for evidence: rounded, None for NaN (JSON has no NaN)."""
    return None if value != value else round(float(value), digits)
