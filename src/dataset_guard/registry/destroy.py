"""The end of a version: deleted (hidden, can be brought back) or destroyed (gone, with a signed record).

Destroying asks guard/dataset/destroy, writes the audit event before anything is removed, hides the version,
removes its sidecars, reports and kept data, and leaves the signed dataset record and a signed destruction
record. Data that lies outside the home is the tenant's own and is not touched; the record names it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.registry import record as records
from dataset_guard.registry.approvals import DESTROY, collected, person
from dataset_guard.registry.caller import caller_of
from dataset_guard.registry.facts import version_fact
from dataset_guard.registry.store import Registry, Version
from guard_core.clock import rfc3339
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.files import sync_directory, write_atomic
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.attestation import Signer, Verifier
    from guard_core.home import Home

POLICY = "guard/dataset/destroy/decision"
PREDICATE_TYPE = "https://trainguard.dev/attestation/dataset-destruction/v1"
RECORD = "destruction.dsse.json"
_ENFORCEMENT = Enforcement.COOPERATIVE
_KEPT = {records.ENVELOPE, records.RECORD, RECORD}
_LIVE = ("pending", "admitted", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependents:
    """What still names a version."""

    aliases: tuple[str, ...]
    versions: tuple[str, ...]
    workloads: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.aliases) + len(self.versions) + len(self.workloads)

    def sentence(self) -> str:
        """Which they are."""
        parts = [
            f"alias {', '.join(self.aliases)}" if self.aliases else "",
            f"version {', '.join(self.versions)}" if self.versions else "",
            f"job {', '.join(self.workloads)}" if self.workloads else "",
        ]
        return "; ".join(part for part in parts if part) or "nothing"


def delete(home: Home, ref: str, *, tenant: str | None = None) -> tuple[Version, Dependents]:
    """Hide the version ``ref``: nothing finds it until :func:`restore`. Its number is not reused.

    Returns what still names it (and will fail). Raises UserError when there is none, Denied.
    """
    principal = person(caller_of(home, ref, tenant=tenant))
    version = Registry(home).get(ref, tenant=principal.tenant)
    _record(home, "dataset.deleted", version, {"by": principal.user})
    _mark(home, version, deleted_at=home.clock())
    return version, dependents(home, version)


def restore(home: Home, ref: str, *, tenant: str | None = None) -> Version:
    """Bring a deleted version back. Raises UserError when it is not deleted, or destroyed; Denied."""
    principal = person(caller_of(home, ref, tenant=tenant))
    version = Registry(home).get_any(ref, tenant=principal.tenant)
    if version.deleted_at is None:
        raise UserError(f"{version.ref} is not deleted")
    if version.destroyed_at is not None or _being_destroyed(version):
        raise UserError(f"{version.ref} was destroyed and cannot be brought back; register the data again")
    _record(home, "dataset.restored", version, {"by": principal.user})
    _mark(home, version, deleted_at=None)
    return version


def destroy(home: Home, ref: str, *, confirm: str, tenant: str | None = None) -> dict[str, Any]:
    """Remove everything kept of the version ``ref`` but its signed record; returns the destruction record.

    ``confirm`` repeats ``tenant/name@version``. A run that was cut off is finished by the next.
    Raises Denied when policy refuses, Undecidable when it cannot be asked, UserError when there is nothing.
    """
    principal = person(caller_of(home, ref, tenant=tenant))
    registry = Registry(home)
    with registry.lock(*_place(registry.get_any(ref, tenant=principal.tenant))):
        version = registry.get_any(ref, tenant=principal.tenant)
        if version.destroyed_at is not None:
            raise UserError(f"{version.ref} was destroyed on {version.destroyed_at:%Y-%m-%d} already")
        approvals = list(collected(home, version.ref, DESTROY))
        used_by = dependents(home, version)
        decision = home.decide(
            POLICY,
            {
                "dataset": version_fact(home, version),
                "confirm": confirm,
                "in_use": len(used_by),
                "legal_hold": _held(home, version),
                "approvals": approvals,
            },
            principal=principal,
            enforcement=_ENFORCEMENT,
            subject=version.ref,
        )
        if decision.undecidable:
            raise Undecidable(f"{version.ref} was not destroyed: {decision.explain()}")
        if not decision.allow:
            used = f" ({used_by.sentence()})" if len(used_by) else ""
            raise Denied(f"{version.ref} was not destroyed: {decision.explain()}{used}", decision.decision_id)
        files = _listing(version.folder)
        predicate = {
            "ref": version.ref,
            "fingerprint": version.fingerprint,
            "record_digest": version.record_digest,
            "rows": version.rows,
            "destroyed_at": rfc3339(home.clock()),
            "destroyed_by": principal.user,
            "approved_by": [f"{a['tenant']}/{a['by']}" for a in approvals],
            "decision": {"id": decision.decision_id, "revision": decision.revision},
            "removed": files,
            "method": "unlinked; not overwritten",
            "not_removed": [] if _kept_at_home(version) else [version.source_uri],
        }
        # On record before the effect; the same event, not its completion, is what the log promises.
        _record(home, "dataset.destroyed", version, predicate, decision_id=decision.decision_id)
        _mark(home, version, deleted_at=home.clock())
        _remove(version.folder)
        signed = home.signer.sign(_statement(version, predicate))
        write_atomic(version.folder / RECORD, json.dumps(signed, indent=1).encode() + b"\n")
        _mark(home, version, destroyed_at=home.clock())
    return predicate


def load_destruction(folder: Path, verifier: Verifier | Signer, *, ref: str) -> dict[str, Any]:
    """The signed destruction record in ``folder``. Raises Tampered, UserError when there is none."""
    try:
        envelope = json.loads((folder / RECORD).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{ref} has no destruction record") from None
    except ValueError:
        raise Tampered(f"the destruction record of {ref} is not JSON; restore it from a backup") from None
    said = check_destruction(envelope, verifier)
    if said.get("ref") != ref:
        raise Tampered(f"{folder / RECORD} is not the destruction record of {ref}")
    return said


def check_destruction(envelope: Mapping[str, Any], verifier: Verifier | Signer) -> dict[str, Any]:
    """What a destruction record says, checked with public keys alone. Raises Tampered."""
    statement = verifier.verify(envelope)
    said = statement.get("predicate")
    if statement.get("predicateType") != PREDICATE_TYPE or not isinstance(said, dict):
        raise Tampered("this is signed, but it is no destruction record")
    verifier.verify_dated(envelope, "destroyed_at")
    return said


def dependents(home: Home, version: Version) -> Dependents:
    """Aliases, other versions and live jobs of the tenant that name ``version``."""
    from sqlalchemy import select

    from guard_core.storage.tables import WorkloadRow

    registry = Registry(home)
    aliases = registry.aliases(version.name, tenant=version.tenant)
    children = [
        other.ref
        for other in registry.all_versions(tenant=version.tenant)
        if other.deleted_at is None and version.ref in other.parents and other.ref != version.ref
    ]
    with home.storage.reading() as session:
        query = select(WorkloadRow.id, WorkloadRow.tenant, WorkloadRow.datasets)
        live = session.execute(query.where(WorkloadRow.state.in_(_LIVE))).all()
    return Dependents(
        aliases=tuple(sorted(alias for alias, number in aliases.items() if number == version.version)),
        versions=tuple(children),
        workloads=tuple(row.id for row in live if _names(registry, row.datasets, row.tenant, version)),
    )


def _names(registry: Registry, declared: Any, tenant: str, version: Version) -> bool:
    for text in declared:
        try:
            found = registry.find(str(text), tenant=tenant, deleted=True)
        except UserError:
            continue
        if found is not None and found.ref == version.ref:
            return True
    return False


def _held(home: Home, version: Version) -> bool:
    """Whether a hold of the policy data covers ``version``; anything that cannot be read counts as one."""
    try:
        holds = home.policy_data().get("holds", {}).get("holds", [])
        return any(
            (hold["tenant"], hold["dataset"]) == (version.tenant, version.name)
            and hold.get("version", version.version) == version.version
            for hold in holds
        )
    except (AttributeError, KeyError, TypeError):
        return True


def _place(version: Version) -> tuple[str, str]:
    return version.tenant, version.name


def _being_destroyed(version: Version) -> bool:
    return not (version.folder / records.ROWS).exists()


def _kept_at_home(version: Version) -> bool:
    return version.source_uri == str(version.folder / records.DATA)


def _listing(folder: Path) -> list[dict[str, Any]]:
    """What will be removed: path, bytes and BLAKE3 of every file."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file() and f.name not in _KEPT)
    return [{"path": f.relative_to(folder).as_posix(), **records.sidecar_entry(f)} for f in files]


def _remove(folder: Path) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in _KEPT:
            entry.unlink()
    sync_directory(folder)


def _statement(version: Version, predicate: Mapping[str, Any]) -> dict[str, Any]:
    from guard_core.attestation import statement

    digests = {"dg1": version.fingerprint.removeprefix("dg1:")}
    return statement(subjects={version.ref: digests}, predicate_type=PREDICATE_TYPE, predicate=predicate)


def _record(
    home: Home, kind: str, version: Version, data: Mapping[str, Any], *, decision_id: str = ""
) -> None:
    home.audit.event(kind, subject=version.ref, data=data, enforcement=_ENFORCEMENT, decision_id=decision_id)


def _mark(home: Home, version: Version, **values: Any) -> None:
    """Set columns of the version's row."""
    from sqlalchemy import select, update

    from guard_core.storage.tables import DatasetRow, DatasetVersionRow

    dataset = (
        select(DatasetRow.id)
        .where(DatasetRow.tenant == version.tenant, DatasetRow.name == version.name)
        .scalar_subquery()
    )
    with home.storage.session() as session:
        session.execute(
            update(DatasetVersionRow)
            .where(DatasetVersionRow.dataset_id == dataset, DatasetVersionRow.version == version.version)
            .values(**values)
        )
