"""Telling others about incidents: where to (``usage.yaml``, ``routes``), in which words, and at least once.

The audit log is the outbox. Every change of an incident is on record before it happens, and each route keeps
how far it has told (``<home>/routes/<name>.json``), saved after the receiver took it: whatever ends the
process, what was on its way is sent again, with the same identifier. One file per format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from compute_guard.incidents.incident import SEVERITIES, Incident
from guard_core.errors import UserError

Kind = Literal["alertmanager", "cloudevents", "ocsf", "email"]
KINDS: Final = ("alertmanager", "cloudevents", "ocsf", "email")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One receiver as configured. Secrets are files, read for each delivery; never in the configuration."""

    name: str
    kind: Kind
    url: str = ""
    token_file: str = ""
    ca_file: str = ""
    host: str = ""
    port: int = 25
    starttls: bool = True
    user: str = ""
    password_file: str = ""
    sender: str = ""
    to: tuple[str, ...] = ()
    language: str = "en"
    min_severity: str = "warning"
    tenants: tuple[str, ...] = ("*",)
    kinds: tuple[str, ...] = ("*",)
    exercises: bool = True
    timeout_seconds: int = 20

    def wants(self, letter: Letter) -> bool:
        """Whether this receiver is told about it."""
        return (
            SEVERITIES.index(letter.severity) >= SEVERITIES.index(self.min_severity)
            and _covers(self.tenants, letter.incident.tenant)
            and _covers(self.kinds, letter.incident.kind)
            and (self.exercises or not letter.incident.synthetic)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One change of one incident. ``id`` is the audit record's: sent twice, it is the same letter.

    ``what``: ``opened``, ``grew``, ``acknowledged``, ``contained`` or ``resolved``; ``severity`` as of then;
    ``incident`` as of now; ``actions`` the steps so far.
    """

    id: str
    what: str
    severity: str
    at: datetime
    incident: Incident
    actions: tuple[Mapping[str, Any], ...] = field(default=())
    deadline_hours: Mapping[str, int] = field(default_factory=dict)


class Unsendable(UserError):
    """The receiver will never take this letter as it is (it answered so); it goes to the dead letters."""


def read_routes(config: Mapping[str, Any], home: Path) -> tuple[Route, ...]:
    """The routes of ``usage.yaml``. Relative files are below ``home``. Raises UserError."""
    found = []
    for entry in config.get("routes", ()):
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        for name in ("token_file", "password_file", "ca_file"):
            if values.get(name):
                values[name] = str(home / str(values[name]))
        route = Route(**values)
        _check(route)
        found.append(route)
    names = [route.name for route in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two routes are called {twice[0]!r}; names tell them apart, so change one")
    return tuple(found)


def _check(route: Route) -> None:
    if route.kind == "email":
        if not (route.host and route.sender and route.to):
            raise UserError(f"route {route.name} needs host, sender and to; add them in usage.yaml")
        if route.user and not route.starttls:
            raise UserError(f"route {route.name} would send a password in clear; set starttls: true")
    elif not route.url:
        raise UserError(f"route {route.name} needs a url; add it in usage.yaml")


def _covers(names: tuple[str, ...], name: str) -> bool:
    return "*" in names or name in names
