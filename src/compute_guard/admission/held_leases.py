"""Leases that wait at the gates: written by the head's gate, told by ``compute why`` and status messages.

A job that runs may wait too: for room for its next task. Ray shows such a task as pending and says no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from compute_guard.admission.assessment import amounts_text
from compute_guard.quota.limits import Amounts
from guard_core.files import write_atomic

HELD_FILE = "held.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLeases:
    """The leases of one workload that wait: ``needs`` is what the first in line asks for, ``since_ms`` when
    the line began (Unix, ms), ``reason`` what is in the way."""

    workload: str
    count: int
    needs: Mapping[str, int]
    since_ms: int
    reason: str

    def sentence(self, now_ms: int) -> str:
        """For a person, without what only the whole cluster knows."""
        asked = amounts_text(self.needs)
        many = "1 lease waits" if self.count == 1 else f"{self.count} leases wait"
        seconds = max(0, now_ms - self.since_ms) // 1000
        return f"{many} at the gates since {seconds} s; the first asks for {asked}: {self.reason}"


class HeldLeasesFile:
    """Keeps the file of a head's gate up to date; written only when something changed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / HELD_FILE
        self._written: tuple[HeldLeases, ...] | None = None

    def note(self, lines: Mapping[str, tuple[int, Amounts, str]], now_ms: int) -> None:
        """``lines``: by workload how many wait, what the first asks for, and what is in the way."""
        before = {held.workload: held.since_ms for held in self._written or ()}
        rows = tuple(
            HeldLeases(
                workload=workload,
                count=count,
                needs=dict(needs),
                since_ms=before.get(workload, now_ms),
                reason=reason or "being looked at",
            )
            for workload, (count, needs, reason) in sorted(lines.items())
        )
        if rows != self._written:
            write_atomic(self._file, json.dumps([asdict(row) for row in rows]).encode(), mode=0o600)
            self._written = rows


def held_leases(folder: str | Path) -> dict[str, HeldLeases]:
    """By workload; empty where there are no gates, or none that this machine can see."""
    if not folder:
        return {}
    try:
        rows = json.loads((Path(folder) / HELD_FILE).read_text(encoding="utf-8"))
        return {row["workload"]: HeldLeases(**row) for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def held_text(story: Mapping[str, object], ahead: Sequence[str], fits: Mapping[str, int]) -> Iterator[str]:
    """Lines of ``compute why`` for a job whose leases wait."""
    yield f"  waits for     {story['sentence']}"
    if ahead:
        yield f"  ahead         {', '.join(ahead)}"
    yield f"  fits now      {amounts_text(fits)}"
