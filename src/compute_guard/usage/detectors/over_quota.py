"""USAG005: more accelerators held than were reserved or granted, and an allowance that is running out.

Admission counts what jobs ask for; Ray hands out what their tasks ask for later. So the two are compared: a
job that holds more than it reserved (channel ``reservation``), a tenant that holds more than its queues could
ever have (``limit``, an invariant: admission alone cannot lead there), and a day's GPU hours that are spent,
or will be before the day ends at the present rate (``allowance``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from compute_guard.usage.detectors.base import Entitlement, Signal, View
from compute_guard.usage.roster import UNKNOWN_GRANT, sums
from compute_guard.usage.samples import Ints

_DAY_NS: Final = 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class OverQuota:
    """``tolerance_milli``: thousandths of a GPU. ``forecast_minutes``: how early an end is announced."""

    rule_id: ClassVar[str] = "USAG005"
    kind: ClassVar[str] = "over_quota"

    tolerance_milli: int = 0
    forecast_minutes: float = 60.0

    def detect(self, view: View) -> Iterator[Signal]:
        """Signals about jobs and tenants that use more than they may, or soon will have."""
        found, rows = view.roster, view.active
        rows = rows[found.tenant[found.job[rows]] >= 0]
        job, milli, granted = found.job[rows], found.milli[rows], found.granted[rows]
        tenant, made_up = found.tenant[job], view.window.traits.synthetic[found.column[rows]]
        exercised = np.bincount(tenant[made_up], minlength=len(found.tenants)) > 0
        for row, held in self._beyond_reservation(job, milli, granted):
            lease = found.leases[rows[row]]
            yield self._signal(
                (lease.tenant, lease.job, lease.device, bool(exercised[tenant[row]])),
                "reservation",
                500,
                (
                    f"holds {held / 1000:g} GPUs and reserved {int(granted[row]) / 1000:g}",
                    f"占用{held / 1000:g}张加速卡，仅预留{int(granted[row]) / 1000:g}张",
                ),
                {"held_milli": held, "reserved_milli": int(granted[row])},
            )
        held_by_all = sums(tenant, milli, len(found.tenants))
        # A lease of a recording or a drill was not admitted here: no quota was there for it to exceed.
        admitted = sums(tenant, np.where(granted == UNKNOWN_GRANT, 0, milli), len(found.tenants))
        present, first = np.unique(tenant, return_index=True)
        for code, row in zip(present.tolist(), first.tolist(), strict=True):
            name = found.tenants[code]
            place = (name, "", found.leases[rows[row]].device, bool(exercised[code]))
            entitled = view.entitlements.get(name, Entitlement())
            yield from self._limit(place, int(admitted[code]), entitled)
            yield from self._allowance(view, place, int(held_by_all[code]), entitled)

    def _beyond_reservation(self, job: Ints, milli: Ints, granted: Ints) -> Iterator[tuple[int, int]]:
        """The first row, and what it holds, of each job that holds more than it reserved."""
        present, first, place = np.unique(job, return_index=True, return_inverse=True)
        held = sums(place, milli, len(present))
        reserved = granted[first]
        beyond = (reserved != UNKNOWN_GRANT) & (held > reserved + self.tolerance_milli)
        for which in np.flatnonzero(beyond).tolist():
            yield int(first[which]), int(held[which])

    def _limit(
        self, place: tuple[str, str, str, bool], milli: int, entitled: Entitlement
    ) -> Iterator[Signal]:
        limit = entitled.limit_milli
        if limit is not None and milli > limit + self.tolerance_milli:
            yield self._signal(
                place,
                "limit",
                900,
                (
                    f"holds {milli / 1000:g} GPUs where its queues could have {limit / 1000:g} at most",
                    f"占用{milli / 1000:g}张加速卡，其队列上限为{limit / 1000:g}张",
                ),
                {"held_milli": milli, "limit_milli": limit},
                invariant=True,
            )

    def _allowance(
        self, view: View, place: tuple[str, str, str, bool], milli: int, entitled: Entitlement
    ) -> Iterator[Signal]:
        if entitled.daily_ms is None:
            return
        left_ms = max(0, entitled.daily_ms - entitled.spent_ms)
        minutes = left_ms / milli / 60 if milli else float("inf")
        rest_of_day = (_DAY_NS - view.at_ns % _DAY_NS) / 60e9
        if left_ms == 0 or minutes <= min(self.forecast_minutes, rest_of_day):
            when = f"ends in {minutes:.0f} minutes at this rate" if left_ms else "is used up"
            when_zh = f"按当前速度将在{minutes:.0f}分钟后用完" if left_ms else "已用完"
            yield self._signal(
                place,
                "allowance",
                300 if left_ms else 600,
                (
                    f"the day's allowance of {entitled.daily_ms / 3_600_000:g} GPU hours {when}",
                    f"当日额度{entitled.daily_ms / 3_600_000:g} GPU小时{when_zh}",
                ),
                {
                    "spent_gpu_hours": round(entitled.spent_ms / 3_600_000, 2),
                    "allowed_gpu_hours": round(entitled.daily_ms / 3_600_000, 2),
                    "burning_milli": milli,
                    "minutes_left": round(minutes, 1) if milli else None,
                },
            )

    def _signal(
        self,
        place: tuple[str, str, str, bool],
        channel: str,
        score: int,
        messages: tuple[str, str],
        evidence: Mapping[str, Any],
        *,
        invariant: bool = False,
    ) -> Signal:
        tenant, job, device, synthetic = place
        return Signal(
            rule_id=self.rule_id,
            kind=self.kind,
            channel=channel,
            device=device,
            score=score,
            message=messages[0],
            message_zh=messages[1],
            evidence=evidence,
            invariant=invariant,
            synthetic=synthetic,
            tenant=tenant,
            job=job,
        )


DETECTOR = OverQuota
