"""USAG010: a tenant that works by day submits at night.

Many tenants train around the clock, so the hour alone says nothing. This looks at tenants whose own record
shows that they hardly ever submit outside working hours (``calendars.yaml``), and tells when they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from compute_guard.usage.activity import DAY_NS, MINUTE_NS
from compute_guard.usage.detectors.base import Signal, View
from compute_guard.usage.detectors.submission_burst import by_tenant


@dataclass(frozen=True, slots=True)
class OffHours:
    """At most ``usual`` of at least ``submissions`` in ``days`` days off hours. ``recent_minutes``: news."""

    rule_id: ClassVar[str] = "USAG010"
    kind: ClassVar[str] = "off_hours"

    submissions: int = 40
    usual: float = 0.02
    days: float = 30.0
    recent_minutes: float = 15.0

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per job submitted off hours, just now, by a tenant that does not do so."""
        news = view.at_ns - int(self.recent_minutes * MINUTE_NS)
        for tenant, all_of_them in by_tenant(view, int(self.days * DAY_NS)).items():
            before = [s for s in all_of_them if s.at_ns < news]
            off = sum(s.off_hours for s in before)
            if len(before) < self.submissions or off > self.usual * len(before):
                continue
            for found in (s for s in all_of_them if s.at_ns >= news and s.off_hours):
                yield Signal(
                    rule_id=self.rule_id,
                    kind=self.kind,
                    channel="calendar",
                    device="",
                    score=300,
                    message=f"submitted outside working hours, as {off} of {len(before)} earlier ones were",
                    message_zh=f"在非工作时段提交，此前{len(before)}次提交中仅{off}次如此",
                    evidence={"earlier": len(before), "earlier_off_hours": off, "user": found.user},
                    tenant=tenant,
                    job=found.id,
                )


DETECTOR = OffHours
