"""The meters of use in the database: brought up to date in the transaction that changes what is reserved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from compute_guard.admission.snapshot import Meter
from compute_guard.quota.limits import Amounts, Quotas, gpu_rate

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

FAIR_SHARE = "fair_share"
BUDGET = "budget"
MOST = 2**63 - 1
"""What a column of the database holds."""

Meters = Mapping[str, Mapping[str, Meter]]
"""By the meter's name, then by queue."""


def charged(
    quotas: Quotas, queues: Iterable[str], usage: Mapping[str, Mapping[str, int]], meters: Meters, now_ms: int
) -> list[tuple[str, str, Meter]]:
    """The meters of ``queues`` brought to ``now_ms``, running at what is reserved (``usage``) from now on.

    As (queue, meter, value).
    """
    fair, found = quotas.fair_share, []
    for name in sorted(set(queues) & set(quotas.queues)):
        reserved, budget = usage.get(name, {}), quotas.queues[name].budget
        rates = {FAIR_SHARE: (fair.rate(reserved), fair.half_life_ms)}
        if budget is not None:
            rates[BUDGET] = (gpu_rate(reserved), budget.half_life_ms)
        for meter, (rate, half_life) in rates.items():
            before = meters.get(meter, {}).get(name) or Meter(0, 0, now_ms)
            shown = before.changed(rate - before.rate, now_ms, half_life)
            found.append((name, meter, Meter(min(shown.value, MOST), shown.rate, shown.at_ms)))
    return found


def read_reserved(session: Session, queues: Iterable[str]) -> dict[str, Amounts]:
    """What ``queues`` hold, as this transaction sees it."""
    from sqlalchemy import func, select

    from guard_core.storage.tables import ReservationRow, WorkloadRow

    query = (
        select(WorkloadRow.queue, ReservationRow.resource, func.sum(ReservationRow.amount))
        .join(WorkloadRow, WorkloadRow.id == ReservationRow.workload_id)
        .where(WorkloadRow.queue.in_(list(queues)))
        .group_by(WorkloadRow.queue, ReservationRow.resource)
    )
    found: dict[str, dict[str, int]] = {}
    for queue, resource, amount in session.execute(query):
        found.setdefault(queue, {})[resource] = int(amount)
    return {queue: Amounts(amounts) for queue, amounts in found.items()}


def read_meters(session: Session) -> dict[str, dict[str, Meter]]:
    """Every meter."""
    from sqlalchemy import select

    from guard_core.storage.tables import MeterRow

    found: dict[str, dict[str, Meter]] = {FAIR_SHARE: {}, BUDGET: {}}
    columns = (MeterRow.queue, MeterRow.meter, MeterRow.value, MeterRow.rate, MeterRow.at_ms)
    for queue, meter, value, rate, at_ms in session.execute(select(*columns)):
        found.setdefault(meter, {})[queue] = Meter(value, rate, at_ms)
    return found


def write_meters(session: Session, meters: Iterable[tuple[str, str, Meter]], known: Meters) -> None:
    """Write ``meters``; ``known`` are those that have a row already."""
    from sqlalchemy import bindparam, insert, update

    from guard_core.storage.tables import MeterRow

    old, new = list[dict[str, Any]](), list[dict[str, Any]]()
    for queue, meter, value in meters:
        to = old if queue in known.get(meter, {}) else new
        to.append({"q": queue, "m": meter, "value": value.value, "rate": value.rate, "at_ms": value.at_ms})
    if old:
        same = (MeterRow.queue == bindparam("q"), MeterRow.meter == bindparam("m"))
        session.connection().execute(update(MeterRow).where(*same), old)
    if new:
        rows = [{"queue": row.pop("q"), "meter": row.pop("m"), **row} for row in new]
        session.connection().execute(insert(MeterRow), rows)
