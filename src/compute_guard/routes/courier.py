"""Takes changes of incidents from the audit log to the receivers: at least once, each route in order.

A route that fails is tried again later and keeps none of the others waiting. A letter that its receiver
refuses for good is put among the dead letters (``<home>/routes/<name>.dead.jsonl``) and on record.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from compute_guard.incidents.store import Incidents
from compute_guard.response.actions import Actions
from compute_guard.routes import Letter, Route, Unsendable, read_routes
from compute_guard.routes.delivery import deliver
from guard_core.audit.shipping.shipper import sole
from guard_core.audit.shipping.source import Cursor, load_cursor, next_batch, save_cursor
from guard_core.clock import rfc3339
from guard_core.errors import GuardError, Undecidable, UserError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home

PREFIX: Final = "incident."
FIRST_DELAY: Final = timedelta(seconds=1)
LONGEST_DELAY: Final = timedelta(minutes=5)
STORED_WITHIN: Final = timedelta(seconds=30)
"""The record precedes the incident: for so long one that is not there is taken to be on its way."""


@dataclass(slots=True)
class Courier:
    """All routes of one home. Call :meth:`round` again and again; not thread-safe."""

    home: Home
    deliver: Callable[[Letter, Route], None] = deliver
    problem: str = ""
    delivered: int = 0
    failures: int = 0
    dead: int = 0
    _due: dict[str, datetime] = field(default_factory=dict)
    _failed: dict[str, int] = field(default_factory=dict)

    def routes(self) -> tuple[Route, ...]:
        """The routes in force. Raises UserError for a configuration that cannot be used."""
        return read_routes(self.home.policy_data().get("usage", {}), self.home.settings.home)

    def round(self) -> int:
        """Deliver what is due to every route that is not waiting; how many letters were taken.

        Raises UserError when the configuration cannot be used.
        """
        self.problem = ""
        before = self.delivered
        for route in self.routes():
            if self._due.get(route.name, self.home.clock()) > self.home.clock():
                continue
            try:
                with sole(self._position(route)):
                    self._serve(route)
            except (GuardError, OSError) as error:
                self._later(route, str(error))
            else:
                self._failed.pop(route.name, None)
        return self.delivered - before

    def _later(self, route: Route, problem: str) -> None:
        number = self._failed.get(route.name, 0)
        self._failed[route.name] = number + 1
        self._due[route.name] = self.home.clock() + min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(number, 12))
        self.failures += 1
        self.problem = problem

    def _serve(self, route: Route) -> None:
        position = self._position(route)
        head = self.home.audit.head()
        cursor = load_cursor(position, target=route.name, kind=PREFIX)
        if cursor is None:  # a new receiver is told what comes, not what was
            cursor = replace(
                Cursor(route.name, PREFIX),
                genesis=head.genesis,
                last=head.last,
                segment=head.segment,
                offset=head.offset,
                records=head.size,
            )
            save_cursor(position, cursor)
        while True:
            # One at a time: each is remembered as told before the next leaves.
            batch = next_batch(self.home.audit.directory, head, cursor, events=1, size=1 << 20)
            if batch.after.records == cursor.records:
                return
            for record in batch.records:
                letter = self._letter(record)
                if letter is not None and route.wants(letter):
                    self._hand_over(letter, route)
            told = cursor.delivered + len(batch.records)
            cursor = replace(batch.after, delivered=told, updated=rfc3339(self.home.clock()))
            save_cursor(position, cursor)

    def _hand_over(self, letter: Letter, route: Route) -> None:
        try:
            self.deliver(letter, route)
        except Unsendable as error:
            self.dead += 1
            line = json.dumps(
                {"letter": letter.id, "incident": letter.incident.id, "what": letter.what, "why": str(error)}
            )
            with self._position(route).with_suffix(".dead.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            self.home.audit.event(
                "route.dead_letter",
                subject=letter.incident.id,
                data={"route": route.name, "letter": letter.id, "why": str(error)},
                enforcement=Enforcement.DETECTIVE,
            )
        else:
            self.delivered += 1  # at once: a later letter of this round may fail

    def _letter(self, record: Mapping[str, Any]) -> Letter | None:
        try:
            incident = Incidents(self.home).get(str(record["subject"]))
        except UserError as error:
            if abs(self.home.clock() - datetime.fromisoformat(str(record["timestamp"]))) < STORED_WITHIN:
                raise Undecidable(f"incident {record['subject']} is on record and not stored yet") from error
            return None  # never stored: a crash between the two; its monitor opens it anew
        usage = self.home.policy_data().get("usage", {})
        return Letter(
            id=str(record["event_id"]),
            what=str(record["kind"]).removeprefix(PREFIX),
            severity=str(record["data"]["severity"]),
            at=datetime.fromisoformat(str(record["timestamp"])),
            incident=incident,
            actions=tuple(a.to_json() for a in Actions(self.home.storage, self.home.clock).of(incident.id)),
            deadline_hours=usage.get("notice_hours", {}),
        )

    def _position(self, route: Route) -> Path:
        return self.home.path("routes", f"{route.name}.json")

    def standing(self, route: Route) -> dict[str, Any]:
        """How far ``route`` was told: records of the log behind its position are ``behind``."""
        cursor = load_cursor(self._position(route), target=route.name, kind=PREFIX)
        return {
            "name": route.name,
            "kind": route.kind,
            "target": route.url or f"{route.host}:{route.port}",
            "behind": 0 if cursor is None else self.home.audit.head().size - cursor.records,
            "last": "" if cursor is None else cursor.updated,
        }

    def status(self) -> dict[str, Any]:
        """Counts since the start, for the monitor's status."""
        counts = {"delivered": self.delivered, "failures": self.failures, "dead": self.dead}
        return {**counts, "problem": self.problem}


@dataclass(slots=True)
class Post:
    """A courier in a thread of its own, with its own home: no receiver keeps detection waiting."""

    home: Home
    every_seconds: float = 1.0
    problem: str = ""
    _courier: Courier | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Raises UserError for a configuration that cannot be used."""
        read_routes(self.home.policy_data().get("usage", {}), self.home.settings.home)
        self._thread = threading.Thread(target=self._run, name="trainguard-routes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Deliver what is due once more, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=60)

    def status(self) -> dict[str, Any]:
        """The courier's counts."""
        return {} if self._courier is None else self._courier.status()

    def _run(self) -> None:
        from guard_core.home import Home as OpenedHome

        # The policy engine belongs to the thread that made it.
        with OpenedHome.open(self.home.settings, clock=self.home.clock) as home:
            self._courier = Courier(home)
            last = False
            while not last:
                last = self._stop.is_set()  # once more after the end was asked for
                try:
                    self._courier.round()
                    self.problem = self._courier.problem
                except Exception as error:  # noqa: BLE001 - letters stay due, and the monitor says why
                    self.problem = str(error)
                self._stop.wait(self.every_seconds)
