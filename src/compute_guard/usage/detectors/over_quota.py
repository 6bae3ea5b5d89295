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

from compute_guard.usage.attribution import Lease
from compute_guard.usage.detectors.base import Entitlement, Signal, View

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
        held: dict[str, dict[str, list[Lease]]] = {}
        made_up = set()
        for column, lease in view.held:
            if lease.tenant:
                held.setdefault(lease.tenant, {}).setdefault(lease.job, []).append(lease)
                if view.window.devices[column].synthetic:
                    made_up.add(lease.tenant)
        for tenant, jobs in sorted(held.items()):
            for job, leases in sorted(jobs.items()):
                milli, granted = sum(lease.gpu_milli for lease in leases), leases[0].granted_milli
                if granted is not None and milli > granted + self.tolerance_milli:
                    yield self._signal(
                        (tenant, job, leases[0].device, tenant in made_up),
                        "reservation",
                        500,
                        f"holds {milli / 1000:g} GPUs and reserved {granted / 1000:g}",
                        {"held_milli": milli, "reserved_milli": granted},
                    )
            everything = [lease for leases in jobs.values() for lease in leases]
            place = (tenant, "", everything[0].device, tenant in made_up)
            entitled = view.entitlements.get(tenant, Entitlement())
            # A lease of a recording or a drill was not admitted here: no quota was there for it to exceed.
            admitted = sum(lease.gpu_milli for lease in everything if lease.granted_milli is not None)
            yield from self._limit(place, admitted, entitled)
            yield from self._allowance(view, place, sum(x.gpu_milli for x in everything), entitled)

    def _limit(
        self, place: tuple[str, str, str, bool], milli: int, entitled: Entitlement
    ) -> Iterator[Signal]:
        limit = entitled.limit_milli
        if limit is not None and milli > limit + self.tolerance_milli:
            yield self._signal(
                place,
                "limit",
                900,
                f"holds {milli / 1000:g} GPUs where its queues could have {limit / 1000:g} at most",
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
            yield self._signal(
                place,
                "allowance",
                300 if left_ms else 600,
                f"the day's allowance of {entitled.daily_ms / 3_600_000:g} GPU hours {when}",
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
        message: str,
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
            message=message,
            evidence=evidence,
            invariant=invariant,
            synthetic=synthetic,
            tenant=tenant,
            job=job,
        )


DETECTOR = OverQuota
