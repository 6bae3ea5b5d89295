"""Sharing: another tenant may use one version, as its owner and a second person agreed, until it is ended.

guard/dataset/share is asked with the approvals that were given for this version and this tenant. What it
allowed is a signed statement in the version's folder; only signed, unexpired ones of the very record reach
policy (``shared_with`` of the dataset fact), which verified reads and admission then honour. A share is for
one version: the next one is shared anew, or not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dataset_guard.registry import record as records
from dataset_guard.registry.approvals import SHARE, collected, person
from dataset_guard.registry.caller import caller_of
from guard_core.clock import rfc3339, to_ns
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.files import sync_directory, write_atomic
from guard_core.findings import Enforcement
from guard_core.identity import NAME as TENANT_NAME

if TYPE_CHECKING:
    from dataset_guard.registry.store import Version
    from guard_core.home import Home

POLICY = "guard/dataset/share/decision"
PREDICATE_TYPE = "https://trainguard.dev/attestation/dataset-share/v1"
FOLDER = "shares"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """``ref`` may be used by the tenant ``to``; ``expires_at`` None means until it is ended."""

    ref: str
    to: str
    by: str
    approved_by: tuple[str, ...]
    decision_id: str
    expires_at: datetime | None

    def to_json(self) -> dict[str, Any]:
        """For output."""
        return {
            "ref": self.ref,
            "to": self.to,
            "by": self.by,
            "approved_by": list(self.approved_by),
            "decision_id": self.decision_id,
            "expires": None if self.expires_at is None else rfc3339(self.expires_at),
        }


def share(
    home: Home, ref: str, to: str, *, expires_at: datetime | None = None, tenant: str | None = None
) -> Share:
    """Let the tenant ``to`` use the version ``ref``, when policy and a second person allow it.

    Raises UserError for what does not exist or a date that has passed, Denied when policy refuses,
    Undecidable when it cannot be asked, Tampered when the record is not as signed.
    """
    from dataset_guard.registry.facts import version_fact
    from dataset_guard.registry.store import Registry
    from guard_core.attestation import statement

    principal = person(caller_of(home, ref, tenant=tenant))
    if not TENANT_NAME.match(to):
        raise UserError(f"{to!r} is no tenant's name; name one of tenants.yaml")
    if expires_at is not None and expires_at <= home.clock():
        raise UserError(f"the share would end on {expires_at:%Y-%m-%d}, which has passed; name a later day")
    version = Registry(home).get(ref, tenant=principal.tenant)
    approvals = collected(home, version.ref, SHARE, target=to)
    decision = home.decide(
        POLICY,
        {"dataset": version_fact(home, version), "to": to, "approvals": approvals},
        principal=principal,
        enforcement=Enforcement.COOPERATIVE,
        subject=version.ref,
    )
    if decision.undecidable:
        raise Undecidable(f"{version.ref} was not shared: {decision.explain()}")
    if not decision.allow:
        raise Denied(
            f"{version.ref} was not shared with {to}: {decision.explain()} "
            f"(others approve with: trainguard dataset approve {version.ref} --share {to})",
            decision.decision_id,
        )
    record = Registry(home).record(version)
    done = Share(
        ref=version.ref,
        to=to,
        by=principal.user,
        approved_by=tuple(sorted({f"{a['tenant']}/{a['by']}" for a in approvals})),
        decision_id=decision.decision_id,
        expires_at=expires_at,
    )
    predicate = {
        **done.to_json(),
        "record_digest": version.record_digest,
        "shared_at": rfc3339(home.clock()),
        "expires_ns": None if expires_at is None else str(to_ns(expires_at)),
        "enforcement": Enforcement.COOPERATIVE.value,
    }
    signed = home.signer.sign(
        statement(subjects=records.subject_of(record), predicate_type=PREDICATE_TYPE, predicate=predicate)
    )
    home.audit.event(  # on record before it counts
        "dataset.shared",
        subject=version.ref,
        data=predicate,
        enforcement=Enforcement.COOPERATIVE,
        decision_id=decision.decision_id,
    )
    folder = version.folder / FOLDER
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{to}.dsse.json", json.dumps(signed, indent=1).encode() + b"\n")
    return done


def unshare(home: Home, ref: str, to: str, *, tenant: str | None = None) -> Version:
    """End the share of ``ref`` with ``to`` at once: the next read and the next admission are refused.

    The owner needs nobody's approval for it. Raises UserError when it is not shared with ``to``, Denied.
    """
    from dataset_guard.registry.store import Registry

    principal = person(caller_of(home, ref, tenant=tenant))
    version = Registry(home).get(ref, tenant=principal.tenant)
    if not TENANT_NAME.match(to) or not (version.folder / FOLDER / f"{to}.dsse.json").exists():
        raise UserError(f"{version.ref} is not shared with {to!r}")
    home.audit.event(
        "dataset.unshared",
        subject=version.ref,
        data={"to": to, "by": principal.user},
        enforcement=Enforcement.COOPERATIVE,
    )
    (version.folder / FOLDER / f"{to}.dsse.json").unlink()
    sync_directory(version.folder / FOLDER)
    return version


def shares_of(home: Home, version: Version) -> Sequence[Share]:
    """The signed shares of ``version`` that have not expired, by tenant. One that is not signed is none."""
    now_ns = to_ns(home.clock())
    found = []
    for file in sorted((version.folder / FOLDER).glob("*.dsse.json")):
        try:
            statement = home.signer.verify(json.loads(file.read_bytes()))
        except (OSError, ValueError, Tampered):
            continue
        said = statement.get("predicate", {})
        if statement.get("predicateType") != PREDICATE_TYPE or said.get("ref") != version.ref:
            continue
        if said.get("record_digest") != version.record_digest or f"{said['to']}.dsse.json" != file.name:
            continue
        if said["expires_ns"] is not None and now_ns >= int(said["expires_ns"]):
            continue
        found.append(
            Share(
                ref=version.ref,
                to=said["to"],
                by=said["by"],
                approved_by=tuple(said["approved_by"]),
                decision_id=said["decision_id"],
                expires_at=None if said["expires"] is None else datetime.fromisoformat(said["expires"]),
            )
        )
    return found
