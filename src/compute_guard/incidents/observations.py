"""Observations: what the signals of one moment say, one per (tenant, job, kind), before it is an incident.

Signals of one moment are merged (:func:`merge`), and a hysteresis keeps a flickering signal from opening and
closing incidents (:class:`Hysteresis`). Nothing here is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compute_guard.usage.attribution import LeaseBook
from compute_guard.usage.detectors.base import Signal

Key = tuple[str, str, str]
"""``(tenant, job, kind)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All signals of one (tenant, job, kind) at one moment, merged."""

    tenant: str
    job: str
    kind: str
    rule_ids: tuple[str, ...]
    channels: Mapping[str, Mapping[str, Any]]
    devices: tuple[str, ...]
    score: int
    invariant: bool
    synthetic: bool
    at_ns: int

    @property
    def key(self) -> Key:
        """What the incident is about."""
        return (self.tenant, self.job, self.kind)


def merge(signals: Iterable[Signal], book: LeaseBook, at_ns: int) -> tuple[Observation, ...]:
    """Signals as observations, one per (tenant, job, kind), sorted by key.

    A signal about a device concerns every job with a lease there; on an unleased device it is nobody's.
    """
    grouped: dict[Key, list[Signal]] = {}
    for signal in signals:
        for tenant, job in _owners(signal, book, at_ns):
            grouped.setdefault((tenant, job, signal.kind), []).append(signal)
    return tuple(_merged(key, grouped[key], at_ns) for key in sorted(grouped))


def _owners(signal: Signal, book: LeaseBook, at_ns: int) -> list[tuple[str, str]]:
    if signal.tenant:
        return [(signal.tenant, signal.job)]
    leases = book.on(signal.device, at_ns)
    holders = {(lease.tenant or "unattributed", lease.job) for lease in leases}
    return sorted(holders) or [("unattributed", signal.device)]


def _merged(key: Key, signals: Sequence[Signal], at_ns: int) -> Observation:
    strongest: dict[str, Signal] = {}
    for signal in sorted(signals, key=lambda s: (s.score, s.device)):
        strongest[signal.channel] = signal
    return Observation(
        tenant=key[0],
        job=key[1],
        kind=key[2],
        rule_ids=tuple(sorted({s.rule_id for s in signals})),
        channels={
            name: {
                "message": s.message,
                **({"message_zh": s.message_zh} if s.message_zh else {}),
                "device": s.device,
                "score": s.score,
                **s.evidence,
            }
            for name, s in sorted(strongest.items())
        },
        devices=tuple(sorted({s.device for s in signals if s.device})),
        score=max(s.score for s in signals),
        invariant=any(s.invariant for s in signals),
        synthetic=any(s.synthetic for s in signals),
        at_ns=at_ns,
    )


@dataclass(slots=True)
class Hysteresis:
    """Raises after ``raise_after`` moments in a row, clears after ``clear_after`` without. In memory only:

    after a restart a streak begins anew, which delays an opening by a sample or two and loses nothing.
    """

    raise_after: int = 2
    clear_after: int = 8
    _streak: dict[Key, int] = field(default_factory=dict)
    _quiet: dict[Key, int] = field(default_factory=dict)

    def step(self, observed: Sequence[Observation]) -> tuple[tuple[Observation, ...], tuple[Key, ...]]:
        """What is raised now (every moment while it lasts), and which keys have just cleared."""
        seen = {observation.key: observation for observation in observed}
        for key in seen:
            self._streak[key] = self._streak.get(key, 0) + 1
            self._quiet[key] = 0
        cleared = []
        for key in [key for key in self._streak if key not in seen]:
            self._quiet[key] = self._quiet.get(key, 0) + 1
            raised = self._streak[key] >= self.raise_after
            if not raised or self._quiet[key] >= self.clear_after:
                if raised:
                    cleared.append(key)
                del self._streak[key], self._quiet[key]
        raised_now = [o for key, o in sorted(seen.items()) if self._streak[key] >= self.raise_after]
        return tuple(raised_now), tuple(cleared)
