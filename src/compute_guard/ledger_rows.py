"""The ledger's rows as values, and the snapshot read from them in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from compute_guard.quota import Amounts, Quotas, flavor_of, gpu_rate
from compute_guard.snapshot import Holder, Meter, Snapshot
from compute_guard.workload import Workload, WorkloadState
from guard_core.clock import to_ns

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard_core.storage.tables import EvictionRow, WorkloadRow

FAIR_SHARE = "fair_share"
BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """A running workload's notice: why it has to go and for whom, when it is stopped, and what comes then.

    ``cause``: ``reclaim``, ``priority``, ``lowered_quota`` or ``dataset``.
    """

    cause: str
    reason: str
    beneficiary: str | None
    requeue: bool
    decision_id: str
    noticed_at: datetime
    stop_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A workload with where it is. ``lease_token`` is the id of its job credential, once admitted."""

    workload: Workload
    state: WorkloadState
    reason: str
    decision_id: str
    ray_job_id: str | None
    created_ms: int
    admitted_ms: int | None = None
    finished_ms: int | None
    lease_token: str | None
    eviction: Eviction | None = None

    @property
    def id(self) -> str:
        """The submission id."""
        return self.workload.id


def snapshot_of(
    session: Session,
    quotas: Quotas,
    *,
    now_ms: int = 0,
    shut: Mapping[str, str] | None = None,
    lines: bool = True,
) -> Snapshot:
    """What the database says at this moment; ``lines`` False leaves the waiting workloads out."""
    from sqlalchemy import select

    from guard_core.storage.tables import EvictionRow, MeterRow, QueueHoldRow, ReservationRow, WorkloadRow

    holding = [state.value for state in WorkloadState if state.holds_quota]
    amounts: dict[str, dict[str, int]] = {}
    for workload_id, resource, amount in session.execute(
        select(ReservationRow.workload_id, ReservationRow.resource, ReservationRow.amount)
    ):
        amounts.setdefault(workload_id, {})[resource] = amount
    leaving = set(session.scalars(select(EvictionRow.workload_id)))
    holders = tuple(
        holder_of(row, amounts.get(row.id, {}), row.id in leaving)
        for row in session.scalars(select(WorkloadRow).where(WorkloadRow.state.in_(holding)))
    )
    meters: dict[str, dict[str, Meter]] = {FAIR_SHARE: {}, BUDGET: {}}
    for row in session.scalars(select(MeterRow)):
        meters.setdefault(row.meter, {})[row.queue] = Meter(row.value, row.rate, row.at_ms)
    waiting = select(WorkloadRow).where(WorkloadRow.state == WorkloadState.PENDING.value)
    usage, by_user = sums_of(holders)
    return Snapshot(
        quotas=quotas,
        usage=usage,
        pending=tuple(workload_of(row) for row in session.scalars(waiting)) if lines else (),
        holds={row.queue: row.reason for row in session.scalars(select(QueueHoldRow))},
        user_usage=by_user,
        holders=holders,
        used=meters[FAIR_SHARE],
        budgets=meters[BUDGET],
        shut=shut or {},
        now_ms=now_ms,
    )


def sums_of(holders: Iterable[Holder]) -> tuple[dict[str, Amounts], dict[tuple[str, str], Amounts]]:
    """What queues, and users in queues, hold together."""
    usage: dict[str, dict[str, int]] = {}
    by_user: dict[tuple[str, str], dict[str, int]] = {}
    for holder in holders:
        own = by_user.setdefault((holder.workload.queue, holder.workload.user), {})
        all_ = usage.setdefault(holder.workload.queue, {})
        for resource, amount in holder.amounts.items():
            own[resource] = own.get(resource, 0) + amount
            all_[resource] = all_.get(resource, 0) + amount
    return (
        {queue: Amounts(amounts) for queue, amounts in usage.items()},
        {own: Amounts(amounts) for own, amounts in by_user.items()},
    )


