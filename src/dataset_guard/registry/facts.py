"""What is known of datasets, as facts for policy: the join of the two guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_guard.registry.refs import parse_ref
from dataset_guard.registry.sharing import shares_of
from dataset_guard.registry.store import Registry, Version
from dataset_guard.registry.waivers import waived_fact
from guard_core.errors import Tampered, UserError

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal


def dataset_facts(home: Home, refs: Sequence[str], *, principal: Principal) -> list[dict[str, Any]]:
    """One fact for each of ``refs``, in their order; a name without a tenant is the principal's own.

    The verdict is the signed record's, never the database's. What does not exist, or is no reference at
    all, is a fact with ``exists`` false: refusing it is the policy's work. Raises Undecidable for storage.
    """
    return [_fact(home, text, principal) for text in refs]


def _fact(home: Home, text: str, principal: Principal) -> dict[str, Any]:
    try:
        ref = parse_ref(text, tenant=principal.tenant)
        version = Registry(home).find(text, tenant=principal.tenant)
    except UserError:
        return _unknown(text, None, None)
    if version is None:
        return _unknown(str(ref), ref.tenant, ref.name)
    fact = version_fact(home, version)
    if version.tenant != principal.tenant:
        fact.pop("problem", None)  # it may name keys and reasons, which are its own tenant's to know
    return fact


def _unknown(ref: str, tenant: str | None, name: str | None) -> dict[str, Any]:
    return {
        "ref": ref,
        "exists": False,
        "tenant": tenant,
        "name": name,
        "version": None,
        "verdict": "unknown",
        "fingerprint": None,
        "signed": False,
        "signer": None,
        "record_ok": False,
        "shared_with": [],
        "findings": {"critical": 0, "warning": 0, "info": 0},
        "tampered": False,
    }


def version_fact(home: Home, version: Version) -> dict[str, Any]:
    """The fact of one version, deleted or not. Raises Undecidable for storage."""
    fact = {
        **_unknown(version.ref, version.tenant, version.name),
        "exists": True,
        "version": version.version,
        "fingerprint": version.fingerprint,
    }
    try:
        record, signer = Registry(home).signed(version)
    except Tampered as error:
        return {**fact, "tampered": True, "problem": str(error)}
    return {
        **fact,
        "verdict": record["verdict"],
        "signed": True,
        "signer": signer,
        "record_ok": True,
        "shared_with": [share.to for share in shares_of(home, version)],
        "findings": dict(record["findings"]),
        "waivers": len(record["waivers"]),
        "label": record["label"],
        "split": record["split"],
        **waived_fact(home, version, record),
    }


def dataset_read(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an audit record says of a finished read (``trainguard.dataset_reads``); None for any other record.

    ``{ref, tenant, job, purpose, bytes}``; ``job`` is the workload of the reader's credential, or empty.
    """
    if record.get("kind") != "dataset.read":
        return None
    data = record["data"]
    return {
        "ref": data["ref"],
        "tenant": data["tenant"],
        "job": data.get("workload") or "",
        "purpose": data["purpose"],
        "bytes": data["bytes"],
    }
