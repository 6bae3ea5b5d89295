"""USAG011: a tenant runs a program that it has never run.

Exposed clusters are used with commands their owners never wrote (ShadowRay). A tenant with a settled habit
(many submissions, few programs) that runs a new one is worth a look; a tenant that tries something new each
day is not. Compared is the program's name without directories and numbers; the command itself is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from compute_guard.usage.activity import DAY_NS, MINUTE_NS
from compute_guard.usage.detectors.base import Signal, View
from compute_guard.usage.detectors.submission_burst import by_tenant


@dataclass(frozen=True, slots=True)
class NewEntrypoint:
    """A habit: ``submissions`` or more in ``days`` days, of which at most ``rate`` brought a new program."""

    rule_id: ClassVar[str] = "USAG011"
    kind: ClassVar[str] = "new_entrypoint"

    submissions: int = 30
    rate: float = 0.1
    days: float = 30.0
    recent_minutes: float = 15.0

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per job that was just submitted with a program new to a settled tenant."""
        news = view.at_ns - int(self.recent_minutes * MINUTE_NS)
        for tenant, all_of_them in by_tenant(view, int(self.days * DAY_NS)).items():
            before = [s for s in all_of_them if s.at_ns < news and s.program]
            known = {s.program for s in before}
            if len(before) < self.submissions or len(known) > self.rate * len(before):
                continue
            for found in (s for s in all_of_them if s.at_ns >= news):
                if found.program and found.program not in known:
                    yield Signal(
                        rule_id=self.rule_id,
                        kind=self.kind,
                        channel="rarity",
                        device="",
                        score=350,
                        message=f"runs a program none of the {len(before)} earlier submissions ran",
                        message_zh=f"运行的程序在此前{len(before)}次提交中从未出现",
                        evidence={
                            "program": found.program,
                            "known_programs": len(known),
                            "earlier": len(before),
                            "user": found.user,
                        },
                        tenant=tenant,
                        job=found.id,
                    )


DETECTOR = NewEntrypoint
