"""Waivers: one rule's findings on one version, accepted by two people until a date.

The author asks (a row in the database), another person with an approver's role agrees, and the agreement is
a signed statement in the version's folder. Only signed ones reach policy (``waived`` of the dataset fact),
which decides what they excuse: a quarantined version may be used while every rule with a critical finding is
waived. The signed verdict of the record never changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dataset_guard.registry import record as records
from dataset_guard.registry.approvals import WAIVE, person, role_of, rules_of
from dataset_guard.registry.caller import caller_of
from guard_core.clock import rfc3339, to_ns
from guard_core.errors import Denied, Tampered, UserError
from guard_core.files import write_atomic
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from dataset_guard.registry.store import Version
    from guard_core.home import Home

PREDICATE_TYPE = "https://trainguard.dev/attestation/dataset-waiver/v1"
FOLDER = "waivers"
_RULE = re.compile(r"(LEAK|POIS|PRIV|QUAL|DRFT)[0-9]{3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A waiver that was asked for; in force once somebody else approved it."""

    id: int
    ref: str
    rule_id: str
    author: str
    reason: str
    expires_at: datetime


def waive(
    home: Home, ref: str, rule_id: str, *, reason: str, expires_at: datetime, tenant: str | None = None
) -> Waiver:
    """Ask that the findings of ``rule_id`` on the version ``ref`` be accepted until ``expires_at``.

    Raises UserError for a rule without findings there, no reason or a date that has passed; Denied, Tampered.
    """
    principal = person(caller_of(home, ref, tenant=tenant))
    version, found = _findings(home, ref, principal.tenant)
    if not _RULE.fullmatch(rule_id) or rule_id not in found:
        names = ", ".join(sorted(found)) or "no findings"
        raise UserError(f"{version.ref} has no finding of rule {rule_id!r} to waive; it has {names}")
    if not reason.strip():
        raise UserError("a waiver needs a reason; give one with --reason")
    if expires_at <= home.clock():
        raise UserError(f"the waiver would end on {expires_at:%Y-%m-%d}, which has passed; name a later day")
    home.audit.event(
        "dataset.waiver.asked",
        subject=version.ref,
        data={"rule_id": rule_id, "by": principal.user, "reason": reason, "expires": rfc3339(expires_at)},
        enforcement=Enforcement.COOPERATIVE,
    )
    from guard_core.storage.tables import WaiverRow

    with home.storage.session() as session:
        row = WaiverRow(
            dataset_version_id=_row_id(session, version),
            rule_id=rule_id,
            author=principal.user,
            reason=reason,
            created_at=home.clock(),
            expires_at=expires_at,
        )
        session.add(row)
        session.flush()
        number = row.id
    return Waiver(
        id=number,
        ref=version.ref,
        rule_id=rule_id,
        author=principal.user,
        reason=reason,
        expires_at=expires_at,
    )


def approve_waiver(home: Home, ref: str, rule_id: str, *, tenant: str | None = None) -> Waiver:
    """Approve the waiver of ``rule_id`` that was last asked for on ``ref``, and sign it.

    Raises Denied for its author and for people without an approver's role, UserError when none was asked.
    """
    from dataset_guard.registry.store import Registry
    from guard_core.attestation import statement

    principal = caller_of(home, ref, tenant=tenant)
    role = role_of(principal, rules_of(home, WAIVE), f"approving a waiver on {ref}")
    version = Registry(home).get(ref, tenant=principal.tenant)
    record = Registry(home).record(version)
    asked = next((w for w in reversed(waivers_of(home, version)) if w.rule_id == rule_id), None)
    if asked is None or asked.expires_at <= home.clock():
        raise UserError(f"nobody asked for a waiver of {rule_id} on {version.ref}, or it has expired")
    if asked.author == principal.user:
        raise Denied(f"{principal.user} asked for the waiver of {rule_id}; another person has to approve it")
    predicate = {
        "ref": version.ref,
        "record_digest": records.digest_of(record),
        "rule_id": rule_id,
        "author": asked.author,
        "approver": principal.user,
        "role": role,
        "reason": asked.reason,
        "approved_at": rfc3339(home.clock()),
        "expires": rfc3339(asked.expires_at),
        "expires_ns": str(to_ns(asked.expires_at)),
    }
    signed = home.signer.sign(
        statement(subjects=records.subject_of(record), predicate_type=PREDICATE_TYPE, predicate=predicate)
    )
    home.audit.event(
        "dataset.waiver.approved",
        subject=version.ref,
        data={key: predicate[key] for key in ("rule_id", "author", "approver", "role", "reason", "expires")},
        enforcement=Enforcement.COOPERATIVE,
    )
    folder = version.folder / FOLDER
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{asked.id}.dsse.json", json.dumps(signed, indent=1).encode() + b"\n")
    return asked


