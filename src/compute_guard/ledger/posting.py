"""Several steps of the ledger in one transaction: the only writer of workload states.

Quota is checked against the database's own sums in the same transaction, whatever the caller had seen
before, so a reservation can be neither lost nor made twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from compute_guard.admission.assessment import assess
from compute_guard.admission.snapshot import Holder
from compute_guard.admission.standing import Standing
from compute_guard.admission.workload import TRANSITIONS, Workload, WorkloadState
from compute_guard.ledger.meter_rows import charged, read_meters, read_reserved, write_meters
from compute_guard.ledger.mirror import Change, Mirror
from compute_guard.ledger.rows import (
    Entry,
    Eviction,
    entry_of,
    kept_spec,
    kept_spec_of,
    snapshot_of,
    stored_spec,
    workload_of,
)
from compute_guard.ledger.writes import Writes
from compute_guard.quota.limits import NOTHING, Amounts, Quotas, Way, base_of, flavor_of, total
from guard_core.clock import Clock, to_ns
from guard_core.errors import GuardError, UserError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard_core.storage.tables import EvictionRow, WorkloadRow


class IllegalTransition(GuardError):
    """A workload cannot go from its state to the one asked for."""


class Reservation(Enum):
    """What came of trying to reserve."""

    RESERVED = "reserved"
    NO_ROOM = "no room"
    NOT_PENDING = "not pending"


@dataclass(frozen=True, slots=True)
class Growth:
    """What came of asking for more. ``reserved`` is what the workload holds now, in plain resource names.

    ``reason`` says which number is in the way, ``ever`` whether that can pass.
    """

    reserved: Amounts
    granted: bool
    ever: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A workload that has just ended: the credential its job had, and whether it had notice."""

    workload: Workload
    to: WorkloadState
    reason: str
    lease_token: str | None
    noticed: bool


class Facts(TypedDict, total=False):
    """What :meth:`Posting.note` may set."""

    reason: str
    decision_id: str
    ray_job_id: str
    priority: int
    lease_token: str


