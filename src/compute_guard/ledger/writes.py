"""Rows that a transaction of the ledger adds, changes and deletes, kept back so that a statement does many.

They are written in the one order that foreign keys permit: what was given back is deleted, then come
workloads, then what they hold and the credentials of their jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import BindParameter
    from sqlalchemy.orm import Session

Row = dict[str, Any]


class Writes:
    """What is still to be written in one transaction."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now
        self._added: list[Row] = []
        self._admitted: list[Row] = []
        self._ended: list[Row] = []
        self._reserved: list[Row] = []
        self._credentials: list[Row] = []
        self._given_back: list[str] = []
        self._revoked: list[str] = []
        self.about: set[str] = set()
        """The workloads whose own rows are still to be written."""

    def add(self, row: Row) -> None:
        """Insert a workload."""
        self._added.append(row)
        self.about.add(row["id"])

    def admit(self, workload_id: str, at: datetime, decision_id: str, lease_token: str | None) -> None:
        """Change a workload's row to admitted."""
        row = {"state": "admitted", "reason": "", "decision_id": decision_id, "lease_token": lease_token}
        self._admitted.append({"workload": workload_id, "admitted_at": at, **row})
        self.about.add(workload_id)

    def end(self, workload_id: str, state: str, reason: str, at: datetime, spec: Row) -> None:
        """Change a workload's row to ended."""
        row = {"state": state, "reason": reason, "finished_at": at, "spec": spec}
        self._ended.append({"workload": workload_id, **row})
        self.about.add(workload_id)

    def reserve(self, workload_id: str, amounts: Mapping[str, int]) -> None:
        """Insert what a workload holds."""
        if workload_id in self._given_back:
            self.flush()
        self._reserved += [
            {"workload_id": workload_id, "resource": resource, "amount": amount}
            for resource, amount in amounts.items()
        ]

    def give_back(self, workload_id: str) -> None:
        """Delete what a workload holds, and its notice."""
        if self._reserved:
            self.flush()
        self._given_back.append(workload_id)

    def grant(self, credential: Row) -> None:
        """Insert a credential."""
        self._credentials.append(credential)

    def revoke(self, credential_id: str) -> None:
        """End a credential; one that is unknown or ended already is left as it is."""
        self._revoked.append(credential_id)

    def flush(self) -> None:
        """Write all of it. IntegrityError surfaces when the id of a workload is taken."""
        from sqlalchemy import bindparam, delete, insert, update

        from guard_core.storage.tables import CredentialRow, EvictionRow, ReservationRow, WorkloadRow

        changes = (self._added, self._admitted, self._ended, self._reserved, self._credentials)
        if not any((self._given_back, *changes, self._revoked)):
            return
        self._session.flush()
        connection = self._session.connection()
        # As one parameter: the statement's text is made once, and not every id is looked at by itself.
        among: BindParameter[Sequence[str]] = bindparam("among", expanding=True)
        for some in split(self._given_back):
            connection.execute(
                delete(ReservationRow).where(ReservationRow.workload_id.in_(among)), {"among": some}
            )
            connection.execute(delete(EvictionRow).where(EvictionRow.workload_id.in_(among)), {"among": some})
        if self._added:
            connection.execute(insert(WorkloadRow), self._added)
        changed = update(WorkloadRow).where(WorkloadRow.id == bindparam("workload"))
        for rows in (self._admitted, self._ended):
            if rows:
                connection.execute(changed, rows)
        if self._reserved:
            connection.execute(insert(ReservationRow), self._reserved)
        if self._credentials:
            connection.execute(insert(CredentialRow), self._credentials)
        for some in split(self._revoked):
            ended = update(CredentialRow).where(
                CredentialRow.id.in_(among), CredentialRow.revoked_at.is_(None)
            )
            connection.execute(ended.values(revoked_at=self._now), {"among": some})
        self.__init__(self._session, self._now)  # type: ignore[misc]  # all of it is written


def split(ids: Sequence[str], most: int = 500) -> list[Sequence[str]]:
    """Few enough for the parameters of one statement, on every database."""
    return [ids[first : first + most] for first in range(0, len(ids), most)]
