"""Finding a decision by its id without reading the whole log.

The table ``decisions`` holds where each decision record lies. It is derived: brought up to date when
someone looks something up, never while deciding, so a decision costs no second commit and the index can
never claim a decision that the log does not hold.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select

from guard_core.audit import record
from guard_core.audit.log import AuditLog
from guard_core.audit.segments import lines, segments
from guard_core.storage import Storage
from guard_core.storage.tables import DecisionRow

BATCH = 2000


class DecisionIndex:
    """The index over one log."""

    def __init__(self, storage: Storage, audit: AuditLog) -> None:
        self._storage = storage
        self._audit = audit

    def find(self, decision_id: str) -> dict[str, Any] | None:
        """The decision's record, or None. Brings the index up to date when it does not know the id."""
        row = self._row(decision_id)
        if row is None or self._record_at(row) is None:
            self.refresh()
            row = self._row(decision_id)
        if row is None:
            return None
        return self._record_at(row)

    def _record_at(self, row: DecisionRow) -> dict[str, Any] | None:
        """The record the row points to, None when something else (or nothing) is there."""
        path = self._audit.directory / row.segment
        try:
            value = record.decode(next(lines(path, row.offset), b""))
        except (OSError, record.BadRecord):
            return None
        return value if value.get("decision_id") == row.decision_id else None

    def _row(self, decision_id: str) -> DecisionRow | None:
        with self._storage.reading() as session:
            return session.get(DecisionRow, decision_id)

    def refresh(self) -> int:
        """Index the decisions recorded since the last time; returns how many.

        Works in transactions of ``BATCH`` rows: other writers get their turn, and what is done stays done.
        """
        total = 0
        while added := self._next_batch():
            total += added
        return total

    def _next_batch(self) -> int:
        with self._storage.session() as session:
            newest = session.scalar(select(func.max(DecisionRow.seq)))
            last = session.scalars(select(DecisionRow).where(DecisionRow.seq == newest)).one_or_none()
            if last is not None and self._record_at(last) is None:
                session.execute(delete(DecisionRow))  # the log was begun anew: so is its index
                session.flush()
                last = None
            added = 0
            for path in segments(self._audit.directory):
                if last is not None and path.name < last.segment:
                    continue
                offset = last.offset if last is not None and path.name == last.segment else 0
                for line in lines(path, offset):
                    if not line.endswith(b"\n"):
                        break
                    if b'"kind":"decision"' in line:
                        value = record.decode(line)
                        if value.get("kind") == "decision" and (last is None or value["_seq"] > last.seq):
                            session.add(_row(value, path.name, offset))
                            added += 1
                            if added == BATCH:
                                return added
                    offset += len(line)
            return added


def _row(value: dict[str, Any], segment: str, offset: int) -> DecisionRow:
    asked = value["input"].get("principal")
    principal = asked if isinstance(asked, dict) else {}  # it may have been masked on writing
    result = value.get("result")
    return DecisionRow(
        decision_id=value["decision_id"],
        seq=value["_seq"],
        segment=segment,
        offset=offset,
        recorded_at=datetime.fromisoformat(value["timestamp"]),
        path=value["path"],
        tenant=principal.get("tenant", ""),
        user=principal.get("user", ""),
        subject=value.get("subject", ""),  # a mask may have kept it off the disk
        allow="error" not in value and isinstance(result, dict) and result.get("allow") is True,
        undecidable="error" in value or not isinstance(result, dict),
        revision=value["bundles"]["guard"]["revision"],
        enforcement=value["enforcement"],
    )
