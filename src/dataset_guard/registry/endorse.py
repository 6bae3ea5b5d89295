"""Endorsing: the home's key in use signs a record again that another key signed.

After a key was revoked, its records are refused. A record is endorsed only on evidence that does not rest
on that key: its digest was put on the hash-chained audit log when it was registered, and its data still
verifies. The record itself is not changed by a byte; the new signature stands beside the old one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dataset_guard.changes.verify import verify
from dataset_guard.registry import record as records
from dataset_guard.registry.caller import caller_of
from dataset_guard.registry.reference import Reference
from dataset_guard.registry.store import Registry, Version
from guard_core.attestation import Verifier
from guard_core.errors import Denied, Tampered, UserError
from guard_core.files import write_atomic
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home


def endorse(home: Home, ref: str, *, tenant: str | None = None) -> Version:
    """Sign the record of ``ref`` with the key in use. Returns the version.

    Raises Denied for anybody but a platform admin, UserError when the key in use signed it already or its
    data is gone, Tampered when the audit log does not vouch for the record or the data is not as registered.
    """
    if not home.principal().is_platform_admin:
        raise Denied(f"endorsing {ref} takes a platform admin")
    principal = caller_of(home, ref, tenant=tenant)
    version = Registry(home).get(ref, tenant=principal.tenant)
    path = version.folder / records.ENVELOPE
    envelope = json.loads(path.read_bytes())
    signer = home.signer
    # Whoever signed it: what is believed here is the audit log and the data.
    record = records.load_signed(version.folder, Verifier(signer.verifier.keys), ref=version.ref)
    if any(s["keyid"] == signer.key_id for s in envelope["signatures"]):
        raise UserError(f"{version.ref} is signed by the key in use already")
    digest = records.digest_of(record)
    if digest != version.record_digest or digest not in _registered(home, version):
        raise Tampered(
            f"the audit log does not say that {version.ref} was registered with this record; "
            "register the data again"
        )
    found = verify(Reference(version, record), home=home, keyless=True)
    if not found.ok:
        raise Tampered(f"{version.ref} is not as registered: {'; '.join(found.problems)}")
    home.audit.event(
        "dataset.endorsed",
        subject=version.ref,
        data={
            "record_digest": digest,
            "before": [s["keyid"] for s in envelope["signatures"]],
            "key": signer.key_id,
            "by": f"{principal.tenant}/{principal.user}",
        },
        enforcement=Enforcement.COOPERATIVE,
    )
    write_atomic(path, json.dumps(signer.countersign(envelope), indent=1).encode() + b"\n")
    return version


def _registered(home: Home, version: Version) -> set[Any]:
    """The record digests with which the verified audit log says this version was registered."""
    from guard_core.audit.verify import verify as verify_log

    report = verify_log(home.audit.directory, verifier=home.signer.verifier)
    if not report.ok:
        said = "; ".join(problem.message for problem in report.problems)
        raise Tampered(f"the audit log is not whole, so it vouches for nothing: {said}")
    events = home.audit.records(kind="dataset.registered")
    return {e["data"]["record_digest"] for e in events if e["subject"] == version.ref}