def waivers_of(home: Home, version: Version) -> list[Waiver]:
    """All waivers asked for on ``version``, oldest first, whether or not approved or expired."""
    from sqlalchemy import select

    from guard_core.storage.tables import WaiverRow

    with home.storage.reading() as session:
        query = select(WaiverRow).where(WaiverRow.dataset_version_id == _row_id(session, version))
        return [
            Waiver(
                id=row.id,
                ref=version.ref,
                rule_id=row.rule_id,
                author=row.author,
                reason=row.reason,
                expires_at=row.expires_at,
            )
            for row in session.scalars(query.order_by(WaiverRow.id))
        ]


def waived_fact(home: Home, version: Version, record: Mapping[str, Any]) -> dict[str, Any]:
    """``{waived, critical_rules}`` for the dataset fact: signed waivers, and what they would have to cover.

    Nothing when no waiver was approved. A waiver that is not signed, or is for another record, is none.
    """
    waived = [
        {
            "rule_id": said["rule_id"],
            "author": said["author"],
            "approver": said["approver"],
            "expires_ns": int(said["expires_ns"]),
        }
        for said in _signed(home, version)
    ]
    if not waived:
        return {}
    try:
        found = _rules_of(version, record)
    except Tampered:
        return {}
    return {
        "waived": waived,
        "critical_rules": sorted(r for r, severities in found.items() if "critical" in severities),
    }


def waivers_now(home: Home, versions: Iterable[Version]) -> dict[str, list[dict[str, Any]]]:
    """``{full reference: [{rule_id, author, reason, expires, approver}]}`` of waivers that have not expired.

    ``approver`` is None for one that was only asked for. Costs one query, and a signature for each waiver.
    """
    from sqlalchemy import select

    from guard_core.storage.tables import DatasetRow, DatasetVersionRow, WaiverRow

    known = {(v.tenant, v.name, v.version): v for v in versions}
    query = (
        select(DatasetRow.tenant, DatasetRow.name, DatasetVersionRow.version, WaiverRow)
        .join(DatasetVersionRow, DatasetVersionRow.id == WaiverRow.dataset_version_id)
        .join(DatasetRow, DatasetRow.id == DatasetVersionRow.dataset_id)
        .where(WaiverRow.expires_at > home.clock())
        .where(DatasetRow.tenant.in_({tenant for tenant, _, _ in known}))
        .order_by(WaiverRow.id)
    )
    found: dict[str, list[dict[str, Any]]] = {}
    signed: dict[str, list[Mapping[str, Any]]] = {}
    with home.storage.reading() as session:
        for tenant, name, number, row in session.execute(query):
            version = known.get((tenant, name, number))
            if version is None:
                continue
            if version.ref not in signed:
                signed[version.ref] = _signed(home, version)
            asked = {
                "rule_id": row.rule_id,
                "author": row.author,
                "reason": row.reason,
                "expires": rfc3339(row.expires_at),
            }
            agreed = [s["approver"] for s in signed[version.ref] if asked.items() <= s.items()]
            found.setdefault(version.ref, []).append({**asked, "approver": next(iter(agreed), None)})
    return found


def _signed(home: Home, version: Version) -> list[Mapping[str, Any]]:
    """What the signed waivers of ``version`` say, expired ones too."""
    found = []
    for file in sorted((version.folder / FOLDER).glob("*.dsse.json")):
        try:
            statement, _ = home.signer.verify_dated(json.loads(file.read_bytes()), "approved_at")
        except (OSError, ValueError, Tampered):
            continue
        said = statement.get("predicate", {})
        if statement.get("predicateType") != PREDICATE_TYPE or said.get("ref") != version.ref:
            continue
        if said.get("record_digest") == version.record_digest:
            found.append(said)
    return found


def _findings(home: Home, ref: str, tenant: str) -> tuple[Version, dict[str, set[str]]]:
    from dataset_guard.registry.store import Registry

    registry = Registry(home)
    version = registry.get(ref, tenant=tenant)
    return version, _rules_of(version, registry.record(version))


def _rules_of(version: Version, record: Mapping[str, Any]) -> dict[str, set[str]]:
    """``{rule: severities}`` of the signed findings. Raises Tampered."""
    path = records.checked_sidecar(version.folder, records.FINDINGS, record)
    found: dict[str, set[str]] = {}
    for finding in json.loads(path.read_bytes())["findings"]:
        found.setdefault(finding["rule_id"], set()).add(finding["severity"])
    return found


def _row_id(session: Any, version: Version) -> int:
    from sqlalchemy import select

    from guard_core.storage.tables import DatasetRow, DatasetVersionRow

    found: int | None = session.scalar(
        select(DatasetVersionRow.id)
        .join(DatasetRow, DatasetRow.id == DatasetVersionRow.dataset_id)
        .where(DatasetRow.tenant == version.tenant, DatasetRow.name == version.name)
        .where(DatasetVersionRow.version == version.version)
    )
    if found is None:
        raise UserError(f"there is no dataset version {version.ref}")
    return found
