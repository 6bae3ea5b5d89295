"""What is waiting, admitted and reserved, in the database. The only writer of workload states.

One transaction reads the reservations, checks the quota once more and writes the new ones (storage
transactions are serial: ``BEGIN IMMEDIATE`` on SQLite, SERIALIZABLE on PostgreSQL), so a reservation can be
neither lost nor made twice, whatever the processes around it do. Ending a workload and giving its
reservation back are the same transaction, and doing it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Unpack

from compute_guard.admission.snapshot import Snapshot
from compute_guard.admission.workload import Workload, WorkloadState
from compute_guard.ledger.mirror import Mirror
from compute_guard.ledger.posting import Facts, Growth, IllegalTransition, Posting, Reservation
from compute_guard.ledger.rows import Entry, Eviction, entry_of, eviction_of, snapshot_of
from compute_guard.quota.limits import Amounts, Quotas, Way
from guard_core.clock import Clock, system_clock, to_ns
from guard_core.errors import UserError

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from guard_core.storage import Storage

__all__ = ["Entry", "Eviction", "Growth", "IllegalTransition", "Ledger", "Posting", "Reservation"]


_LEDGER = "ledger"


class Ledger:
    """Workloads and reservations of one storage. Stateless between calls; safe in threads and processes.

    Every method that changes something is one transaction of its own; :meth:`posting` does several in one.
    """

    def __init__(self, storage: Storage, clock: Clock = system_clock) -> None:
        self._storage = storage
        self._clock = clock
        self._mirror: Mirror | None = None
        self._guard = Lock()

    @contextmanager
    def posting(self, quotas: Quotas | None = None) -> Iterator[Posting]:
        """One transaction of several steps: all of them, or with any exception none.

        ``quotas`` are needed to reserve, and to keep the meters of use.
        """
        with self._storage.session() as session:
            number = _number(session)
            posting = Posting(session, self._clock, quotas, None if quotas is None else self._seen(number))
            yield posting
            posting.close()
            if posting.changes:
                _count(session, number)
        if posting.changes:
            with self._guard:
                if self._mirror is not None and self._mirror.number == number:
                    self._mirror.apply(posting.changes, number + 1)

    def remembered(self, before: Snapshot) -> Snapshot | None:
        """``before`` after this ledger's own changes, without a look at the database; None: not known.

        What another process changed since is not in it.
        """
        with self._guard:
            if self._mirror is None:
                return None
            return self._mirror.snapshot(before.quotas, now_ms=before.now_ms, shut=before.shut)

    def _seen(self, number: int) -> Mirror | None:
        """What is remembered, when that is change ``number``."""
        with self._guard:
            return self._mirror if self._mirror is not None and self._mirror.number == number else None

    def _mirrored(
        self, quotas: Quotas, number: int, shut: Mapping[str, str] | None = None
    ) -> Snapshot | None:
        """The snapshot from memory, when what is remembered is change ``number``."""
        with self._guard:
            if self._mirror is None or self._mirror.number != number:
                return None
            return self._mirror.snapshot(quotas, now_ms=to_ns(self._clock()) // 1_000_000, shut=shut or {})

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

        try:
            with self.posting() as posting:
                posting.add(workload, state=state, reason=reason, decision_id=decision_id)
        except IntegrityError:
            raise UserError(
                f"Job with submission_id {workload.id} already exists. Please use a different submission_id."
            ) from None

    def get(self, workload_id: str) -> Entry | None:
        """The workload with this submission id or Ray job id, or None."""
        from sqlalchemy import select

        from guard_core.storage.tables import EvictionRow, WorkloadRow

        with self._storage.reading() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None:
                query = select(WorkloadRow).where(WorkloadRow.ray_job_id == workload_id)
                row = session.scalars(query).first()
            return None if row is None else entry_of(row, session.get(EvictionRow, row.id))

    def entries(
        self, *, tenant: str | None = None, states: Iterable[WorkloadState] | None = None
    ) -> tuple[Entry, ...]:
        """Workloads, oldest first, of one tenant or all, in some states or all."""
        from sqlalchemy import select

        from guard_core.storage.tables import EvictionRow, WorkloadRow

        query = (
            select(WorkloadRow, EvictionRow)
            .outerjoin(EvictionRow, EvictionRow.workload_id == WorkloadRow.id)
            .order_by(WorkloadRow.created_at, WorkloadRow.id)
        )
        if tenant is not None:
            query = query.where(WorkloadRow.tenant == tenant)
        if states is not None:
            query = query.where(WorkloadRow.state.in_([state.value for state in states]))
        with self._storage.reading() as session:
            return tuple(entry_of(row, eviction) for row, eviction in session.execute(query))

    def states(self, workload_ids: Collection[str]) -> Mapping[str, tuple[WorkloadState, str]]:
        """State and tenant of those of ``workload_ids`` that are known."""
        from sqlalchemy import select

        from guard_core.storage.tables import WorkloadRow

        query = select(WorkloadRow.id, WorkloadRow.state, WorkloadRow.tenant)
        with self._storage.reading() as session:
            rows = session.execute(query.where(WorkloadRow.id.in_(list(workload_ids))))
            return {name: (WorkloadState(state), tenant) for name, state, tenant in rows}

    def snapshot(self, quotas: Quotas, *, shut: Mapping[str, str] | None = None) -> Snapshot:
        """Usage, waiting lines, holds and meters at one moment, for a pure decision.

        ``shut``: flavors under maintenance now, with the reason.
        """
        with self._storage.reading() as session:
            number = _number(session)
            known = self._mirrored(quotas, number, shut)
            if known is not None:
                return known
            read = snapshot_of(session, quotas, now_ms=to_ns(self._clock()) // 1_000_000, shut=shut)
        with self._guard:
            self._mirror = Mirror(number, read)
        return read

    def run_times(self, *, last: int = 50) -> Mapping[str, tuple[int, ...]]:
        """How long the ``last`` jobs of each queue ran that came to an end, in ms, newest first."""
        from sqlalchemy import select

        from guard_core.storage.tables import WorkloadRow

        query = (
            select(WorkloadRow.queue, WorkloadRow.admitted_at, WorkloadRow.finished_at)
            .where(WorkloadRow.state == WorkloadState.FINISHED.value, WorkloadRow.admitted_at.is_not(None))
            .order_by(WorkloadRow.finished_at.desc())
            .limit(last * 40)
        )
        found: dict[str, list[int]] = {}
        with self._storage.reading() as session:
            for queue, begun, ended in session.execute(query):
                if begun is None or ended is None:
                    continue
                runs = found.setdefault(queue, [])
                if len(runs) < last:
                    runs.append(max(0, (to_ns(ended) - to_ns(begun)) // 1_000_000))
        return {queue: tuple(runs) for queue, runs in found.items()}

    def reserve(
        self,
        workload_id: str,
        quotas: Quotas,
        *,
        decision_id: str = "",
        lease_token: str | None = None,
        way: Way | None = None,
    ) -> Reservation:
        """Admit a pending workload if its request still fits: reserved and admitted in one transaction.

        ``way`` is the flavor that was decided on; without one it is chosen anew.
        """
        with self.posting(quotas) as posting:
            return posting.reserve(workload_id, decision_id=decision_id, lease_token=lease_token, way=way)

    def resize(self, workload_id: str, wanted: Amounts, quotas: Quotas) -> Growth:
        """Raise or lower what a running workload holds: for its leases, actors and placement groups.

        Whole or not at all, against the same quota as an admission and in the same kind of transaction; never
        below what the job declared. ``wanted`` is everything it needs now, in plain resource names.
        """
        with self.posting(quotas) as posting:
            return posting.resize(workload_id, wanted)

    def move(
        self,
        workload_id: str,
        to: WorkloadState,
        *,
        reason: str = "",
        ray_job_id: str | None = None,
        quotas: Quotas | None = None,
    ) -> bool:
        """Advance a workload; give its reservation back when ``to`` holds none. False when already there.

        Admission goes through :meth:`reserve` only. A terminal workload that is asked to end another way
        stays as it is (False): whoever came first said how it ended. Raises IllegalTransition otherwise.
        """
        with self.posting(quotas) as posting:
            return posting.move(workload_id, to, reason=reason, ray_job_id=ray_job_id)

    def evict(self, workload_id: str, eviction: Eviction) -> bool:
        """Give notice to a workload that holds quota. False when it holds none, or has notice already."""
        with self.posting() as posting:
            return posting.evict(workload_id, eviction)

    def requeue(self, workload_id: str, *, reason: str, quotas: Quotas | None = None) -> bool:
        """Put a workload that was taken out back into its line, at its old place. False when it has ended.

        Only for a workload that Ray no longer knows: it is submitted again under the same id.
        """
        with self.posting(quotas) as posting:
            return posting.requeue(workload_id, reason=reason)

    def note(self, workload_id: str, **facts: Unpack[Facts]) -> bool:
        """Record facts that change no state; known ones are not written again. False for an unknown id."""
        from guard_core.storage.tables import WorkloadRow

        with self._storage.reading() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None:
                return False
            if all(getattr(row, name) == value for name, value in facts.items()):
                return True
        with self.posting() as posting:
            return posting.note(workload_id, **facts)

    def forget(self, workload_id: str) -> bool:
        """Delete a terminal workload (Ray's ``delete_job``); the audit log keeps its story."""
        from guard_core.storage.tables import WorkloadRow

        with self._storage.session() as session:
            row = session.get(WorkloadRow, workload_id)
            if row is None or not WorkloadState(row.state).terminal:
                return False
            session.delete(row)
            return True

    def changes(self) -> int:
        """How often a state, reservation, line or meter has changed: the same number, the same ledger."""
        with self._storage.reading() as session:
            return _number(session)

    def reservations(self) -> Mapping[str, Amounts]:
        """What each workload holds, by submission id."""
        from sqlalchemy import select

        from guard_core.storage.tables import ReservationRow

        held: dict[str, dict[str, int]] = {}
        with self._storage.reading() as session:
            for row in session.scalars(select(ReservationRow)):
                held.setdefault(row.workload_id, {})[row.resource] = row.amount
        return {workload_id: Amounts(amounts) for workload_id, amounts in held.items()}

    def evictions(self) -> Mapping[str, Eviction]:
        """Who has notice, by submission id."""
        from sqlalchemy import select

        from guard_core.storage.tables import EvictionRow

        with self._storage.reading() as session:
            known = self._seen(_number(session))
            if known is not None:
                with self._guard:
                    if not any(holder.evicting for holder in known.holders.values()):
                        return {}
            return {row.workload_id: eviction_of(row) for row in session.scalars(select(EvictionRow))}

    def hold(self, queue: str, *, reason: str, by: str) -> None:
        """Admit nothing from ``queue`` until :meth:`unhold`; a second hold replaces the reason."""
        from guard_core.storage.tables import QueueHoldRow

        with self._storage.session() as session:
            row = QueueHoldRow(queue=queue, reason=reason, held_by=by, held_at=self._clock())
            session.merge(row)
            _count(session, _number(session))

    def unhold(self, queue: str) -> bool:
        """Let ``queue`` admit again. False when it was not on hold."""
        from guard_core.storage.tables import QueueHoldRow

        with self._storage.session() as session:
            row = session.get(QueueHoldRow, queue)
            if row is None:
                return False
            session.delete(row)
            _count(session, _number(session))
            return True

    def lead(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew the single-process lease ``name``; False while another holder's is still valid.

        One that would run longer than anybody takes it for was made before the clock went back.
        """
        from guard_core.storage.tables import LeaseRow

        now = self._clock()
        with self._storage.session() as session:
            row = session.get(LeaseRow, name)
            lasts = timedelta(seconds=2 * seconds)
            if row is not None and row.holder != holder and now < row.expires_at <= now + lasts:
                return False
            session.merge(LeaseRow(name=name, holder=holder, expires_at=now + timedelta(seconds=seconds)))
            return True


def _number(session: Session) -> int:
    """How many changes the database has seen."""
    found = session.connection().scalar(_number_query())
    return 0 if found is None else int(found)


@cache
def _number_query() -> Select[int]:
    """Asked in every transaction, so made once."""
    from sqlalchemy import select

    from guard_core.storage.tables import ChangesRow

    return select(ChangesRow.number).where(ChangesRow.name == _LEDGER)


def _count(session: Session, number: int) -> None:
    """One more change, in the transaction that makes it; ``number`` was read in it."""
    from sqlalchemy import insert, update

    from guard_core.storage.tables import ChangesRow

    counted = session.connection().execute(
        update(ChangesRow).where(ChangesRow.name == _LEDGER).values(number=number + 1)
    )
    if not counted.rowcount:
        session.connection().execute(insert(ChangesRow).values(name=_LEDGER, number=number + 1))