class Posting:
    """The steps of one transaction. Made by :meth:`compute_guard.ledger.store.Ledger.posting`."""

    def __init__(
        self, session: Session, clock: Clock, quotas: Quotas | None, mirror: Mirror | None = None
    ) -> None:
        self._session = session
        self._now: datetime = clock()
        self._quotas = quotas
        self._mirror = mirror
        """The ledger before this transaction; nobody changes it while the transaction lasts."""
        self._standing: Standing | None = None
        if mirror is not None and quotas is not None:
            self._standing = mirror.standing(quotas)
        self._writes = Writes(session, self._now)
        self._moved: set[str] = set()
        self._touched: set[str] = set()
        self._held: dict[str, Amounts] = {}
        self._rows: dict[str, WorkloadRow | None] = {}
        self._evictions: dict[str, EvictionRow] = {}
        self._fetched: set[str] = set()
        self.changes: list[Change] = []
        """The steps so far, for the mirror."""

    def close(self) -> None:
        """The last step: what was kept back, and meters of the queues whose reservations changed."""
        self._writes.flush()
        if not self._moved or self._quotas is None:
            return
        self._session.flush()
        meters = read_meters(self._session) if self._mirror is None else self._mirror.meters
        usage = read_reserved(self._session, self._moved) if self._standing is None else self._standing.usage
        now_ms = to_ns(self._now) // 1_000_000
        found = charged(self._quotas, self._moved, usage, meters, now_ms)
        write_meters(self._session, found, meters)
        self.changes += [("metered", one) for one in found]

    def fetch(self, workload_ids: Collection[str]) -> None:
        """Read at once what later steps are about: workloads and their notices."""
        from sqlalchemy import select

        from guard_core.storage.tables import EvictionRow, WorkloadRow

        ids = [one for one in workload_ids if one not in self._rows]
        if not ids:
            return
        rows = self._session.scalars(select(WorkloadRow).where(WorkloadRow.id.in_(ids))).all()
        notices = self._session.scalars(select(EvictionRow).where(EvictionRow.workload_id.in_(ids))).all()
        self._rows |= dict.fromkeys(ids)
        self._rows |= {row.id: row for row in rows}
        self._evictions |= {row.workload_id: row for row in notices}
        self._fetched |= set(ids)

    def add(
        self,
        workload: Workload,
        *,
        state: WorkloadState = WorkloadState.PENDING,
        reason: str = "",
        decision_id: str = "",
    ) -> None:
        """Record a new workload, pending or already denied. IntegrityError surfaces when its id is taken."""
        if state not in (WorkloadState.PENDING, WorkloadState.DENIED):
            raise IllegalTransition(f"a workload starts pending or denied, not {state.value}")
        if state is WorkloadState.PENDING:
            self.changes.append(("joined", (replace(workload, created_ns=to_ns(self._now)),)))
        self._rows.pop(workload.id, None)
        self._touched.add(workload.id)
        self._writes.add(
            {
                "id": workload.id,
                "tenant": workload.tenant,
                "user": workload.user,
                "queue": workload.queue,
                "state": state.value,
                "requests": dict(workload.requests.items()),
                "datasets": list(workload.declared),
                "spec": stored_spec(workload, keep_secrets=state is WorkloadState.PENDING),
                "reason": reason,
                "decision_id": decision_id,
                "ray_job_id": None,
                "priority": workload.priority,
                "created_at": self._now,
                "admitted_at": None,
                "finished_at": self._now if state.terminal else None,
                "lease_token": None,
            }
        )

    def reserve(
        self,
        workload_id: str,
        *,
        decision_id: str = "",
        lease_token: str | None = None,
        way: Way | None = None,
    ) -> Reservation:
        """Admit a pending workload if its request still fits."""
        workload = self._waiting(workload_id)
        if workload is None:
            return Reservation.NOT_PENDING
        taken = self._standing_now().way_for(workload, way)
        if taken is None:
            return Reservation.NO_ROOM
        self._writes.reserve(workload_id, taken.amounts)
        self._hold(workload_id, workload.queue, workload.user, taken.amounts, NOTHING)
        since = to_ns(self._now) // 1_000_000
        holder = Holder(workload, taken.amounts, taken.flavor, since, lease_token=lease_token)
        self.changes.append(("reserved", (holder,)))
        self._write_admitted(workload_id, decision_id, lease_token)
        return Reservation.RESERVED

    def _waiting(self, workload_id: str) -> Workload | None:
        """The workload while it is pending. From memory where that is as good as the database."""
        if self._mirror is not None and workload_id not in self._rows and workload_id not in self._touched:
            return self._mirror.pending.get(workload_id)
        row = self._row(workload_id)
        return None if row is None or row.state != WorkloadState.PENDING else workload_of(row)

    def _write_admitted(self, workload_id: str, decision_id: str, lease_token: str | None) -> None:
        self._touched.add(workload_id)
        if decision_id and workload_id not in self._rows:
            self._writes.admit(workload_id, self._now, decision_id, lease_token)
            return
        row = self._row(workload_id)
        if row is not None:
            row.state, row.reason = WorkloadState.ADMITTED.value, ""
            row.admitted_at, row.lease_token = self._now, lease_token
            row.decision_id = decision_id or row.decision_id

    def resize(self, workload_id: str, wanted: Amounts) -> Growth:
        """Set what a workload holds to ``wanted``, never below what it declared, if its queue has room.

        All of it or nothing (a placement group's bundles are added up by the caller). It stays in its flavor.
        """
        from sqlalchemy import select

        from guard_core.storage.tables import ReservationRow

        if self._quotas is None:
            raise IllegalTransition("quotas are needed to reserve")
        row = self._row(workload_id)
        if row is None or not WorkloadState(row.state).holds_quota:
            state = "not in the ledger" if row is None else row.state
            return Growth(Amounts(), False, False, f"job {workload_id} is {state}")
        self._writes.flush()
        query = select(ReservationRow).where(ReservationRow.workload_id == workload_id)
        rows = {reserved.resource: reserved for reserved in self._session.scalars(query)}
        held = {name: reserved.amount for name, reserved in rows.items()}
        queue = self._quotas.queues.get(row.queue)
        if queue is None:
            return Growth(_plain(held), False, False, f"queue {row.queue} is not in quotas.yaml any more")
        plain = {name: max(wanted[name], row.requests.get(name, 0)) for name in {*wanted, *row.requests}}
        flavor = flavor_of(held)
        target = queue.assignments(Amounts(plain), (flavor,) if flavor else ())[0][1]
        more = Amounts({name: max(0, amount - held.get(name, 0)) for name, amount in target.items()})
        if more:
            refused = self._in_the_way(workload_of(row), more)
            if refused is not None:
                return Growth(_plain(held), False, *refused)
        for name in {*target, *held}:
            if name not in rows:
                self._session.add(ReservationRow(workload_id=workload_id, resource=name, amount=target[name]))
            elif target[name]:
                rows[name].amount = target[name]
            else:
                self._session.delete(rows[name])
        self._hold(workload_id, row.queue, row.user, target, Amounts(held))
        self.changes.append(("resized", (workload_id, target)))
        return Growth(_plain(target), True)

    def _in_the_way(self, workload: Workload, more: Amounts) -> tuple[bool, str] | None:
        """(can it ever pass, why not now), or None when ``more``, named with its flavor, fits."""
        standing = self._standing_now().snapshot()
        way = Way(flavor_of(more), more, standing.quotas.vector(more))
        seen = assess(standing, replace(workload, requests=_plain(more)), ahead=(), way=way)
        if seen.fits and seen.hold is None:
            return None
        return seen.ever_fits, "; ".join(text for _, text in seen.waits_for())

    def _standing_now(self) -> Standing:
        """Reservations as this transaction sees them, its own included."""
        if self._quotas is None:
            raise IllegalTransition("quotas are needed to reserve")
        if self._standing is None:
            self._writes.flush()
            self._session.flush()
            read = snapshot_of(self._session, self._quotas, lines=False)
            self._standing = Standing(self._quotas, read.usage, read.user_usage, read.holds)
        return self._standing

    def move(
        self, workload_id: str, to: WorkloadState, *, reason: str = "", ray_job_id: str | None = None
    ) -> bool:
        """Advance a workload; see :meth:`compute_guard.ledger.store.Ledger.move`."""
        if to is WorkloadState.ADMITTED:
            raise IllegalTransition("a workload is admitted by reserve(), which checks its quota")
        row = self._row(workload_id)
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
        if state is WorkloadState.PENDING:
            self.changes.append(("left", (workload_id,)))
        if to.holds_quota:
            self.changes.append(("runs", (workload_id,)))
        else:
            self._take_back(row.id, row.queue, row.user)
        if to.terminal:
            row.finished_at = self._now
            row.spec = kept_spec(row.spec)
        return True

    def end(self, ends: Sequence[tuple[str, WorkloadState, str]]) -> list[Ended]:
        """:meth:`move` several to where they end, (id, to, reason) each: those that had not ended yet.

        Of those that memory knows to hold quota nothing is read.
        """
        quick = {name: self._holder(name) for name, to, _ in ends if to in TRANSITIONS[WorkloadState.RUNNING]}
        self.fetch([name for name, _, _ in ends if quick.get(name) is None])
        found = []
        for name, to, reason in ends:
            holder = quick.get(name) if name not in self._touched else None
            if holder is not None:
                self._writes.end(name, to.value, reason, self._now, kept_spec_of(holder.workload))
                self._take_back(name, holder.workload.queue, holder.workload.user)
                found.append(Ended(holder.workload, to, reason, holder.lease_token, holder.evicting))
            elif (entry := self.entry(name)) is not None and self.move(name, to, reason=reason):
                noticed = entry.eviction is not None
                found.append(Ended(entry.workload, to, reason, entry.lease_token, noticed))
        return found

    def _holder(self, workload_id: str) -> Holder | None:
        """Who holds quota, from memory; None where the database has to be asked."""
        if self._mirror is None or workload_id in self._rows or workload_id in self._touched:
            return None
        return self._mirror.holders.get(workload_id)

    def evict(self, workload_id: str, eviction: Eviction) -> bool:
        """Give notice; see :meth:`compute_guard.ledger.store.Ledger.evict`."""
        from guard_core.storage.tables import EvictionRow

        row = self._row(workload_id)
        if row is None or not WorkloadState(row.state).holds_quota:
            return False
        if self._session.get(EvictionRow, workload_id) is not None:
            return False
        self._session.add(
            EvictionRow(
                workload_id=workload_id,
                cause=eviction.cause,
                reason=eviction.reason,
                beneficiary=eviction.beneficiary,
                requeue=eviction.requeue,
                decision_id=eviction.decision_id,
                noticed_at=eviction.noticed_at,
                stop_at=eviction.stop_at,
            )
        )
        self.changes.append(("noticed", (workload_id,)))
        return True

    def requeue(self, workload_id: str, *, reason: str) -> bool:
        """Put a workload back into its line; see :meth:`compute_guard.ledger.store.Ledger.requeue`."""
        row = self._row(workload_id)
        if row is None or not WorkloadState(row.state).holds_quota:
            return False
        self._take_back(row.id, row.queue, row.user)
        row.state = WorkloadState.PENDING.value
        row.reason = reason
        row.ray_job_id = row.admitted_at = row.lease_token = None
        self.changes.append(("joined", (workload_of(row),)))
        return True

    def entry(self, workload_id: str) -> Entry | None:
        """The workload as it stands in this transaction."""
        row = self._row(workload_id)
        return None if row is None else entry_of(row, self._notice(workload_id))

    def _notice(self, workload_id: str) -> EvictionRow | None:
        from guard_core.storage.tables import EvictionRow

        if workload_id in self._fetched:
            return self._evictions.get(workload_id)
        return self._session.get(EvictionRow, workload_id)

    def grant(self, credential: dict[str, Any]) -> None:
        """Store a job's credential: there is none for a job that was not admitted."""
        self._writes.grant(credential)

    def revoke(self, credential_id: str) -> None:
        """End a job's credential; one that is unknown or ended already is left as it is."""
        self._writes.revoke(credential_id)

    def forget_denied(self, workload_id: str) -> None:
        """Delete a refused workload, so that a mended one may have its name."""
        row = self._row(workload_id)
        if row is not None and row.state == WorkloadState.DENIED:
            self._session.delete(row)
            self._session.flush()
            del self._rows[workload_id]

    def note(self, workload_id: str, **facts: Unpack[Facts]) -> bool:
        """Record facts that change no state. False for an unknown id."""
        row = self._row(workload_id)
        if row is None:
            return False
        for name, value in facts.items():
            setattr(row, name, value)
        if "priority" in facts:
            self.changes.append(("prioritised", (workload_id, facts["priority"])))
        if "lease_token" in facts:
            self.changes.append(("credited", (workload_id, facts["lease_token"])))
        return True

    def _row(self, workload_id: str) -> WorkloadRow | None:
        from guard_core.storage.tables import WorkloadRow

        if workload_id in self._writes.about:
            self._writes.flush()
        if self._rows.get(workload_id) is None:
            self._rows[workload_id] = self._session.get(WorkloadRow, workload_id)
        return self._rows[workload_id]

    def _take_back(self, workload_id: str, queue: str, user: str) -> None:
        held = self._held.get(workload_id)
        if held is None and self._mirror is not None and workload_id in self._mirror.holders:
            held = self._mirror.holders[workload_id].amounts
        self._writes.give_back(workload_id)
        self._hold(workload_id, queue, user, NOTHING, held)
        self.changes.append(("given_back", (workload_id,)))

    def _hold(self, workload_id: str, queue: str, user: str, now: Amounts, before: Amounts | None) -> None:
        """A workload holds ``now`` what was ``before``; None: that would have to be read."""
        self._touched.add(workload_id)
        self._held[workload_id] = now
        self._moved.add(queue)
        if before is None:
            self._standing = None
        elif self._standing is not None:
            self._standing.change(queue, user, now, before)


def _plain(amounts: Mapping[str, int]) -> Amounts:
    """``amounts`` without the flavors in their names."""
    return Amounts({name: total(amounts, name) for name in {base_of(name) for name in amounts}})
