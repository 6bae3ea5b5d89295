"""What is waiting, admitted and reserved, in the database. The only writer of workload states.

One transaction reads the reservations, checks the quota once more and writes the new ones (storage
transactions are serial: ``BEGIN IMMEDIATE`` on SQLite, SERIALIZABLE on PostgreSQL), so a reservation can be
neither lost nor made twice, whatever the processes around it do. Ending a workload and giving its
reservation back are the same transaction, and doing it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from compute_guard.admission import assess
from compute_guard.quota import Amounts, Quotas
from compute_guard.snapshot import Snapshot
from compute_guard.workload import TRANSITIONS, Workload, WorkloadState
from guard_core.clock import Clock, system_clock, to_ns
from guard_core.errors import GuardError, UserError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard_core.storage import Storage
    from guard_core.storage.tables import WorkloadRow


class IllegalTransition(GuardError):
    """A workload cannot go from its state to the one asked for."""


class Reservation(Enum):
    """What came of trying to reserve."""

    RESERVED = "reserved"
    NO_ROOM = "no room"
    NOT_PENDING = "not pending"


class Facts(TypedDict, total=False):
    """What :meth:`Ledger.note` may set."""

    reason: str
    decision_id: str
    ray_job_id: str
    priority: int
    lease_token: str


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

    @property
    def id(self) -> str:
        """The submission id."""
        return self.workload.id


class Ledger:
    """Workloads and reservations of one storage. Stateless between calls; safe in threads and processes."""

    def __init__(self, storage: Storage, clock: Clock = system_clock) -> None:
        self._storage = storage
        self._clock = clock

    def add(
        self,
        workload: Workload,
        *,
        state: WorkloadState = WorkloadState.PENDING,
        reason: str = "",
        decision_id: str = "",
    ) -> None:
        """Record a new workload, pending or already denied. Raises UserError when its id is taken."""
        from sqlalchemy.exc import IntegrityError

        from guard_core.storage.tables import WorkloadRow

        if state not in (WorkloadState.PENDING, WorkloadState.DENIED):
            raise IllegalTransition(f"a workload starts pending or denied, not {state.value}")
        now = self._clock()
        try:
            with self._storage.session() as session:
                session.add(
                    WorkloadRow(
                        id=workload.id,
                        tenant=workload.tenant,
                        user=workload.user,
                        queue=workload.queue,
                        state=state.value,
                        requests=dict(workload.requests),
                        datasets=list(workload.declared),
                        spec=_stored_spec(workload, keep_secrets=state is WorkloadState.PENDING),
                        reason=reason,
                        decision_id=decision_id,
                        ray_job_id=None,
                        priority=workload.priority,
                        created_at=now,
                        admitted_at=None,
                        finished_at=now if state.terminal else None,
                        lease_token=None,
                    )
                )
        except IntegrityError:
            raise UserError(
                f"Job with submission_id {workload.id} already exists. Please use a different submission_id."
            ) from None

    def get(self, workload_id: str) -> Entry | None:
        """The workload with this submission id or Ray job id, or None."""
        from sqlalchemy import select

        from guard_core.storage.tables import WorkloadRow

        with self._storage.reading() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None:
                query = select(WorkloadRow).where(WorkloadRow.ray_job_id == workload_id)
                row = session.scalars(query).first()
            return None if row is None else _entry(row)

    def entries(
        self, *, tenant: str | None = None, states: Iterable[WorkloadState] | None = None
    ) -> tuple[Entry, ...]:
        """Workloads, oldest first, of one tenant or all, in some states or all."""
        from sqlalchemy import select

        from guard_core.storage.tables import WorkloadRow

        query = select(WorkloadRow).order_by(WorkloadRow.created_at, WorkloadRow.id)
        if tenant is not None:
            query = query.where(WorkloadRow.tenant == tenant)
        if states is not None:
            query = query.where(WorkloadRow.state.in_([state.value for state in states]))
        with self._storage.reading() as session:
            return tuple(_entry(row) for row in session.scalars(query))

    def snapshot(self, quotas: Quotas) -> Snapshot:
        """Usage, waiting line and holds at one moment, for a pure decision."""
        with self._storage.reading() as session:
            return _snapshot(session, quotas)

    def reserve(
        self, workload_id: str, quotas: Quotas, *, decision_id: str = "", lease_token: str | None = None
    ) -> Reservation:
        """Admit a pending workload if its request still fits: reserved and admitted in one transaction."""
        from guard_core.storage.tables import ReservationRow, WorkloadRow

        with self._storage.session() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None or row.state != WorkloadState.PENDING:
                return Reservation.NOT_PENDING
            workload = _workload(row)
            if workload.queue not in quotas.queues:
                return Reservation.NO_ROOM
            assessment = assess(_snapshot(session, quotas), workload)
            if not assessment.fits or assessment.hold is not None:
                return Reservation.NO_ROOM
            for resource, amount in workload.requests.items():
                session.add(ReservationRow(workload_id=row.id, resource=resource, amount=amount))
            row.state = WorkloadState.ADMITTED.value
            row.reason = ""
            row.admitted_at = self._clock()
            row.decision_id = decision_id or row.decision_id
            row.lease_token = lease_token
            return Reservation.RESERVED

    def move(
        self, workload_id: str, to: WorkloadState, *, reason: str = "", ray_job_id: str | None = None
    ) -> bool:
        """Advance a workload; give its reservation back when ``to`` holds none. False when already there.

        Admission goes through :meth:`reserve` only. A terminal workload that is asked to end another way
        stays as it is (False): whoever came first said how it ended. Raises IllegalTransition otherwise.
        """
        from sqlalchemy import delete

        from guard_core.storage.tables import ReservationRow, WorkloadRow

        if to is WorkloadState.ADMITTED:
            raise IllegalTransition("a workload is admitted by reserve(), which checks its quota")
        with self._storage.session() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None:
                raise UserError(f"workload {workload_id} is not in the ledger")
            state = WorkloadState(row.state)
            if state is to or (state.terminal and to.terminal):
                return False
            if to not in TRANSITIONS[state]:
                raise IllegalTransition(f"workload {workload_id} cannot go from {state.value} to {to.value}")
            row.state = to.value
            row.reason = reason
            row.ray_job_id = ray_job_id or row.ray_job_id
            if not to.holds_quota:
                session.execute(delete(ReservationRow).where(ReservationRow.workload_id == row.id))
            if to.terminal:
                row.finished_at = self._clock()
                row.spec = _stored_spec(_workload(row), keep_secrets=False)
            return True

    def note(self, workload_id: str, **facts: Unpack[Facts]) -> bool:
        """Record facts that change no state; known ones are not written again. False for an unknown id."""
        from guard_core.storage.tables import WorkloadRow

        with self._storage.reading() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None:
                return False
            if all(getattr(row, name) == value for name, value in facts.items()):
                return True
        with self._storage.session() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None:
                return False
            for name, value in facts.items():
                setattr(row, name, value)
            return True

    def forget(self, workload_id: str) -> bool:
        """Delete a terminal workload (Ray's ``delete_job``); the audit log keeps its story."""
        from guard_core.storage.tables import WorkloadRow

        with self._storage.session() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None or not WorkloadState(row.state).terminal:
                return False
            session.delete(row)
            return True

    def reservations(self) -> Mapping[str, Amounts]:
        """What each workload holds, by submission id."""
        from sqlalchemy import select

        from guard_core.storage.tables import ReservationRow

        held: dict[str, dict[str, int]] = {}
        with self._storage.reading() as session:
            for row in session.scalars(select(ReservationRow)):
                held.setdefault(row.workload_id, {})[row.resource] = row.amount
        return {workload_id: Amounts(amounts) for workload_id, amounts in held.items()}

    def hold(self, queue: str, *, reason: str, by: str) -> None:
        """Admit nothing from ``queue`` until :meth:`unhold`; a second hold replaces the reason."""
        from guard_core.storage.tables import QueueHoldRow

        with self._storage.session() as session:
            row = QueueHoldRow(queue=queue, reason=reason, held_by=by, held_at=self._clock())
            session.merge(row)

    def unhold(self, queue: str) -> bool:
        """Let ``queue`` admit again. False when it was not on hold."""
        from guard_core.storage.tables import QueueHoldRow

        with self._storage.session() as session:
            row = session.get(QueueHoldRow, queue)
            if row is None:
                return False
            session.delete(row)
            return True

    def lead(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew the single-process lease ``name``; False while another holder's is still valid."""
        from guard_core.storage.tables import LeaseRow

        now = self._clock()
        with self._storage.session() as session:
            row = session.get(LeaseRow, name)
            if row is not None and row.holder != holder and row.expires_at > now:
                return False
            session.merge(LeaseRow(name=name, holder=holder, expires_at=now + timedelta(seconds=seconds)))
            return True


def _snapshot(session: Session, quotas: Quotas) -> Snapshot:
    from sqlalchemy import func, select

    from guard_core.storage.tables import QueueHoldRow, ReservationRow, WorkloadRow

    sums = (
        select(WorkloadRow.queue, WorkloadRow.user, ReservationRow.resource, func.sum(ReservationRow.amount))
        .join(WorkloadRow, WorkloadRow.id == ReservationRow.workload_id)
        .group_by(WorkloadRow.queue, WorkloadRow.user, ReservationRow.resource)
    )
    usage: dict[str, dict[str, int]] = {}
    by_user: dict[tuple[str, str], dict[str, int]] = {}
    for queue, user, resource, total in session.execute(sums):
        used = usage.setdefault(queue, {})
        used[resource] = used.get(resource, 0) + int(total)
        by_user.setdefault((queue, user), {})[resource] = int(total)
    waiting = select(WorkloadRow).where(WorkloadRow.state == WorkloadState.PENDING.value)
    return Snapshot(
        quotas=quotas,
        usage={queue: Amounts(amounts) for queue, amounts in usage.items()},
        pending=tuple(_workload(row) for row in session.scalars(waiting)),
        holds={row.queue: row.reason for row in session.scalars(select(QueueHoldRow))},
        user_usage={own: Amounts(amounts) for own, amounts in by_user.items()},
    )


def _workload(row: WorkloadRow) -> Workload:
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
        submitted_by=spec.get("trainguard_submitted_by", {}),
        spec={key: value for key, value in spec.items() if not key.startswith("trainguard_")},
    )


def _stored_spec(workload: Workload, *, keep_secrets: bool) -> dict[str, Any]:
    """The submission as stored. Environment values stay only while it may have to be submitted."""
    spec = dict(workload.spec)
    if not keep_secrets:
        spec = {key: spec[key] for key in ("entrypoint", "metadata") if key in spec}
    return {
        **spec,
        "entrypoint": workload.entrypoint,
        "trainguard_runtime_env_fields": list(workload.runtime_env_fields),
        "trainguard_submitted_by": dict(workload.submitted_by),
    }


def _entry(row: WorkloadRow) -> Entry:
    return Entry(
        workload=_workload(row),
        state=WorkloadState(row.state),
        reason=row.reason,
        decision_id=row.decision_id,
        ray_job_id=row.ray_job_id,
        created_ms=to_ns(row.created_at) // 1_000_000,
        admitted_ms=_ms(row.admitted_at),
        finished_ms=_ms(row.finished_at),
        lease_token=row.lease_token,
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else to_ns(moment) // 1_000_000