def charge_meters(
    session: Session, quotas: Quotas, queues: Iterable[str], now_ms: int
) -> list[tuple[str, str, Meter]]:
    """Bring the meters of ``queues`` to ``now_ms``, then let them run at what is reserved from now on.

    What they are now: (queue, meter, value).
    """
    from sqlalchemy import func, select

    from guard_core.storage.tables import MeterRow, ReservationRow, WorkloadRow

    names = sorted(set(queues) & set(quotas.queues))
    if not names:
        return []
    session.flush()
    sums = (
        select(WorkloadRow.queue, ReservationRow.resource, func.sum(ReservationRow.amount))
        .join(WorkloadRow, WorkloadRow.id == ReservationRow.workload_id)
        .where(WorkloadRow.queue.in_(names))
        .group_by(WorkloadRow.queue, ReservationRow.resource)
    )
    reserved: dict[str, dict[str, int]] = {}
    for queue, resource, total in session.execute(sums):
        reserved.setdefault(queue, {})[resource] = int(total)
    known = {
        (row.queue, row.meter): row
        for row in session.scalars(select(MeterRow).where(MeterRow.queue.in_(names)))
    }
    fair = quotas.fair_share
    found = []
    for name in names:
        budget = quotas.queues[name].budget
        rates = {FAIR_SHARE: (fair.rate(reserved.get(name, {})), fair.half_life_ms)}
        if budget is not None:
            rates[BUDGET] = (gpu_rate(reserved.get(name, {})), budget.half_life_ms)
        for meter, (rate, half_life) in rates.items():
            row = known.get((name, meter))
            if row is None:
                row = MeterRow(queue=name, meter=meter, value=0, rate=0, at_ms=now_ms)
                session.add(row)
            shown = Meter(row.value, row.rate, row.at_ms).changed(rate - row.rate, now_ms, half_life)
            row.value, row.rate, row.at_ms = min(shown.value, 2**63 - 1), shown.rate, shown.at_ms
            found.append((name, meter, Meter(row.value, row.rate, row.at_ms)))
    return found


def holder_of(row: WorkloadRow, amounts: Mapping[str, int], leaving: bool) -> Holder:
    """A workload that holds quota; its flavor is the one its reservations name."""
    return Holder(
        workload_of(row), Amounts(amounts), flavor_of(amounts), ms_of(row.admitted_at) or 0, leaving
    )


def workload_of(row: WorkloadRow) -> Workload:
    """The workload of a row."""
    spec: dict[str, Any] = row.spec
    return Workload(
        id=row.id,
        tenant=row.tenant,
        user=row.user,
        queue=row.queue,
        requests=Amounts(row.requests),
        entrypoint=spec.get("entrypoint", ""),
        created_ns=to_ns(row.created_at),
        priority=row.priority,
        declared=tuple(row.datasets),
        runtime_env_fields=tuple(spec.get("trainguard_runtime_env_fields", ())),
        flavors=tuple(spec.get("trainguard_flavors", ())),
        expected_seconds=spec.get("trainguard_expected_seconds", 0),
        submitted_by=spec.get("trainguard_submitted_by", {}),
        spec={key: value for key, value in spec.items() if not key.startswith("trainguard_")},
    )


def stored_spec(workload: Workload, *, keep_secrets: bool) -> dict[str, Any]:
    """The submission as stored. Environment values stay only while it may have to be submitted."""
    spec = dict(workload.spec)
    if not keep_secrets:
        spec = {key: spec[key] for key in ("entrypoint", "metadata") if key in spec}
    return {
        **spec,
        "entrypoint": workload.entrypoint,
        "trainguard_runtime_env_fields": list(workload.runtime_env_fields),
        "trainguard_submitted_by": dict(workload.submitted_by),
        **({"trainguard_flavors": list(workload.flavors)} if workload.flavors else {}),
        **({"trainguard_expected_seconds": workload.expected_seconds} if workload.expected_seconds else {}),
    }


def entry_of(row: WorkloadRow, eviction: EvictionRow | None = None) -> Entry:
    """A row with its eviction, if it has notice."""
    return Entry(
        workload=workload_of(row),
        state=WorkloadState(row.state),
        reason=row.reason,
        decision_id=row.decision_id,
        ray_job_id=row.ray_job_id,
        created_ms=to_ns(row.created_at) // 1_000_000,
        admitted_ms=ms_of(row.admitted_at),
        finished_ms=ms_of(row.finished_at),
        lease_token=row.lease_token,
        eviction=None if eviction is None else eviction_of(eviction),
    )


def eviction_of(row: EvictionRow) -> Eviction:
    """The notice of a row."""
    return Eviction(
        cause=row.cause,
        reason=row.reason,
        beneficiary=row.beneficiary,
        requeue=row.requeue,
        decision_id=row.decision_id,
        noticed_at=row.noticed_at,
        stop_at=row.stop_at,
    )


def ms_of(moment: datetime | None) -> int | None:
    """Milliseconds of a stored time."""
    return None if moment is None else to_ns(moment) // 1_000_000
