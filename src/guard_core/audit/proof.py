"""Proofs that travel: one record, its path through the Merkle tree, and the signed head they lead to.

A reader with the public key needs neither the log nor our word: :func:`check` recomputes the root from the
record's own bytes (RFC 6962 2.1.1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard_core.attestation import Verifier
from guard_core.audit import record
from guard_core.audit.head import HEAD_FILE, Head
from guard_core.audit.merkle import inclusion_proof, leaf_hash, verify_inclusion
from guard_core.audit.segments import lines, segments
from guard_core.errors import Tampered, UserError

FORMAT = "trainguard.audit-proof/v1"


def prove(directory: Path, wanted: int | str, verifier: Verifier) -> dict[str, Any]:
    """A proof for record number ``wanted``, or for the record of the decision or event with that id.

    Raises UserError when there is no such signed record, Tampered when the log is not what was signed.
    """
    file = directory / HEAD_FILE
    try:
        content = file.read_bytes()
    except OSError:
        raise UserError(f"there is no signed head {file}; nothing can be proved") from None
    head = Head.verified(content, verifier, where=file)
    leaves: list[bytes] = []
    found: tuple[int, bytes] | None = None
    needle = wanted.encode() if isinstance(wanted, str) else b""
    for path in segments(directory):
        for line in lines(path):
            number = len(leaves)
            if number == head.size:
                break
            if number == wanted or (needle and needle in line and _is(line, str(wanted))):
                found = (number, line)
            leaves.append(leaf_hash(record.entry(line)))
    if found is None:
        raise UserError(f"the audit log {directory} has no signed record {wanted!r}")
    number, line = found
    proof = inclusion_proof(leaves, number)
    if not verify_inclusion(
        leaf_hash(record.entry(line)), number, head.size, proof, bytes.fromhex(head.root)
    ):
        raise Tampered(f"the audit log {directory} is not what was signed; run: trainguard audit verify")
    return {
        "format": FORMAT,
        "record": record.entry(line).decode(),
        "index": number,
        "path": [node.hex() for node in proof],
        "head": json.loads(content),
    }


def check(proof: Mapping[str, Any], verifier: Verifier) -> dict[str, Any]:
    """The proved record. Raises Tampered when the proof does not hold, UserError when it is no proof."""
    try:
        if proof["format"] != FORMAT:
            raise UserError(f"the proof has the format {proof['format']!r}; this trainguard reads {FORMAT}")
        text, index = str(proof["record"]).encode(), int(proof["index"])
        path = [bytes.fromhex(node) for node in proof["path"]]
        envelope = json.dumps(proof["head"]).encode()
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"this is not an audit proof: {error!r}") from None
    head = Head.verified(envelope, verifier, where=Path("of the proof"))
    if not verify_inclusion(leaf_hash(text), index, head.size, path, bytes.fromhex(head.root)):
        raise Tampered(f"the record is not number {index} of the {head.size} records that were signed")
    return record.decode(text)


def _is(line: bytes, wanted: str) -> bool:
    value = record.decode(line)
    return wanted in (
        value.get("decision_id") if value.get("kind") == "decision" else None,
        value.get("event_id"),
    )
