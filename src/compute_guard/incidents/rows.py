"""Incidents' rows in the home's storage, as values: added, read, and changed inside one transaction.

The storage refuses a second open incident about the same (:meth:`IncidentRows.add`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from compute_guard.incidents.incident import Incident, State
from compute_guard.incidents.observations import Key
from guard_core.clock import Clock
from guard_core.errors import UserError

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.storage.tables import IncidentRow


class IncidentRows:
    """The rows of one home."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock

    def add(self, found: Incident) -> Incident:
        """Store a new incident and return it, or the open one about the same that another process stored."""
        from sqlalchemy.exc import IntegrityError

        try:
            with self._home.storage.session() as session:
                session.add(_row(found))
        except IntegrityError:
            existing = self.open_one((found.tenant, found.job, found.kind))
            if existing is None:
                raise
            return existing
        return found

    def opened_before(self, key: Key, *, since: datetime) -> tuple[int, int]:
        """How many incidents there ever were about ``key``, and how many its tenant had since ``since``."""
        from sqlalchemy import func, select

        from guard_core.storage.tables import IncidentRow

        same = (IncidentRow.tenant == key[0], IncidentRow.job == key[1], IncidentRow.kind == key[2])
        with self._home.storage.reading() as session:
            earlier = session.scalar(select(func.count()).select_from(IncidentRow).where(*same)) or 0
            spent = select(func.count()).select_from(IncidentRow)
            spent = spent.where(IncidentRow.tenant == key[0], IncidentRow.opened_at >= since)
            return earlier, session.scalar(spent) or 0

    def get(self, incident_id: str) -> Incident:
        """The incident. Raises UserError when there is none."""
        from guard_core.storage.tables import IncidentRow

        with self._home.storage.reading() as session:
            row = session.get(IncidentRow, incident_id)
            if row is None:
                raise unknown(incident_id)
            return _incident(row)

    def open_one(self, key: Key) -> Incident | None:
        """The open incident about ``key``, if any."""
        from sqlalchemy import select

        from guard_core.storage.tables import IncidentRow

        query = select(IncidentRow).where(
            IncidentRow.tenant == key[0],
            IncidentRow.job == key[1],
            IncidentRow.kind == key[2],
            IncidentRow.closed_at.is_(None),
        )
        with self._home.storage.reading() as session:
            row = session.scalars(query).first()
            return None if row is None else _incident(row)

    def list(self, *, tenant: str | None = None, open_only: bool = False) -> list[Incident]:
        """Incidents, newest first."""
        from sqlalchemy import select

        from guard_core.storage.tables import IncidentRow

        query = select(IncidentRow).order_by(IncidentRow.opened_at.desc(), IncidentRow.id)
        if tenant is not None:
            query = query.where(IncidentRow.tenant == tenant)
        if open_only:
            query = query.where(IncidentRow.closed_at.is_(None))
        with self._home.storage.reading() as session:
            return [_incident(row) for row in session.scalars(query)]

    def change(self, incident_id: str, change: Callable[[Incident], Mapping[str, Any]]) -> Incident:
        """Apply ``change`` to the incident as the transaction sees it, so no other writer is overwritten."""
        from guard_core.storage.tables import IncidentRow

        with self._home.storage.session() as session:
            row = session.get(IncidentRow, incident_id, with_for_update=True)
            if row is None:
                raise unknown(incident_id)
            for name, value in change(_incident(row)).items():
                setattr(row, name, value.value if isinstance(value, State) else value)
            row.updated_at = self._clock()
            session.flush()
            return _incident(row)


def unknown(incident_id: str) -> UserError:
    """What is said of an incident that does not exist, or not for who asks."""
    return UserError(f"there is no incident {incident_id!r}; see: trainguard incident list")


def _row(found: Incident) -> IncidentRow:
    from guard_core.storage.tables import IncidentRow

    return IncidentRow(
        id=found.id,
        tenant=found.tenant,
        job=found.job,
        kind=found.kind,
        state=found.state.value,
        severity=found.severity,
        score=found.score,
        opened_at=found.opened_at,
        updated_at=found.updated_at,
        closed_at=found.closed_at,
        evidence=dict(found.evidence),
    )


def _incident(row: IncidentRow) -> Incident:
    return Incident(
        id=row.id,
        tenant=row.tenant,
        job=row.job,
        kind=row.kind,
        state=State(row.state),
        severity=row.severity,
        score=int(row.score),
        opened_at=row.opened_at,
        updated_at=row.updated_at,
        closed_at=row.closed_at,
        evidence=dict(row.evidence),
    )
