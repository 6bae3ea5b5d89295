"""Row proofs: is this row in that version? Provable to somebody who has only our public key.

A proof holds one gap of the version's row tree (:mod:`dataset_guard.proofs.rowtree`), the path to the root,
and a signed statement: this root is that version's, and this is the tenant hash of the row that was asked
about. It reveals three keyed hashes, none of which can be computed from a guessed row without the tenant's
key. Format and limits: docs/row-proofs.md.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

from dataset_guard.proofs.rowtree import Gap, root_of
from guard_core.errors import Tampered, UserError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from dataset_guard.hashing.rowhash import RowHashes
    from dataset_guard.proofs.rowtree import Place
    from dataset_guard.registry.reference import Reference
    from guard_core.attestation import Verifier
    from guard_core.home import Home


class _Signed(msgspec.Struct):
    """The statement of a proof, as it is signed: its numbers and texts, the latter still base64url."""

    ref: str
    fingerprint: str
    rows: int
    root: str
    row: str
    bound: str


FORMAT = "trainguard.row-proof/v1"
OPENING_FORMAT = "trainguard.row-proof-opening/v1"
PAYLOAD_TYPE = "application/vnd.trainguard.row-root+json"
_SIGNED = msgspec.json.Decoder(_Signed)
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_URLSAFE = bytes.maketrans(b"-_+/=", b"+/!!!")
"""base64url to base64; what only base64 has becomes what neither has."""
_PADDING = (b"", b"===", b"==", b"=")


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
class Shown:
    """What any proof shows about the version, by its signer's word."""

    ref: str
    fingerprint: str
    rows: int
    rows_root: str

    def to_json(self) -> dict[str, Any]:
        """The documented shape."""
        return {"ok": True, **{field.name: getattr(self, field.name) for field in fields(self)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven(Shown):
    """What a proof shows: the row is, or is not, among the ``rows`` of ``ref``."""

    present: bool
    row_checked: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows that were asked about, found in the tree of a version, on record in the audit log."""

    reference: Reference
    rows: RowHashes
    places: tuple[Place, ...]
    root: bytes

    @property
    def present(self) -> tuple[bool, ...]:
        """For each row, whether it is in the version."""
        return tuple(place.gap.says(row) is True for place, row in zip(self.places, self.hashes, strict=True))

    @property
    def hashes(self) -> list[bytes]:
        """The tenant hash of each row, 16 bytes."""
        assert self.rows.keyed is not None
        return [hash_bytes(pair) for pair in self.rows.keyed]

    def statement(self) -> dict[str, Any]:
        """What every signed statement about the version begins with."""
        return {
            "ref": self.reference.ref,
            "fingerprint": self.reference.version.fingerprint,
            "rows": int(self.reference.record["content"]["rows"]),
            "root": text_of(self.root),
        }

    def bound(self, row: int, nonce: bytes) -> str:
        """Ties the statement to row number ``row``, for holders of the nonce only."""
        return text_of(blake3(hash_bytes(self.rows.public[row]), key=nonce).digest())

    def shape(self) -> list[dict[str, str]]:
        """The registered columns, for the opening."""
        return [{"name": name, "type": kind} for name, kind in self.reference.columns]


def ask(ref: str, rows: Any, *, tenant: str | None, home: Home, most: int = 1) -> Asked:
    """Find each of ``rows`` in the tree of ``ref``, as policy permits. Raises as :func:`prove`."""
    from dataset_guard.hashing.rowkeys import tenant_row_key
    from dataset_guard.proofs.onerow import row_hashes_of
    from dataset_guard.proofs.rowtree import paths_to
    from dataset_guard.reads.access import open_access

    with open_access(ref, purpose="inspect", tenant=tenant, home=home) as access:
        reference = access.reference
    if "rows_root" not in reference.record:
        raise UserError(f"{reference.ref} was registered without a rows_root; register it again, then prove")
    key = tenant_row_key(home, reference.version.tenant)
    found = row_hashes_of(rows, reference.columns, key=key, most=most)
    assert found.keyed is not None
    places, root = paths_to(reference.sorted_row_hashes(), [hash_bytes(pair) for pair in found.keyed])
    if root.hex() != reference.record["rows_root"]:
        raise Tampered(f"the row hashes of {reference.ref} do not make its signed rows_root")
    asked = Asked(reference, found, tuple(places), root)
    present = asked.present
    said = {"present": present[0]} if most == 1 else {"rows": len(present), "present": sum(present)}
    home.audit.event(
        "dataset.proved",
        subject=reference.ref,
        data={**said, "by": access.ticket.user, "tenant": access.ticket.tenant},
        enforcement=Enforcement.COOPERATIVE,
        decision_id=access.ticket.decision_id,
    )
    return asked


def path_json(place: Place) -> dict[str, Any]:
    """A place in the tree as it travels: ``{index, gap, path}``."""
    return {
        "index": place.index,
        "gap": [None if h is None else text_of(h) for h in (place.gap.left, place.gap.right)],
        "path": text_of(b"".join(place.siblings)),
    }


def prove(ref: str, row: Any, *, tenant: str | None = None, home: Home | None = None) -> RowProof:
    """Prove whether ``row`` (a file or table of exactly one row) is in the version ``ref``.

    Policy is asked as for any look at the data (guard/dataset/use, purpose "inspect"), and the proof is an
    audit event, which holds no hash of the row. Builds the tree anew: about 0.3 s for a million rows.

    Raises UserError for a bad row or a version without a rows_root, Denied, Undecidable, Tampered.
    """
    from dataset_guard.registry.caller import opened_home
    from guard_core.attestation import canonical_json

    with opened_home(home) as opened:
        asked = ask(ref, row, tenant=tenant, home=opened)
        nonce = secrets.token_bytes(32)
        payload = {**asked.statement(), "row": text_of(asked.hashes[0]), "bound": asked.bound(0, nonce)}
        proof = {
            "format": FORMAT,
            **path_json(asked.places[0]),
            "signed": opened.signer.sign_bytes(canonical_json(payload), payload_type=PAYLOAD_TYPE),
        }
    opening = {"format": OPENING_FORMAT, "nonce": text_of(nonce), "columns": asked.shape()}
    return RowProof(asked.reference.ref, asked.present[0], proof, opening)


def check_proof(
    proof: Mapping[str, Any] | bytes,
    verifier: Verifier,
    *,
    row: Any = None,
    opening: Mapping[str, Any] | None = None,
) -> Proven:
    """What ``proof`` (the file's bytes, or its object) shows, checked with public keys alone.

    Needs no home, no database, no data.
    With ``row`` and its ``opening`` also that the proof is about this row.
    Raises Tampered when the proof does not hold, UserError when it is no proof or only one of both is given.
    """
    need_both(row, opening)
    try:
        if isinstance(proof, bytes):
            proof = _OBJECT.decode(proof)
        if proof["format"] != FORMAT:
            raise UserError(f"the proof has the format {proof['format']!r}; this trainguard reads {FORMAT}")
        path = path_of(proof)
        envelope = proof["signed"]
    except (KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise UserError(f"this is not a row proof: {error!r}") from None
    try:
        signed = _SIGNED.decode(verifier.verify_bytes(envelope, payload_type=PAYLOAD_TYPE))
        root, signed_row = raw_of(signed.root, 32), raw_of(signed.row, 16)
    except (ValueError, msgspec.DecodeError) as error:
        raise Tampered(f"the signed statement is not one of a row proof: {error}") from None
    present = says(*path, signed_row, signed.rows, root)
    if opening is not None:
        check_opening(row, opening, [raw_of(signed.bound, 32)], form=OPENING_FORMAT)
    return Proven(
        ref=signed.ref,
        fingerprint=signed.fingerprint,
        rows=signed.rows,
        rows_root=root.hex(),
        present=present,
        row_checked=row is not None,
    )


def path_of(proof: Mapping[str, Any]) -> tuple[Gap, int, bytes]:
    """Inverse of :func:`path_json`: gap, index, packed siblings. Raises KeyError, TypeError, ValueError."""
    left, right = proof["gap"]
    gap = Gap(None if left is None else raw_of(left, 16), None if right is None else raw_of(right, 16))
    return gap, int(proof["index"]), raw_of(proof["path"])


def says(gap: Gap, index: int, packed: bytes, row_hash: bytes, rows: int, root: bytes) -> bool:
    """Whether ``row_hash`` is among the ``rows`` rows under ``root``. Raises Tampered when not shown.

    ``packed`` holds the siblings, 32 bytes each. What a checker repeats for each proof under one root.
    """
    if root_of(packed, gap.digest(), index, rows + 1) != root:
        raise Tampered("the proof's path does not lead to the signed root")
    present = gap.says(row_hash)
    if present is None:
        raise Tampered("the proof is about other rows than the signed one")
    return present


def need_both(rows: Any, opening: Mapping[str, Any] | None) -> None:
    """Raises UserError when only one of both is given."""
    if (rows is None) != (opening is None):
        raise UserError("checking which rows a proof is about takes both: the rows, and the opening")


def check_opening(
    rows: Any, opening: Mapping[str, Any], bound: Sequence[bytes], *, form: str, most: int = 1
) -> None:
    """Check that ``bound`` is about ``rows``, in this order, with the nonces of an ``opening`` of ``form``.

    Raises UserError when the opening or the rows do not fit, Tampered when it is about other rows.
    """
    from dataset_guard.proofs.onerow import row_hashes_of

    try:
        if opening["format"] != form:
            raise UserError(f"the opening has another format than {form}")
        texts = [opening["nonce"]] if form == OPENING_FORMAT else opening["nonces"]
        nonces = [raw_of(text, 32) for text in texts]
        columns = [(str(c["name"]), str(c["type"])) for c in opening["columns"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"this is not the opening of such a proof: {error!r}") from None
    found = row_hashes_of(rows, columns, key=None, most=most)
    if not len(found.public) == len(nonces) == len(bound):
        raise UserError(f"{len(found.public):,} rows where the proof is about {len(bound):,}; give those")
    for number, (pair, nonce) in enumerate(zip(found.public, nonces, strict=True)):
        if blake3(hash_bytes(pair), key=nonce).digest() != bound[number]:
            raise Tampered(f"the proof of row {number} is about another row than the given one")


def load_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in ``path``. Raises UserError, naming ``what`` it should be."""
    from dataset_guard.proofs.onerow import read_bytes

    try:
        value = json.loads(read_bytes(path, what))
    except ValueError as error:
        raise UserError(f"{what} {path} is not JSON ({error}); ask for it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{what} {path} is not a JSON object; ask for it again")
    return value


def hash_bytes(pair: Any) -> bytes:
    """The 16 bytes of a row hash from its two numbers."""
    return int(pair[0]).to_bytes(8, "big") + int(pair[1]).to_bytes(8, "big")


def text_of(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def raw_of(text: Any, size: int | None = None) -> bytes:
    """Inverse of :func:`text_of`. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("a value that should be base64url text is not text")
    # The library's urlsafe_b64decode takes four times as long, and passes over what is no digit.
    digits = text.encode().translate(_URLSAFE) + _PADDING[len(text) % 4]
    try:
        raw = binascii.a2b_base64(digits, strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"not base64url without padding: {error}") from None
    if size is not None and len(raw) != size:
        raise ValueError(f"{len(raw)} bytes where {size} are expected")
    return raw
