"""Are rows of one tenant in another tenant's set? Asked by the platform; neither tenant learns the other's
rows.

Stored row hashes cannot say: each tenant's are keyed with its own secret. So both sets are read again
(verified against their signed records) and hashed with a key that is drawn for this one question and then
forgotten. Each side is told how many rows are shared and which of *its own* rows they are; no value and no
hash leaves the question. Columns with equal names are compared, so an added or dropped column hides nothing.

Label: `detective`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_guard.registry.caller import opened_home
from dataset_guard.registry.refs import parse_ref
from guard_core.errors import Denied, UserError
from guard_core.findings import Enforcement, RowSet

if TYPE_CHECKING:
    from dataset_guard.checks.base import Hashes
    from dataset_guard.reading import Source
    from dataset_guard.registry.reference import Reference
    from guard_core.home import Home


@dataclass(frozen=True, slots=True)
class Side:
    """What one tenant may be told: its own version, and which of its own rows are shared."""

    ref: str
    rows: int
    shared: RowSet

    def to_json(self) -> dict[str, Any]:
        """For the one tenant."""
        return {
            "ref": self.ref,
            "rows": self.rows,
            "shared": len(self.shared),
            "own_rows": self.shared.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Disclosed:
    """Rows of ``owner`` that are in ``holder``, by the ``columns`` that both have."""

    owner: Side
    holder: Side
    columns: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For the platform's admin, who may see both."""
        return {"columns": list(self.columns), "owner": self.owner.to_json(), "holder": self.holder.to_json()}


def disclosed(
    owner: str, holder: str, *, columns: tuple[str, ...] = (), home: Home | None = None
) -> Disclosed:
    """Compare the version ``owner`` (``tenant/name@version``) with another tenant's version ``holder``.

    Only a platform admin may ask. ``columns`` limits what is compared (default: all that both have). Raises
    Denied, UserError when a set's data is gone or no column is shared, Tampered when one was changed.
    """
    from dataset_guard.checks.hash_index import HashIndex
    from dataset_guard.registry.store import Registry

    with opened_home(home) as opened:
        if not opened.principal().is_platform_admin:
            raise Denied("only a platform admin may compare the sets of two tenants")
        principal = opened.principal()
        refs = [parse_ref(text, tenant=principal.tenant) for text in (owner, holder)]
        if refs[0].tenant == refs[1].tenant:
            raise UserError(f"both sets are {refs[0].tenant}'s; use --against to compare a tenant's own sets")
        registry = Registry(opened)
        found = [registry.reference(t, tenant=r.tenant) for t, r in zip((owner, holder), refs, strict=True)]
        sources = [opened_data(reference) for reference in found]
        shared = [n for n in sources[0].schema.names if n in sources[1].schema.names]
        chosen = [n for n in shared if not columns or n in columns]
        if not chosen:
            raise UserError(f"{owner} and {holder} have none of these columns in common; no row can be told")
        key = secrets.token_bytes(32)  # for this question only
        mine, theirs = (hashed(source, chosen, key) for source in sources)
        sides = [
            Side(reference.ref, len(own), RowSet.of(np.flatnonzero(HashIndex(other).contains(own)).tolist()))
            for reference, own, other in zip(found, (mine, theirs), (theirs, mine), strict=True)
        ]
        result = Disclosed(sides[0], sides[1], tuple(chosen))
        opened.audit.event(
            "dataset.disclosure_checked",
            subject=found[0].ref,
            data={"holder": found[1].ref, "shared": len(sides[0].shared), "columns": chosen},
            enforcement=Enforcement.DETECTIVE,
        )
    return result


def opened_data(reference: Reference) -> Source:
    """The data of a version. Raises UserError when it is gone, Tampered when it was changed."""
    source = reference.open()
    if source is None:
        raise UserError(f"the data of {reference.ref} is gone; put it back where it was registered from")
    return source


def hashed(source: Any, columns: list[str], key: bytes) -> Hashes:
    """Row hashes over ``columns`` under ``key``, in row order."""
    from dataset_guard.hashing.rowhash import RowHasher

    schema = source.schema
    hasher = RowHasher(schema, key=key, exclude=[n for n in schema.names if n not in columns])
    parts = [hasher.hash(batch).keyed for batch in source.batches()]
    return np.concatenate([p for p in parts if p is not None]) if parts else np.empty((0, 2), np.uint64)
