"""What is in force: the one signed document that decides which policies a home uses.

It changes by whole replacement and counts its ``generation``; values here are immutable.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from guard_core.errors import Tampered

Mode = Literal["shadow", "warn", "enforce"]
MODES: tuple[Mode, ...] = ("shadow", "warn", "enforce")
KEPT = 20
"""Former versions that stay listed (their files stay too)."""


@dataclass(frozen=True, slots=True)
class Held:
    """One bundle of the store. ``digest`` is its file's SHA-256 and name, ``size`` what it unpacks to."""

    digest: str
    sequence: int
    revision: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Person:
    """Who did something, from a verified credential. Two credentials of one user are one person."""

    tenant: str
    user: str
    credential_id: str

    def same(self, other: Person) -> bool:
        """Whether both are one person (or one credential)."""
        return (self.tenant, self.user) == (other.tenant, other.user) or (
            self.credential_id == other.credential_id
        )

    def __str__(self) -> str:
        return f"{self.tenant}/{self.user}"


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's yes to one candidate. It names the bundle's digest, so it is worth nothing for another."""

    by: Person
    role: str
    at_ns: int
    digest: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A candidate beside the policies in force. No tenants means all; ``percent`` of their subjects."""

    change: str
    held: Held
    mode: Mode
    author: Person
    staged_ns: int
    tenants: tuple[str, ...] = ()
    percent: int = 100
    approvals: tuple[Approval, ...] = ()

    @property
    def valid_approvals(self) -> tuple[Approval, ...]:
        """Approvals of this very bundle by people other than its author."""
        return tuple(a for a in self.approvals if a.digest == self.held.digest and not a.by.same(self.author))

    def covers(self, tenant: str, subject: str) -> bool:
        """Whether this tenant's subject is among the chosen. Stable: the same answer for the whole change."""
        if self.tenants and tenant not in self.tenants:
            return False
        if self.percent >= 100:
            return True
        drawn = hashlib.sha256(f"{self.change}\0{tenant}\0{subject}".encode()).digest()
        return int.from_bytes(drawn[:8], "big") % 10_000 < self.percent * 100


@dataclass(frozen=True, slots=True)
class Emergency:
    """A bundle put in force without the gate or a second person, until ``until_ns``."""

    id: str
    held: Held
    by: Person
    reason: str
    since_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class Review:
    """An emergency that somebody else has yet to look at."""

    id: str
    by: Person
    reason: str
    revision: str
    since_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class State:
    """Everything the life cycle knows. ``highest`` is the greatest sequence number ever accepted."""

    generation: int
    highest: int
    active: Held
    former: tuple[Held, ...] = ()
    stage: Stage | None = None
    emergency: Emergency | None = None
    reviews: tuple[Review, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The signed document."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> State:
        """Inverse of :meth:`to_json`. Raises Tampered for anything else."""
        try:
            stage, emergency = value["stage"], value["emergency"]
            return cls(
                generation=int(value["generation"]),
                highest=int(value["highest"]),
                active=Held(**value["active"]),
                former=tuple(Held(**item) for item in value["former"]),
                stage=None if stage is None else _stage(stage),
                emergency=None if emergency is None else _emergency(emergency),
                reviews=tuple(Review(**{**item, "by": Person(**item["by"])}) for item in value["reviews"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Tampered(f"the policy store's state is not one this version can read: {error!r}") from None


def _stage(value: dict[str, Any]) -> Stage:
    approvals = tuple(_approval(item) for item in value["approvals"])
    known = {
        **value,
        "held": Held(**value["held"]),
        "author": Person(**value["author"]),
        "tenants": tuple(value["tenants"]),
        "approvals": approvals,
    }
    return Stage(**known)


def _approval(value: dict[str, Any]) -> Approval:
    return Approval(**{**value, "by": Person(**value["by"])})


def _emergency(value: dict[str, Any]) -> Emergency:
    return Emergency(**{**value, "held": Held(**value["held"]), "by": Person(**value["by"])})
