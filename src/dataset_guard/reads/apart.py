"""Verified reads by a job that may not see the home: the gate beside the home answers for it.

In profile *hardened* a job runs as its tenant's own Unix user, who can read neither keys nor records nor
policies. The gate tells the job's processes in ``TRAINGUARD_READS`` where to ask. There policy is asked with
the job's credential, exactly as :mod:`dataset_guard.reads.access` does it in the home; the job gets the
signed record and the leaves, reads the data itself, as far as its own user can, and compares every block.
What it handed out is written to the audit log by the gate (:mod:`dataset_guard.reads.service`).
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
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dataset_guard.reads.access import Access, Ticket
from dataset_guard.registration.report import Report
from dataset_guard.registry.reference import Reference
from guard_core.errors import Denied, GuardError, Tampered, Undecidable, UserError

if TYPE_CHECKING:
    from dataset_guard.hashing.fingerprint import Leaves
    from dataset_guard.registry.store import Version

ADDRESS: Final = "TRAINGUARD_READS"
AUTHORITY: Final = "TRAINGUARD_READS_CA"
ANSWER_SECONDS = 60.0
AWAY_SECONDS = 60.0
"""How long a job waits for a gate that is away before it gives up."""
ERRORS: Mapping[str, type[GuardError]] = {
    "denied": Denied,
    "undecidable": Undecidable,
    "tampered": Tampered,
    "user": UserError,
}
"""Errors by the word they travel under."""
DATES = ("created_at", "deleted_at", "destroyed_at")
"""The fields of a version that are moments."""


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
        kind = ERRORS[said["error"]]
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
        body = {"read": self.read, "tasks": None, **said}
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
    """As :func:`dataset_guard.reads.access.open_access`, asked of ``gate``. Raises the same errors."""
    from dataset_guard.registry.store import Version

    said = gate.ask("open", {"ref": ref, "purpose": purpose, "tenant": tenant})
    ticket = TicketApart(**{**said["ticket"], "home": Path(said["ticket"]["home"])}, gate=gate)
    leaves = np.frombuffer(base64.b64decode(said["leaves"]), np.uint8).reshape(said["shape"])
    reference = ReferenceApart(_version(Version, said["version"]), said["record"], leaves, ticket)
    return Access(reference, Report.from_json(said["report"]), ticket)


def _version(kind: type[Version], said: Mapping[str, Any]) -> Version:
    values = {field.name: said[field.name] for field in fields(kind)}
    values |= {name: values[name] and datetime.fromisoformat(values[name]) for name in DATES}
    return kind(**{**values, "folder": Path(), "parents": tuple(values["parents"])})
