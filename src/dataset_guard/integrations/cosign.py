"""The signed record as an attestation about the version's files: ``cosign verify-blob-attestation``.

The same predicate as ``record.dsse.json``, with the files as subjects, since cosign looks for the SHA-256 of
the blob it is given. Two things differ from our own envelopes because of what cosign's verifier
(secure-systems-lab/go-securesystemslib, dsse/verify.go) does: the key id is empty, for it refuses ids that
are not its own fingerprint of the key; and P-384 keys are refused here, for it checks them with SHA-256.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.registry.record import PREDICATE_TYPE
from dataset_guard.sidecars.manifest import place_in, sha256_of
from guard_core.attestation import statement
from guard_core.errors import UserError

if TYPE_CHECKING:
    from dataset_guard.registry.reference import Reference
    from guard_core.attestation import Signer


def cosign(reference: Reference, signer: Signer) -> dict[str, Any]:
    """The DSSE envelope over the files of ``reference``, which are read once.

    Raises UserError without files or with a P-384 key, Tampered when a file has other bytes.
    """
    if signer.algorithm == "ecdsa-p384":
        raise UserError(
            "cosign verifies Ed25519 and P-256 keys, and the signing key is ecdsa-p384; "
            "run: trainguard keys rotate --algorithm ecdsa-p256"
        )
    path = reference.data_path()
    if not isinstance(path, Path):
        raise UserError(f"{reference.ref} has no local files, so there is nothing for cosign to verify")
    entries = reference.manifest
    digests = {
        entry.path: {
            "sha256": sha256_of(reference.ref, entry, place_in(path, entry, entries)),
            "blake3": entry.blake3,
        }
        for entry in entries
    }
    envelope = signer.sign(
        statement(subjects=digests, predicate_type=PREDICATE_TYPE, predicate=reference.record)
    )
    return {**envelope, "signatures": [{**s, "keyid": ""} for s in envelope["signatures"]]}
