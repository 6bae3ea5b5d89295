"""Proofs of many rows under one signature.

A signature costs its checker several times what a path in the tree costs. So a bundle holds one signed
statement (this root is that version's, and these are the tenant hashes of the rows asked about) and a path
for each row: the checker verifies the statement once (:meth:`SignedRows.of`), then each path against it.
Format: docs/row-proofs.md.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from dataset_guard.proofs.prove import (
    Shown,
    ask,
    check_opening,
    need_both,
    path_json,
    path_of,
    raw_of,
    says,
    text_of,
)
from guard_core.errors import Tampered, UserError

if TYPE_CHECKING:
    from guard_core.attestation import Verifier
    from guard_core.home import Home

FORMAT = "trainguard.row-proofs/v1"
OPENING_FORMAT = "trainguard.row-proofs-opening/v1"
PAYLOAD_TYPE = "application/vnd.trainguard.rows-asked+json"
MOST_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class ProofBundle:
    """``bundle`` may go to anybody, ``opening`` only to those who hold the rows (as with RowProof)."""

    ref: str
    present: tuple[bool, ...]
    bundle: dict[str, Any]
    opening: dict[str, Any]

    def to_bytes(self) -> bytes:
        """The bundle as the file that travels."""
        return json.dumps(self.bundle, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenRows(Shown):
    """What a bundle shows; ``present`` has an answer for each row asked about."""

    present: tuple[bool, ...]
    rows_checked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRows:
    """A statement whose signature has been verified: the root, and the rows that were asked about."""

    ref: str
    fingerprint: str
    rows: int
    root: bytes
    asked: tuple[bytes, ...]
    """The tenant hash of each row, 16 bytes."""
    bound: tuple[bytes, ...]

    @classmethod
    def of(cls, envelope: Mapping[str, Any], verifier: Verifier) -> SignedRows:
        """From the ``signed`` envelope of a bundle. Raises Tampered."""
        signed = msgspec.json.decode(verifier.verify_bytes(envelope, payload_type=PAYLOAD_TYPE))
        return cls(
            ref=str(signed["ref"]),
            fingerprint=str(signed["fingerprint"]),
            rows=int(signed["rows"]),
            root=raw_of(signed["root"], 32),
            asked=tuple(raw_of(one["row"], 16) for one in signed["asked"]),
            bound=tuple(raw_of(one["bound"], 32) for one in signed["asked"]),
        )

    def says(self, number: int, proof: Mapping[str, Any]) -> bool:
        """Whether row ``number`` of those asked about is in the version, as ``proof`` (a path) shows.

        No signature is checked here. Raises Tampered when the path does not show it, UserError when
        ``proof`` is no path.
        """
        try:
            path = path_of(proof)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"proof {number} of the bundle is not a path: {error!r}") from None
        return says(*path, self.asked[number], self.rows, self.root)


def prove_rows(ref: str, rows: Any, *, tenant: str | None = None, home: Home | None = None) -> ProofBundle:
    """Prove for each of ``rows`` (a file or table, 10,000 rows at most) whether it is in the version ``ref``.

    As :func:`dataset_guard.prove` for one row: policy is asked once, one audit event, the same errors.
    """
    from dataset_guard.registry.caller import opened_home
    from guard_core.attestation import canonical_json

    with opened_home(home) as opened:
        asked = ask(ref, rows, tenant=tenant, home=opened, most=MOST_ROWS)
        nonces = [secrets.token_bytes(32) for _ in asked.places]
        rows_asked = [
            {"row": text_of(row), "bound": asked.bound(number, nonce)}
            for number, (row, nonce) in enumerate(zip(asked.hashes, nonces, strict=True))
        ]
        payload = canonical_json({**asked.statement(), "asked": rows_asked})
        bundle = {
            "format": FORMAT,
            "proofs": [path_json(place) for place in asked.places],
            "signed": opened.signer.sign_bytes(payload, payload_type=PAYLOAD_TYPE),
        }
    opening = {
        "format": OPENING_FORMAT,
        "nonces": [text_of(nonce) for nonce in nonces],
        "columns": asked.shape(),
    }
    return ProofBundle(asked.reference.ref, asked.present, bundle, opening)


def check_proofs(
    bundle: Mapping[str, Any],
    verifier: Verifier,
    *,
    rows: Any = None,
    opening: Mapping[str, Any] | None = None,
) -> ProvenRows:
    """What ``bundle`` shows for each of its rows, checked with public keys alone.

    With ``rows`` and their ``opening`` also that it is about these rows, in this order. Raises Tampered when
    one proof does not hold, UserError when it is no bundle or only one of both is given.
    """
    need_both(rows, opening)
    if bundle.get("format") != FORMAT or not isinstance(bundle.get("proofs"), list):
        raise UserError(f"this is not a bundle of row proofs ({FORMAT})")
    signed = SignedRows.of(bundle.get("signed", {}), verifier)
    proofs = bundle["proofs"]
    if len(proofs) != len(signed.asked):
        raise Tampered(f"the bundle has {len(proofs):,} proofs for the {len(signed.asked):,} signed rows")
    present = tuple(signed.says(number, proof) for number, proof in enumerate(proofs))
    if opening is not None:
        check_opening(rows, opening, signed.bound, form=OPENING_FORMAT, most=MOST_ROWS)
    return ProvenRows(
        ref=signed.ref,
        fingerprint=signed.fingerprint,
        rows=signed.rows,
        rows_root=signed.root.hex(),
        present=present,
        rows_checked=rows is not None,
    )
