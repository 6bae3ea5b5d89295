"""The home's side of :mod:`dataset_guard.reads.apart`: answers jobs that may not see the home.

Entry point ``trainguard.dataset_service``; the gate beside the home calls it with the verified credential of
the job that asks.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from dataset_guard.reads.access import Ticket, granted
from dataset_guard.reads.apart import DATES, ERRORS
from dataset_guard.registry import record as records
from guard_core.errors import Denied, GuardError, Undecidable, UserError

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal

KEPT_SECONDS = 30 * 24 * 3600
"""How long the home remembers whom it let read."""


def serve(
    home: Home, principal: Principal, operation: str, body: Mapping[str, Any]
) -> tuple[int, dict[str, Any] | Path]:
    """Answer one question of a job: an HTTP status with a JSON object, or the file to send for ``file``.

    ``principal`` is the job credential's, verified.
    """
    try:
        return 200, _answer(home, principal, operation, body)
    except (KeyError, TypeError, ValueError) as error:
        return 400, _said(UserError(f"this is no question about a read: {error!r}"))
    except GuardError as error:
        return 403 if isinstance(error, Denied) else 400, _said(error)
    except OSError as error:
        return 503, _said(Undecidable(f"the home cannot be used: {error}"))


def _answer(
    home: Home, principal: Principal, operation: str, body: Mapping[str, Any]
) -> dict[str, Any] | Path:
    if principal.kind != "job" or not principal.workload:
        raise Denied("only a job's own credential reads here; others read where the home is")
    if operation == "open":
        return _open(home, principal, body)
    ticket = _ticket(home, principal, str(body.get("read", "")))
    if operation == "leave":
        left = _Left.model_validate(body)
        ticket.leave(left.task, left.counts.model_dump())
        return {}
    if operation == "collect":
        return {"tasks": ticket.collect()}
    if operation == "record":
        return {"event": ticket.record(**_Said.model_validate(body).model_dump(exclude={"read"}))}
    if operation == "file":
        return _kept_file(home, ticket, str(body.get("path", "")))
    raise UserError(f"there is no operation {operation!r} of reads")


class _Handed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    blocks: int = Field(ge=0)
    complete: bool
    problem: str | None = Field(max_length=4000)


class _Counts(_Handed):
    """What one task handed out."""

    first_block: int = Field(ge=0)


class _Left(BaseModel):
    """A task's word. Bounded: it becomes a file of the home's."""

    read: str
    task: int = Field(ge=0, lt=1_000_000)
    counts: _Counts


class _Said(_Handed):
    """A read's end. It becomes an audit record."""

    read: str
    columns: list[str] | None
    tasks: list[_Counts] | None


def _open(home: Home, principal: Principal, body: Mapping[str, Any]) -> dict[str, Any]:
    tenant = body.get("tenant")
    acting = principal if tenant in (None, principal.tenant) else principal.acting_for(str(tenant))
    access = granted(home, str(body["ref"]), str(body["purpose"]), acting)
    reference, ticket = access.reference, access.ticket
    leaves = reference.leaves()
    folder = home.path("ray", "reads")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_old(folder)
    from guard_core.files import write_atomic

    noted = {**asdict(ticket), "home": str(ticket.home)}
    write_atomic(folder / f"{ticket.read}.json", json.dumps(noted).encode(), mode=0o600)
    version = {**asdict(reference.version), "folder": ""}
    version |= {name: version[name] and version[name].isoformat() for name in DATES}
    return {
        "ticket": noted,
        "version": version,
        "record": dict(reference.record),
        "report": access.report.document(),
        "leaves": base64.b64encode(leaves.tobytes()).decode(),
        "shape": list(leaves.shape),
    }


def _ticket(home: Home, principal: Principal, read: str) -> Ticket:
    try:
        known = json.loads((home.path("ray", "reads") / f"{Path(read).name}.json").read_bytes())
    except (OSError, ValueError):
        raise UserError(f"the read {read!r} is not known here; open it again") from None
    ticket = Ticket(**{**known, "home": Path(known["home"])})
    if (ticket.credential_id, ticket.workload) != (principal.credential_id, principal.workload):
        raise Denied(f"the read {read} is not one of job {principal.workload}")
    return ticket


def _kept_file(home: Home, ticket: Ticket, name: str) -> Path:
    """A file of data that is kept in the home, of the version that was granted."""
    from dataset_guard.registry.store import Registry

    reference = Registry(home).reference(ticket.ref, tenant=ticket.tenant)
    if not reference.record["source"]["kept"] or name not in {entry.path for entry in reference.manifest}:
        raise UserError(f"{ticket.ref} has no file {name!r} in the home")
    return reference.version.folder / records.DATA / name


def _forget_old(folder: Path) -> None:
    oldest = time.time() - KEPT_SECONDS
    for entry in os.scandir(folder):
        if entry.name.endswith(".json") and entry.stat().st_mtime < oldest:
            Path(entry.path).unlink(missing_ok=True)


def _said(error: GuardError) -> dict[str, Any]:
    """``error`` as the job's side raises it again."""
    kind = next((name for name, known in ERRORS.items() if isinstance(error, known)), "undecidable")
    return {"error": kind, "message": error.message, "decision_id": getattr(error, "decision_id", "")}
