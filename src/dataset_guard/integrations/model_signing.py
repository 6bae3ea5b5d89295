"""A signature that OpenSSF model-signing verifies: ``model_signing verify key``.

It speaks of the version's files as they were registered, in the format of
https://github.com/sigstore/model-transparency (predicate ``model_signing/signature/v1.0`` in a Sigstore
bundle). It needs an ECDSA key, which that tool verifies, and says nothing about rows or verdicts. Digests are
SHA-256, taken while the files' signed BLAKE3 is checked: the library believes a signature's word about its
hashes, but the command always takes SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dataset_guard.sidecars.manifest import place_in, sha256_of
from guard_core.attestation import PAYLOAD_TYPE, statement
from guard_core.errors import UserError

if TYPE_CHECKING:
    from dataset_guard.registry.reference import Reference
    from guard_core.attestation import Signer

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def model_signing(reference: Reference, signer: Signer) -> dict[str, Any]:
    """The Sigstore bundle over the files of ``reference``, which are read once.

    Raises UserError without files or an ECDSA key, Tampered when a file has other bytes.
    """
    if not signer.algorithm.startswith("ecdsa"):
        raise UserError(
            f"model-signing verifies ECDSA keys only, and the signing key is {signer.algorithm}; "
            "run: trainguard keys rotate --algorithm ecdsa-p256"
        )
    entries = sorted(reference.manifest, key=lambda e: PurePosixPath(e.path).parts)
    path = reference.data_path()
    if not entries or not isinstance(path, Path):
        raise UserError(f"{reference.ref} has no local files for model-signing to verify")
    alone = len(entries) == 1 and path.name == entries[0].path
    names = ["."] if alone else [entry.path for entry in entries]
    digests = [sha256_of(reference.ref, entry, place_in(path, entry, entries)) for entry in entries]
    root = hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
    said = statement(
        subjects={path.name: {"sha256": root}},
        predicate_type=PREDICATE_TYPE,
        predicate={
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest}
                for name, digest in zip(names, digests, strict=True)
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
