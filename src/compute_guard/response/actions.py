"""Steps of the ladder as stored: asked for, decided, claimed, done, undone.

The row is the memory that makes "once" true. Its identifier follows from what the step is (incident, level,
attempt), so asking twice finds the first; and it is claimed by compare-and-swap, so of two processes one
acts. A claim names its process: when that process is dead or its time is over, another may take over.

``requested -> waiting (approvals) | denied | blocked | executing -> done | failed``, and for what can be
taken back ``done -> undoing -> undone | expired``.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from guard_core.clock import Clock, rfc3339
from guard_core.errors import UserError

if TYPE_CHECKING:
    from guard_core.storage import Storage
    from guard_core.storage.tables import ActionRow

CLAIM: Final = timedelta(seconds=120)
ANY_CLAIM: Final = object()
OPEN_STATES: Final = ("requested", "waiting", "denied", "blocked", "failed")
"""States from which a step may (again) be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step as stored. ``result`` holds approvals, who asked, the effect and what undoes it."""

    id: str
    incident_id: str
    level: int
    name: str
    state: str
    decision_id: str
    requested_at: datetime
    executed_at: datetime | None
    expires_at: datetime | None
    undone_at: datetime | None
    result: Mapping[str, Any]

    @property
    def approvals(self) -> list[dict[str, Any]]:
        """Approvals given so far."""
        return list(self.result.get("approvals", []))

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape (docs/admin/incidents.md)."""
        times = {
            "requested_at": self.requested_at,
            "executed_at": self.executed_at,
            "expires_at": self.expires_at,
            "undone_at": self.undone_at,
        }
        return {
            "id": self.id,
            "incident_id": self.incident_id,
            "level": self.level,
            "action": self.name,
            "state": self.state,
            "decision_id": self.decision_id,
            **{name: None if at is None else rfc3339(at) for name, at in times.items()},
            "result": {k: v for k, v in self.result.items() if k != "claim"},
        }


def action_id(incident_id: str, level: int, attempt: int) -> str:
    """The idempotency key of a step: the same step always has the same one."""
    text = f"{incident_id}\x1f{level}\x1f{attempt}"
    return f"act-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


class Actions:
    """The steps of one storage."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock

    def request(self, incident_id: str, level: int, name: str, result: Mapping[str, Any]) -> Action:
        """The step, made when nobody has asked for it yet. A step that was undone may be asked for again."""
        from sqlalchemy.exc import IntegrityError

        from guard_core.storage.tables import ActionRow

        earlier = [a for a in self.of(incident_id) if a.level == level]
        attempt = sum(1 for a in earlier if a.state in ("undone", "expired"))
        key = action_id(incident_id, level, attempt)
        row = ActionRow(
            id=key,
            incident_id=incident_id,
            level=level,
            action=name,
            state="requested",
            decision_id="",
            requested_at=self._clock(),
            executed_at=None,
            expires_at=None,
            undone_at=None,
            result=dict(result),
        )
        if all(a.id != key for a in earlier):
            try:
                with self._storage.session() as session:
                    session.add(row)
            except IntegrityError:
                return self.get(key)
        return self.get(key)

    def get(self, key: str) -> Action:
        """The step. Raises UserError when there is none."""
        from guard_core.storage.tables import ActionRow

        with self._storage.reading() as session:
            row = session.get(ActionRow, key)
            if row is None:
                raise UserError(f"there is no action {key!r}; see: trainguard response ladder")
            return _action(row)

    def of(
        self, incident_id: str | None = None, *, states: Sequence[str] | None = None, name: str | None = None
    ) -> list[Action]:
        """Steps of one incident or all, in some states or all, of one ``name`` or all, oldest first."""
        from sqlalchemy import select

        from guard_core.storage.tables import ActionRow

        query = select(ActionRow).order_by(ActionRow.requested_at, ActionRow.level, ActionRow.id)
        if incident_id is not None:
            query = query.where(ActionRow.incident_id == incident_id)
        if states is not None:
            query = query.where(ActionRow.state.in_(list(states)))
        if name is not None:
            query = query.where(ActionRow.action == name)
        with self._storage.reading() as session:
            return [_action(row) for row in session.scalars(query)]

    def move(
        self, key: str, expected: Sequence[str], state: str, *, seen_claim: Any = ANY_CLAIM, **values: Any
    ) -> Action | None:
        """Change the step if it is in one of ``expected`` and its claim is ``seen_claim`` (when given).

        None when it is not: another process was first. ``result`` is merged into the stored one.
        """
        from guard_core.storage.tables import ActionRow

        with self._storage.session() as session:
            row = session.get(ActionRow, key, with_for_update=True)
            if row is None or row.state not in expected:
                return None
            if seen_claim is not ANY_CLAIM and row.result.get("claim") != seen_claim:
                return None
            row.state = state
            merged = {**row.result, **values.pop("result", {})}
            row.result = merged
            for name, value in values.items():
                setattr(row, name, value)
            session.flush()
            return _action(row)

    def approve(self, key: str, approval: Mapping[str, Any]) -> Action:
        """Add an approval, once per person. Raises UserError when the step waits for none."""
        from guard_core.storage.tables import ActionRow

        with self._storage.session() as session:
            row = session.get(ActionRow, key, with_for_update=True)
            if row is None:
                raise UserError(f"there is no action {key!r}; see: trainguard response ladder")
            if row.state not in OPEN_STATES:
                raise UserError(f"action {key} is {row.state}; it waits for no approval")
            given = [a for a in row.result.get("approvals", []) if a["by"] != approval["by"]]
            row.result = {**row.result, "approvals": [*given, dict(approval)]}
            session.flush()
            return _action(row)

    def claim(self, action: Action, state: str = "executing", **values: Any) -> Action | None:
        """Take the step, as ``action`` was read, for this process; None when another was first."""
        claim = {
            "host": platform.node(),
            "pid": os.getpid(),
            "until": rfc3339(self._clock() + CLAIM),
            "nonce": secrets.token_hex(8),
        }
        return self.move(
            action.id,
            [action.state],
            state,
            seen_claim=action.result.get("claim"),
            result={"claim": claim},
            **values,
        )

    def abandoned(self) -> list[Action]:
        """Claimed steps whose process is dead (same machine) or whose time is over."""
        return [a for a in self.of(states=["executing", "undoing"]) if self._is_abandoned(a)]

    def _is_abandoned(self, action: Action) -> bool:
        claim = action.result.get("claim", {})
        if str(claim.get("until", "")) <= rfc3339(self._clock()):
            return True
        if claim.get("host") != platform.node():
            return False
        return claim.get("pid") != os.getpid() and not _lives(int(claim.get("pid", 0)))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _action(row: ActionRow) -> Action:
    return Action(
        id=row.id,
        incident_id=row.incident_id,
        level=row.level,
        name=row.action,
        state=row.state,
        decision_id=row.decision_id,
        requested_at=row.requested_at,
        executed_at=row.executed_at,
        expires_at=row.expires_at,
        undone_at=row.undone_at,
        result=dict(row.result),
    )
