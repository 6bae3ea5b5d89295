"""Row proofs: is this row in that version? Provable to somebody who has only our public key.

A proof holds one gap of the version's row tree (:mod:`dataset_guard.rowtree`), the path to the root, and a
signed statement: this root is that version's, and this is the tenant hash of the row that was asked about.
It reveals three keyed hashes, none of which can be computed from a guessed row without the tenant's key.
Format and limits: docs/row-proofs.md.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from dataset_guard.rowtree import Gap, root_of
from guard_core.errors import Tampered, UserError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.attestation import Verifier
    from guard_core.home import Home

FORMAT = "trainguard.row-proof/v1"
OPENING_FORMAT = "trainguard.row-proof-opening/v1"
PAYLOAD_TYPE = "application/vnd.trainguard.row-root+json"


@dataclass(frozen=True, slots=True)
class RowProof:
    """``proof`` may go to anybody; ``opening`` only to those who already hold the row.

    With the opening a holder of the row can check that the proof is about that very row, but so could
    anybody who guesses it: the proof alone is what hides the row.
    """

    ref: str
    present: bool
    proof: dict[str, Any]
    opening: dict[str, Any]

    def to_bytes(self) -> bytes:
        """The proof as the file that travels."""
        return json.dumps(self.proof, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What a proof shows, by its signer's word: the row is, or is not, among the ``rows`` of ``ref``."""

    ref: str
    fingerprint: str
    rows: int
    rows_root: str
    present: bool
    row_checked: bool

    def to_json(self) -> dict[str, Any]:
        """The documented shape."""
        return {
            "ok": True,
            "ref": self.ref,
            "fingerprint": self.fingerprint,
            "rows": self.rows,
            "rows_root": self.rows_root,
            "present": self.present,
            "row_checked": self.row_checked,
        }


def prove(ref: str, row: Any, *, tenant: str | None = None, home: Home | None = None) -> RowProof:
    """Prove whether ``row`` (a file or table of exactly one row) is in the version ``ref``.

    Policy is asked as for any look at the data (guard/dataset/use, purpose "inspect"), and the proof is an
    audit event, which holds no hash of the row. Builds the tree anew: about 0.3 s for a million rows.

    Raises UserError for a bad row or a version without a rows_root, Denied, Undecidable, Tampered.
    """
    if home is None:
        from guard_core.home import Home as Opened

        with Opened.open() as opened:
            return prove(ref, row, tenant=tenant, home=opened)
    from dataset_guard.access import open_access
    from dataset_guard.onerow import row_hashes_of
    from dataset_guard.rowkeys import tenant_row_key
    from dataset_guard.rowtree import path_to

    with open_access(ref, purpose="inspect", tenant=tenant, home=home) as access:
        reference = access.reference
    record = reference.record
    if "rows_root" not in record:
        raise UserError(f"{reference.ref} was registered without a rows_root; register it again, then prove")
    key = tenant_row_key(home, reference.version.tenant)
    found = row_hashes_of(row, reference.columns, key=key)
    assert found.keyed is not None
    row_hash = _hash_bytes(found.keyed[0])
    place, root = path_to(reference.sorted_row_hashes(), row_hash)
    if root.hex() != record["rows_root"]:
        raise Tampered(f"the row hashes of {reference.ref} do not make its signed rows_root")
    present = place.gap.says(row_hash) is True
    nonce = secrets.token_bytes(32)
    payload = {
        "ref": reference.ref,
        "fingerprint": reference.version.fingerprint,
        "rows": int(record["content"]["rows"]),
        "root": _text(root),
        "row": _text(row_hash),
        "bound": _text(blake3(_hash_bytes(found.public[0]), key=nonce).digest()),
    }
    home.audit.event(
        "dataset.proved",
        subject=reference.ref,
        data={"present": present, "by": access.ticket.user, "tenant": access.ticket.tenant},
        enforcement=Enforcement.COOPERATIVE,
        decision_id=access.ticket.decision_id,
    )
    from guard_core.attestation import canonical_json

    proof = {
        "format": FORMAT,
        "index": place.index,
        "gap": [None if h is None else _text(h) for h in (place.gap.left, place.gap.right)],
        "path": _text(b"".join(place.siblings)),
        "signed": home.signer.sign_bytes(canonical_json(payload), payload_type=PAYLOAD_TYPE),
    }
    opening = {
        "format": OPENING_FORMAT,
        "nonce": _text(nonce),
        "columns": [{"name": n, "type": t} for n, t in reference.columns],
    }
    return RowProof(reference.ref, present, proof, opening)


