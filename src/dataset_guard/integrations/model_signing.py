"""A signature that OpenSSF model-signing verifies: ``model_signing verify key``.

It speaks of the version's files as they were registered (BLAKE3 of their bytes, from the signed manifest), in
the format of https://github.com/sigstore/model-transparency (predicate ``model_signing/signature/v1.0`` in a
Sigstore bundle). It needs an ECDSA key, which that tool verifies, and says nothing about rows or verdicts.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from guard_core.attestation import PAYLOAD_TYPE, statement
from guard_core.errors import UserError

if TYPE_CHECKING:
    from dataset_guard.registry.reference import Reference
    from guard_core.attestation import Signer

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def model_signing(reference: Reference, signer: Signer) -> dict[str, Any]:
    """The Sigstore bundle over the files of ``reference``. Raises UserError without files or an ECDSA key."""
    if not signer.algorithm.startswith("ecdsa"):
        raise UserError(
            f"model-signing verifies ECDSA keys only, and the signing key is {signer.algorithm}; "
            "run: trainguard keys rotate --algorithm ecdsa-p256"
        )
    entries = sorted(reference.manifest, key=lambda e: PurePosixPath(e.path).parts)
    path = reference.data_path()
    if not entries or path is None:
        raise UserError(f"{reference.ref} has no files, so there is nothing for model-signing to verify")
    alone = len(entries) == 1 and path.name == entries[0].path
    names = ["."] if alone else [entry.path for entry in entries]
    root = hashlib.sha256(b"".join(bytes.fromhex(entry.blake3) for entry in entries)).hexdigest()
    said = statement(
        subjects={path.name: {"sha256": root}},
        predicate_type=PREDICATE_TYPE,
        predicate={
            "serialization": {
                "method": "files",
                "hash_type": "blake3",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": [
                {"name": name, "algorithm": "blake3", "digest": entry.blake3}
                for name, entry in zip(names, entries, strict=True)
            ],
        },
    )
    envelope = signer.sign_bytes(json.dumps(said, sort_keys=True).encode(), payload_type=PAYLOAD_TYPE)
    hint = hashlib.sha256(signer.public_pem).hexdigest()
    return {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {**envelope, "signatures": [{**s, "keyid": ""} for s in envelope["signatures"]]},
    }
