"""The ledger's rows as values, and the snapshot read from them in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from compute_guard.admission.snapshot import Holder, Snapshot
from compute_guard.admission.workload import Workload, WorkloadState
from compute_guard.ledger.meter_rows import BUDGET, FAIR_SHARE, read_meters
from compute_guard.quota.limits import Amounts, Quotas, flavor_of
from guard_core.clock import to_ns

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard_core.storage.tables import EvictionRow, WorkloadRow


_KEPT = ("runtime_env_fields", "submitted_by", "flavors", "expected_seconds")


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

    from guard_core.storage.tables import EvictionRow, QueueHoldRow, ReservationRow, WorkloadRow

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
    meters = read_meters(session)
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


def holder_of(row: WorkloadRow, amounts: Mapping[str, int], leaving: bool) -> Holder:
    """A workload that holds quota; its flavor is the one its reservations name."""
    since = ms_of(row.admitted_at) or 0
    return Holder(workload_of(row), Amounts(amounts), flavor_of(amounts), since, leaving, row.lease_token)


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


def kept_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a stored submission is kept when its job has ended: :func:`stored_spec` without secrets."""
    kept = ("entrypoint", "metadata", *(f"trainguard_{name}" for name in _KEPT))
    return {key: spec[key] for key in kept if key in spec}


def kept_spec_of(workload: Workload) -> dict[str, Any]:
    """:func:`kept_spec` of a submission as it is in memory."""
    return kept_spec(stored_spec(workload, keep_secrets=True))


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
