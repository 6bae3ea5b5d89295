"""The door every read goes through: who asks, what policy says, what the signed record vouches for.

Used by the local reader, by Ray reads and by MLflow's ``log_input``, so that all of them refuse alike and
write the same record. Jobs that may not see the home come in through :mod:`dataset_guard.reads.apart`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.reads.block_check import BlockCheck
from dataset_guard.registration.report import Report
from dataset_guard.registry import record as records
from dataset_guard.registry.reference import Reference
from dataset_guard.registry.refs import parse_ref
from guard_core.clock import new_id
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from dataset_guard.reading import Source
    from guard_core.home import Home
    from guard_core.identity import Principal

PURPOSES = ("train", "evaluate", "export", "inspect")


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who was let in to what, by which decision, and where to write down what came of it. Picklable."""

    home: Path
    read: str
    ref: str
    purpose: str
    decision_id: str
    tenant: str
    user: str
    credential_id: str
    workload: str | None

    @property
    def _spool(self) -> Path:
        return self.home / "ray" / "reads" / self.read

    def leave(self, task: int, counts: Mapping[str, Any]) -> None:
        """Note what a task of this read handed out. A task that is run again replaces its counts."""
        from guard_core.files import write_atomic

        file = self._spool / f"{task:06d}.json"
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(file, json.dumps(counts).encode(), mode=0o600)

    def collect(self) -> list[dict[str, Any]]:
        """What tasks left since the last call, in the order of their numbers, and forget it."""
        # Aside first, so that counts which come meanwhile belong to the next event.
        taken = self._spool.with_name(f"{self.read}.{new_id('taken')}")
        try:
            self._spool.rename(taken)
        except FileNotFoundError:
            return []
        tasks = [json.loads(file.read_text()) for file in sorted(taken.glob("*.json"))]
        shutil.rmtree(taken, ignore_errors=True)
        return tasks

    def record(
        self,
        *,
        rows: int,
        bytes: int,  # noqa: A002 - the word in the record
        blocks: int,
        complete: bool,
        columns: Sequence[str] | None,
        problem: str | None,
        tasks: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Write the audit event ``dataset.read``; returns its id. ``columns`` None means all.

        Raises Undecidable or OSError when the audit log cannot be written.
        """
        from guard_core.config import load_settings
        from guard_core.home import Home

        data: dict[str, Any] = {
            "ref": self.ref,
            "purpose": self.purpose,
            "tenant": self.tenant,
            "user": self.user,
            "credential_id": self.credential_id,
            "workload": self.workload,
            "columns": None if columns is None else list(columns),
            "rows": rows,
            "bytes": bytes,
            "blocks": blocks,
            "complete": complete,
            "problem": problem,
        }
        if tasks is not None:
            data["tasks"] = [dict(task) for task in tasks]
        with Home.open(load_settings(home=self.home)) as home:
            return home.audit.event(
                "dataset.read",
                subject=self.ref,
                data=data,
                enforcement=Enforcement.COOPERATIVE,
                decision_id=self.decision_id,
            )


@dataclass(frozen=True, slots=True)
class Access:
    """An allowed use of one version: its signed record, its stored report, and the ticket."""

    reference: Reference
    report: Report
    ticket: Ticket

    @property
    def ref(self) -> str:
        """``tenant/name@version``."""
        return self.reference.ref

    def known_columns(self, columns: Sequence[str] | None) -> tuple[str, ...] | None:
        """``columns`` as given. Raises UserError naming the first that was not registered."""
        if columns is None:
            return None
        known = [name for name, _ in self.reference.columns]
        for name in columns:
            if name not in known:
                raise UserError(f"{self.ref} has no column {name!r}; its columns are {_listed(known)}")
        if not columns:
            raise UserError(f"no column of {self.ref} was chosen; its columns are {_listed(known)}")
        return tuple(columns)

    def check(self) -> BlockCheck:
        """The block check of the whole version. Raises Tampered when leaves and record disagree."""
        content = self.reference.record["content"]
        path = self.reference.data_path()
        return BlockCheck.trusted(
            ref=self.ref,
            columns=self.reference.columns,
            rows=content["rows"],
            leaves=self.reference.leaves(),
            fingerprint=content["fingerprint"],
            files=self.reference.manifest,
            path=path,
        )

    def open(self) -> Source:
        """The data, unchecked: every block of it must go through :meth:`check`.

        Files that came to the folder later are not read.

        Raises UserError when it is gone, Tampered when it cannot be read as what was registered.
        """
        from dataset_guard.reading import open_source

        path = self.reference.data_path()
        if path is None or not path.exists():
            where = f" at {path}" if path is not None else ""
            raise UserError(f"the data of {self.ref} is not there any more{where}; restore it and read again")
        try:
            return open_source(path, only=[entry.path for entry in self.reference.manifest])
        except UserError as error:
            # It could be read when it was registered.
            raise Tampered(f"{self.ref} was changed after it was registered: {error}") from error


@contextmanager
def open_access(
    ref: str, *, purpose: str, tenant: str | None = None, home: Home | None = None
) -> Iterator[Access]:
    """Access to the version that ``ref`` names, for ``purpose`` (train, evaluate, export or inspect).

    The principal is the credential's: TRAINGUARD_TOKEN, else the home's own. Its owner reads any tenant's
    data, on that tenant's behalf. Raises UserError for what does not exist, Denied when policy refuses,
    Undecidable when policy cannot be asked, Tampered when the record is not as signed.
    """
    from guard_core.home import Home

    if home is not None:
        yield granted(home, ref, purpose, _principal(home, ref, tenant))
        return
    from dataset_guard.reads.apart import gate_of_environment, open_apart

    gate = gate_of_environment()
    if gate is not None:
        yield open_apart(gate, ref, purpose=purpose, tenant=tenant)
        return
    with Home.open() as own:
        yield granted(own, ref, purpose, _principal(own, ref, tenant))


def granted(home: Home, ref: str, purpose: str, principal: Principal) -> Access:
    """Access for ``principal``, who was verified. Raises as :func:`open_access`."""
    if purpose not in PURPOSES:
        raise UserError(f"the purpose {purpose!r} is unknown; use one of {', '.join(PURPOSES)}")
    from dataset_guard.registry.store import Registry

    registry = Registry(home)
    own = parse_ref(ref, tenant=principal.tenant).tenant == principal.tenant
    if own:
        registry.get(ref, tenant=principal.tenant)  # says what there is; of others' data only policy speaks
    [fact] = home.dataset_facts([ref], principal=principal)
    decision = home.decide(
        "guard/dataset/use/decision",
        {"dataset": fact, "purpose": purpose, "workload": principal.workload},
        principal=principal,
        enforcement=Enforcement.COOPERATIVE,
        subject=fact["ref"],
    )
    if decision.undecidable:
        raise Undecidable(f"{fact['ref']} may not be used: {decision.explain()}")
    if not decision.allow:
        raise Denied(
            f"{fact['ref']} may not be used ({purpose}): {decision.explain()}; "
            f"see: trainguard policy why {decision.decision_id}",
            decision.decision_id,
        )
    # The very version that policy spoke about: a name or an alias may have moved since.
    reference = registry.reference(fact["ref"], tenant=principal.tenant)
    ticket = Ticket(
        home=home.settings.home,
        read=new_id("read"),
        ref=reference.ref,
        purpose=purpose,
        decision_id=decision.decision_id,
        tenant=principal.tenant,
        user=principal.user,
        credential_id=principal.credential_id,
        workload=principal.workload,
    )
    return Access(reference, stored_report(reference), ticket)


def _principal(home: Home, ref: str, tenant: str | None) -> Principal:
    principal = home.principal(tenant=tenant)
    owner = parse_ref(ref, tenant=principal.tenant).tenant
    if tenant is None and owner != principal.tenant and principal.is_platform_admin:
        return home.principal(tenant=owner)
    return principal


def stored_report(reference: Reference) -> Report:
    """The report of a version as it was stored, proved by the signed record. Raises Tampered."""
    path = records.checked_sidecar(reference.version.folder, records.FINDINGS, reference.record)
    return Report.from_json(json.loads(path.read_bytes()))


def _listed(names: Sequence[str], shown: int = 12) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