def check_proof(
    proof: Mapping[str, Any],
    verifier: Verifier,
    *,
    row: Any = None,
    opening: Mapping[str, Any] | None = None,
) -> Proven:
    """What ``proof`` shows, checked with public keys alone. Needs no home, no database, no data.

    With ``row`` and its ``opening`` also that the proof is about this row.
    Raises Tampered when the proof does not hold, UserError when it is no proof or only one of both is given.
    """
    if (row is None) != (opening is None):
        raise UserError("checking which row a proof is about takes both the row and its opening")
    try:
        if proof["format"] != FORMAT:
            raise UserError(f"the proof has the format {proof['format']!r}; this trainguard reads {FORMAT}")
        left, right = (None if text is None else _raw(text, 16) for text in proof["gap"])
        index, packed = int(proof["index"]), _raw(proof["path"])
        envelope = proof["signed"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"this is not a row proof: {error!r}") from None
    signed = json.loads(verifier.verify_bytes(envelope, payload_type=PAYLOAD_TYPE))
    present = says(
        Gap(left, right),
        index,
        packed,
        _raw(signed["row"], 16),
        int(signed["rows"]),
        _raw(signed["root"], 32),
    )
    if row is not None and opening is not None:
        _check_row(row, opening, _raw(signed["bound"], 32))
    return Proven(
        ref=str(signed["ref"]),
        fingerprint=str(signed["fingerprint"]),
        rows=int(signed["rows"]),
        rows_root=_raw(signed["root"], 32).hex(),
        present=present,
        row_checked=row is not None,
    )


def says(gap: Gap, index: int, packed: bytes, row_hash: bytes, rows: int, root: bytes) -> bool:
    """Whether ``row_hash`` is among the ``rows`` rows under ``root``. Raises Tampered when not shown.

    ``packed`` holds the siblings, 32 bytes each. What a checker repeats for each proof under one root.
    """
    siblings = [packed[i : i + 32] for i in range(0, len(packed), 32)]
    if root_of(siblings, gap.digest(), index, rows + 1) != root:
        raise Tampered("the proof's path does not lead to the signed root")
    present = gap.says(row_hash)
    if present is None:
        raise Tampered("the proof is about other rows than the signed one")
    return present


def _check_row(row: Any, opening: Mapping[str, Any], bound: bytes) -> None:
    from dataset_guard.onerow import row_hashes_of

    try:
        if opening["format"] != OPENING_FORMAT:
            raise UserError(f"the opening has another format than {OPENING_FORMAT}")
        nonce = _raw(opening["nonce"], 32)
        columns = [(str(c["name"]), str(c["type"])) for c in opening["columns"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"this is not the opening of a row proof: {error!r}") from None
    found = row_hashes_of(row, columns, key=None)
    if blake3(_hash_bytes(found.public[0]), key=nonce).digest() != bound:
        raise Tampered("the proof is about another row than the given one")


def load_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in ``path``. Raises UserError, naming ``what`` it should be."""
    from dataset_guard.onerow import read_bytes

    try:
        value = json.loads(read_bytes(path, what))
    except ValueError as error:
        raise UserError(f"{what} {path} is not JSON ({error}); ask for it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{what} {path} is not a JSON object; ask for it again")
    return value


def _hash_bytes(pair: Any) -> bytes:
    return int(pair[0]).to_bytes(8, "big") + int(pair[1]).to_bytes(8, "big")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _raw(text: Any, size: int | None = None) -> bytes:
    """Inverse of :func:`_text`. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("a value that should be base64url text is not text")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if size is not None and len(raw) != size:
        raise ValueError(f"{len(raw)} bytes where {size} are expected")
    return raw
