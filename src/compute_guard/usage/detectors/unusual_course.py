"""USAG017: a tenant's use takes a course that it never took.

Devices and jobs may each look as they should while the whole does not: a service that never rests any more, a
batch tenant at an hour when it never computes, a level it never had. So every tenant's busy accelerators are
one series over weeks, and :mod:`compute_guard.usage.novelty` says how new its course is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from compute_guard.usage.detectors.base import Signal, View, rounded
from compute_guard.usage.novelty import LIMIT

_PARTS: Final = {
    "shape": ("its shape", "走势"),
    "hour": ("the time of day", "时段"),
    "jump": ("a jump", "突变"),
    "level": ("its level", "水平"),
}


@dataclass(frozen=True, slots=True)
class UnusualCourse:
    """``limit``: the score that is told. ``quiet_days``: watched before. ``floor``: accelerators it is about.

    A course that differs from what is usual at the hour by fewer than ``floor`` accelerators is left alone.
    """

    rule_id: ClassVar[str] = "USAG017"
    kind: ClassVar[str] = "unusual_course"

    limit: float = LIMIT
    quiet_days: float = 8.0
    floor: float = 0.5

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per tenant whose use takes such a course now."""
        for tenant, course in sorted(view.courses.items()):
            if not course.told or not abs(course.busy - course.usual) >= self.floor:
                continue
            main = max(course.parts, key=lambda name: course.parts[name])
            busy, usual = f"{course.busy:.1f}", f"{course.usual:.1f}"
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="course",
                device="",
                score=min(900, int(40 * course.score)),
                message=f"keeps {busy} accelerators busy, {usual} is usual at this hour; "
                f"in {course.days:.0f} days it never went so, by {_PARTS[main][0]} above all",
                message_zh=f"当前约{busy}张加速卡处于计算状态，该时段通常为{usual}张；"
                f"{course.days:.0f}天内未见此走势（主要因{_PARTS[main][1]}）",
                evidence={
                    "busy": rounded(course.busy),
                    "usual_at_this_hour": rounded(course.usual),
                    "surprise": {name: rounded(value, 1) for name, value in course.parts.items()},
                    "days_watched": rounded(course.days, 1),
                },
                tenant=tenant,
                job="",
            )


DETECTOR = UnusualCourse
