"""Reservations of running workloads that grow and shrink with what their leases really hold.

What a job declared is reserved when it is admitted. A lease that goes beyond it is granted only after the
ledger has raised the reservation, in the same kind of transaction and by the same arithmetic as an
admission, so quota cannot be overdrawn by growing. Nothing shrinks below what was declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compute_guard.admission import assess
from compute_guard.ledger import _snapshot, _workload
from compute_guard.quota import Amounts, Quotas
from compute_guard.workload import Workload, WorkloadState

if TYPE_CHECKING:
    from guard_core.storage import Storage


@dataclass(frozen=True, slots=True)
class Growth:
    """What came of asking for more. ``reason``: the number in the way; ``ever``: whether it can pass."""

    reserved: Amounts
    granted: bool
    ever: bool = True
    reason: str = ""


def resize(storage: Storage, workload_id: str, wanted: Amounts, quotas: Quotas) -> Growth:
    """Set the reservation of a workload to ``wanted`` (at least what it declared), if its queue has room.

    Raises Undecidable when the storage cannot be used.
    """
    from sqlalchemy import select

    from guard_core.storage.tables import ReservationRow, WorkloadRow

    with storage.session() as session:
        row = session.get(WorkloadRow, workload_id)
        if row is None or not WorkloadState(row.state).holds_quota:
            state = "not in the ledger" if row is None else row.state
            return Growth(Amounts(), False, False, f"job {workload_id} is {state}")
        rows = {
            r.resource: r
            for r in session.scalars(select(ReservationRow).where(ReservationRow.workload_id == workload_id))
        }
        now = Amounts({name: r.amount for name, r in rows.items()})
        declared = Amounts(row.requests)
        target = {name: max(wanted[name], declared[name]) for name in {*wanted, *declared, *now}}
        more = {name: amount - now[name] for name, amount in target.items() if amount > now[name]}
        if more:
            refused = _in_the_way(session, _workload(row), more, quotas)
            if refused is not None:
                return Growth(now, False, *refused)
        for name, amount in target.items():
            if name in rows and amount:
                rows[name].amount = amount
            elif name in rows:
                session.delete(rows[name])
            elif amount:
                session.add(ReservationRow(workload_id=workload_id, resource=name, amount=amount))
        return Growth(Amounts(target), True)


def _in_the_way(
    session: object, workload: Workload, more: Mapping[str, int], quotas: Quotas
) -> tuple[bool, str] | None:
    """(can it ever pass, why not now), or None when ``more`` fits."""
    from dataclasses import replace

    if workload.queue not in quotas.queues:
        return False, f"queue {workload.queue} is not in quotas.yaml any more"
    snapshot = _snapshot(session, quotas)  # type: ignore[arg-type]  # a SQLAlchemy session, kept out of the types
    seen = assess(snapshot, replace(workload, requests=Amounts(more)), ahead=())
    if seen.hold is not None:
        return True, f"queue {workload.queue} is on hold: {seen.hold}"
    if seen.fits:
        return None
    return seen.ever_fits, "; ".join(text for _, text in seen.waits_for())
