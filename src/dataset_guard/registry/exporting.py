"""Taking a version's data out of the cluster: a verified copy of its files, as guard/dataset/export allows.

The destination is part of what is approved. The event is on record before the first byte is copied; every
file is compared with the signed BLAKE3 as it is copied, and the folder appears whole, by one rename, with
the signed record beside the data, or not at all.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from dataset_guard.registry import record as records
from dataset_guard.registry.approvals import EXPORT, collected, person
from dataset_guard.registry.caller import caller_of
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.files import sync_directory
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from dataset_guard.registry.reference import Reference
    from dataset_guard.sidecars.manifest import FileEntry
    from guard_core.home import Home

POLICY = "guard/dataset/export/decision"
_ENFORCEMENT = Enforcement.COOPERATIVE
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was copied where, by which decision; ``warnings`` are the policy's."""

    ref: str
    to: Path
    files: int
    bytes: int
    decision_id: str
    approved_by: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For output."""
        return {
            "ref": self.ref,
            "to": str(self.to),
            "files": self.files,
            "bytes": self.bytes,
            "decision_id": self.decision_id,
            "approved_by": list(self.approved_by),
            "warnings": list(self.warnings),
        }


def destination(to: Path) -> str:
    """How a destination is written in approvals and policy input: the absolute path."""
    return str(to.absolute())


def export_data(home: Home, ref: str, to: Path, *, tenant: str | None = None) -> Exported:
    """Copy the data of ``ref`` into the new folder ``to``, when policy and a second person allow it.

    Raises UserError for a destination that exists or data that is gone, Denied when policy refuses,
    Undecidable when it cannot be asked, Tampered when a file is not what was registered.
    """
    from dataset_guard.registry.facts import version_fact
    from dataset_guard.registry.store import Registry

    principal = person(caller_of(home, ref, tenant=tenant))
    registry = Registry(home)
    version = registry.get(ref, tenant=principal.tenant)
    target = Path(destination(to))
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already; name a new folder")
    if not target.parent.is_dir():
        raise UserError(f"there is no folder {target.parent}; make it")
    approvals = collected(home, version.ref, EXPORT, target=str(target))
    decision = home.decide(
        POLICY,
        {
            "dataset": version_fact(home, version),
            "destination": {"kind": "folder", "name": str(target)},
            "approvals": approvals,
        },
        principal=principal,
        enforcement=_ENFORCEMENT,
        subject=version.ref,
    )
    if decision.undecidable:
        raise Undecidable(f"{version.ref} was not exported: {decision.explain()}")
    if not decision.allow:
        raise Denied(
            f"{version.ref} was not exported: {decision.explain()} "
            f"(others approve with: trainguard dataset approve {version.ref} --export {target})",
            decision.decision_id,
        )
    reference = registry.reference(version.ref, tenant=principal.tenant)
    files = _files(reference)
    done = Exported(
        ref=version.ref,
        to=target,
        files=len(files),
        bytes=sum(entry.bytes for entry, _ in files),
        decision_id=decision.decision_id,
        approved_by=tuple(sorted({f"{a['tenant']}/{a['by']}" for a in approvals})),
        warnings=tuple(reason.msg for reason in decision.reasons_of("warn")),
    )
    home.audit.event(
        "dataset.exported",
        subject=version.ref,
        data={**done.to_json(), "by": principal.user, "fingerprint": version.fingerprint},
        enforcement=_ENFORCEMENT,
        decision_id=decision.decision_id,
    )
    _copy(reference, files, target)
    return done


def _files(reference: Reference) -> list[tuple[FileEntry, Path]]:
    root, entries = reference.data_path(), reference.manifest
    if root is None or not entries:
        raise UserError(f"{reference.ref} has no files to copy")
    if not isinstance(root, Path):
        raise UserError(f"{reference.ref} lies at {root}, not on this machine; copy it from there")
    single = root.is_file() and len(entries) == 1
    found = [(entry, root if single else root / entry.path) for entry in entries]
    for _, file in found:
        if not file.is_file():
            raise UserError(f"{file} of {reference.ref} is not there any more; restore it and export again")
    return found


def _copy(reference: Reference, files: list[tuple[FileEntry, Path]], target: Path) -> None:
    staging = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    staging.mkdir(mode=0o700)
    try:
        for entry, file in files:
            place = staging / records.DATA / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            if _copied(file, place) != entry.blake3:
                raise Tampered(
                    f"{file} has other bytes than were registered as {reference.ref}; nothing was exported"
                )
        shutil.copyfile(reference.version.folder / records.ENVELOPE, staging / records.ENVELOPE)
        sync_directory(staging)
        staging.rename(target)
        sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _copied(source: Path, place: Path) -> str:
    """Copy one file; returns the BLAKE3 of what was written."""
    hasher = blake3()
    with source.open("rb") as reading, place.open("xb") as writing:
        while chunk := reading.read(_CHUNK):
            hasher.update(chunk)
            writing.write(chunk)
    return hasher.hexdigest()
