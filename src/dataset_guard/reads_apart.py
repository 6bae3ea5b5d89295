"""Verified reads by a job that may not see the home: the gate beside the home answers for it.

In profile *hardened* a job runs as its tenant's own Unix user, who can read neither keys nor records nor
policies. The gate tells the job's processes in ``TRAINGUARD_READS`` where to ask. There policy is asked with
the job's credential, exactly as :mod:`dataset_guard.access` does it in the home; the job gets the signed
record and the leaves, reads the data itself, as far as its own user can, and compares every block. What it
handed out is written to the audit log by the gate.

:func:`serve` is the home's side (entry point ``trainguard.dataset_service``), :func:`open_apart` the job's.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dataset_guard import record as records
from dataset_guard.access import Access, Ticket, granted
from dataset_guard.reference import Reference
from dataset_guard.report import Report
from guard_core.errors import Denied, GuardError, Tampered, Undecidable, UserError

if TYPE_CHECKING:
    from dataset_guard.fingerprint import Leaves
    from dataset_guard.registry import Version
    from guard_core.home import Home
    from guard_core.identity import Principal

ADDRESS: Final = "TRAINGUARD_READS"
AUTHORITY: Final = "TRAINGUARD_READS_CA"
ANSWER_SECONDS = 60.0
AWAY_SECONDS = 60.0
"""How long a job waits for a gate that is away before it gives up."""
KEPT_SECONDS = 30 * 24 * 3600
"""How long the home remembers whom it let read."""
_ERRORS: Mapping[str, type[GuardError]] = {
    "denied": Denied,
    "undecidable": Undecidable,
    "tampered": Tampered,
    "user": UserError,
}
_DATES = ("created_at", "deleted_at", "destroyed_at")


# --- the home's side


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
        ticket.leave(int(body["task"]), dict(body["counts"]))
        return {}
    if operation == "collect":
        return {"tasks": ticket.collect()}
    if operation == "record":
        return {"event": ticket.record(**{name: body[name] for name in _RECORDED})}
    if operation == "file":
        return _kept_file(home, ticket, str(body.get("path", "")))
    raise UserError(f"there is no operation {operation!r} of reads")


_RECORDED = ("rows", "bytes", "blocks", "complete", "columns", "problem", "tasks")


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
    version |= {name: version[name] and version[name].isoformat() for name in _DATES}
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
    from dataset_guard.registry import Registry

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
    kind = next((name for name, known in _ERRORS.items() if isinstance(error, known)), "undecidable")
    return {"error": kind, "message": error.message, "decision_id": getattr(error, "decision_id", "")}


# --- the job's side


@dataclass(frozen=True, slots=True)
class Gate:
    """Where reads are asked for. Picklable; the credential is each process's own."""

    address: str
    authority: str

    def ask(self, operation: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one question. Raises GuardError."""
        with self._answer(operation, body) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def fetch(self, body: Mapping[str, Any], target: Path) -> None:
        """Write a kept file to ``target``. Raises GuardError, OSError."""
        with self._answer("file", body) as answer, target.open("wb") as out:
            shutil.copyfileobj(answer, out, 1 << 20)

    def _answer(self, operation: str, body: Mapping[str, Any]) -> Any:
        """The open reply. A gate that is away is asked again: it is back in a moment."""
        request = urllib.request.Request(  # noqa: S310 - the address is the node's gate's word
            f"{self.address}/{operation}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {os.environ.get('TRAINGUARD_TOKEN', '')}"},
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority)
        until = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                return urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context)  # noqa: S310
            except urllib.error.HTTPError as refused:
                raise _raised(refused.read()) from None
            except OSError as error:
                if time.monotonic() > until:
                    raise Undecidable(f"the gate that answers for reads is away: {error}") from error
                time.sleep(0.5)


def _raised(text: bytes) -> GuardError:
    try:
        said = json.loads(text)
        kind = _ERRORS[said["error"]]
    except (ValueError, KeyError, TypeError):
        return Undecidable("the gate that answers for reads gave no answer that can be read")
    return Denied(said["message"], said["decision_id"]) if kind is Denied else kind(said["message"])


@dataclass(frozen=True, slots=True)
class TicketApart(Ticket):
    """A ticket whose home is the gate's."""

    gate: Gate = Gate("", "")

    def record(self, **said: Any) -> str:
        """As Ticket: the gate writes it. Raises GuardError."""
        said["columns"] = None if said["columns"] is None else list(said["columns"])
        body = {"read": self.read, **dict.fromkeys(_RECORDED), **said}
        return str(self.gate.ask("record", body)["event"])

    def leave(self, task: int, counts: Mapping[str, Any]) -> None:
        """As Ticket."""
        self.gate.ask("leave", {"read": self.read, "task": task, "counts": dict(counts)})

    def collect(self) -> list[dict[str, Any]]:
        """As Ticket."""
        return list(self.gate.ask("collect", {"read": self.read})["tasks"])


@dataclass(frozen=True, slots=True)
class ReferenceApart(Reference):
    """A version whose folder cannot be seen: its record and leaves as the gate gave them."""

    given: Leaves
    ticket: TicketApart

    def leaves(self) -> Leaves:
        """Proved against the record's fingerprint by whoever uses them."""
        return self.given

    def data_path(self) -> Any:
        """As Reference; data that is kept in the home is fetched into a directory of this process's own."""
        # By name: a class with slots is made anew, and `super()` would look for the one before.
        return self._fetched() if self.kept else Reference.data_path(self)

    @property
    def kept(self) -> bool:
        """Whether the data is in the home only."""
        return bool(self.record["source"]["kept"])

    def _fetched(self) -> Path:
        folder = _private_folder() / self.ticket.read
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(dir=folder.parent))
            for entry in self.manifest:
                self.ticket.gate.fetch({"read": self.ticket.read, "path": entry.path}, partial / entry.path)
            partial.rename(folder)
        return folder


_own_folder: list[Path] = []


def _private_folder() -> Path:
    """A directory for fetched data that ends with this process."""
    import atexit

    if not _own_folder:
        _own_folder.append(Path(tempfile.mkdtemp(prefix="trainguard-reads-")))
        atexit.register(shutil.rmtree, _own_folder[0], ignore_errors=True)
    return _own_folder[0]


def gate_of_environment() -> Gate | None:
    """The gate that this job's processes are told to ask; None where the home itself can be read."""
    address = os.environ.get(ADDRESS)
    return Gate(address, os.environ.get(AUTHORITY, "")) if address else None


def open_apart(gate: Gate, ref: str, *, purpose: str, tenant: str | None) -> Access:
    """As :func:`dataset_guard.access.open_access`, asked of ``gate``. Raises the same errors."""
    from dataset_guard.registry import Version

    said = gate.ask("open", {"ref": ref, "purpose": purpose, "tenant": tenant})
    ticket = TicketApart(**{**said["ticket"], "home": Path(said["ticket"]["home"])}, gate=gate)
    leaves = np.frombuffer(base64.b64decode(said["leaves"]), np.uint8).reshape(said["shape"])
    reference = ReferenceApart(_version(Version, said["version"]), said["record"], leaves, ticket)
    return Access(reference, Report.from_json(said["report"]), ticket)


def _version(kind: type[Version], said: Mapping[str, Any]) -> Version:
    values = {field.name: said[field.name] for field in fields(kind)}
    values |= {name: values[name] and datetime.fromisoformat(values[name]) for name in _DATES}
    return kind(**{**values, "folder": Path(), "parents": tuple(values["parents"])})
