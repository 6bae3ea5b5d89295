"""USAG012: many more submissions at once than a tenant ever makes.

The tail of a Poisson count whose rate is the tenant's own busiest hour of the last week (not its mean: people
submit in batches), with a floor below which nothing is a burst.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from compute_guard.usage.activity import DAY_NS, HOUR_NS, MINUTE_NS, Submission
from compute_guard.usage.detectors.base import Signal, View


@dataclass(frozen=True, slots=True)
class SubmissionBurst:
    """``minutes``: the window. ``floor``: fewer are never a burst. ``surprise``: -log10 of its tail."""

    rule_id: ClassVar[str] = "USAG012"
    kind: ClassVar[str] = "submission_burst"

    minutes: float = 10.0
    floor: int = 20
    surprise: float = 6.0
    days: float = 7.0

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per tenant that submits in a burst now."""
        start = view.at_ns - int(self.minutes * MINUTE_NS)
        for tenant, all_of_them in by_tenant(view, int(self.days * DAY_NS)).items():
            recent = [s for s in all_of_them if s.at_ns >= start]
            if len(recent) < self.floor:
                continue
            hours: dict[int, int] = {}
            for earlier in all_of_them:
                if earlier.at_ns < start:
                    hours[earlier.at_ns // HOUR_NS] = hours.get(earlier.at_ns // HOUR_NS, 0) + 1
            busiest = max(hours.values(), default=0)
            surprise = poisson_tail(len(recent), max(1.0, busiest * self.minutes / 60))
            if surprise >= self.surprise:
                yield Signal(
                    rule_id=self.rule_id,
                    kind=self.kind,
                    channel="rate",
                    device="",
                    score=min(800, int(50 * surprise)),
                    message=f"{len(recent)} submissions in {self.minutes:g} minutes; "
                    f"its busiest hour of the week had {busiest}",
                    message_zh=f"{self.minutes:g}分钟内提交{len(recent)}次；一周内最繁忙的一小时为{busiest}次",
                    evidence={
                        "recent": len(recent),
                        "busiest_hour": busiest,
                        "surprise": round(surprise, 1),
                        "users": sorted({s.user for s in recent})[:10],
                    },
                    tenant=tenant,
                    job="",
                )


def by_tenant(view: View, back_ns: int) -> dict[str, list[Submission]]:
    """Submissions of the last ``back_ns`` up to now by tenant, oldest first."""
    found: dict[str, list[Submission]] = {}
    for submission in view.activity.submissions:
        if view.at_ns - back_ns <= submission.at_ns <= view.at_ns:
            found.setdefault(submission.tenant, []).append(submission)
    return dict(sorted(found.items()))


def poisson_tail(count: int, mean: float) -> float:
    """-log10 of P(N >= count) for a Poisson N with ``mean`` > 0; exact up to the geometric remainder."""
    if count <= mean:
        return 0.0
    log_first = count * math.log(mean) - mean - math.lgamma(count + 1)
    # P(N >= k) <= P(N = k) / (1 - mean / (k + 1)): the terms shrink at least that fast.
    return max(0.0, -(log_first - math.log1p(-mean / (count + 1))) / math.log(10))


DETECTOR = SubmissionBurst
