"""The signed record of a version: what was registered, and what was thought of it.

``record.dsse.json`` is a DSSE envelope around an in-toto Statement: the subject is the fingerprint, the
predicate the record. ``record.json`` is the same predicate for people and tools that do not unpack
envelopes; it is believed only while it equals the signed one. Sidecars carry no signature of their own:
the record holds their BLAKE3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.sidecars.manifest import file_digest
from guard_core.errors import Tampered

if TYPE_CHECKING:
    from guard_core.attestation import Signer, Verifier

PREDICATE_TYPE = "https://trainguard.dev/attestation/dataset-record/v1"
ENVELOPE = "record.dsse.json"
RECORD = "record.json"
FINDINGS = "findings.json"
MANIFEST = "manifest.json"
LEAVES = "leaves.arrow"
ROWS = "rows.arrow"
SEALED = "rows.sealed"
"""Not in records of earlier releases."""
TAGS = "files.tags"
"""Only where a file has tags, and not in records of earlier releases."""
REPORT = "report.html"
DATA = "data"
"""Folder for data that was registered from memory."""


def subject_of(record: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The in-toto subject: the reference, with the roots of its content as digests."""
    content = record["content"]
    digests = {"dg1": content["sequence_root"], "dg1-schema": content["schema_root"]}
    if content["set_root"]:
        digests["dg1-set"] = content["set_root"]
    return {record["ref"]: digests}


def sign(record: Mapping[str, Any], signer: Signer) -> dict[str, Any]:
    """The DSSE envelope around ``record``."""
    from guard_core.attestation import statement

    return signer.sign(
        statement(subjects=subject_of(record), predicate_type=PREDICATE_TYPE, predicate=record)
    )


def load_signed(folder: Path, verifier: Verifier | Signer, *, ref: str) -> dict[str, Any]:
    """As :func:`load_with_signer`, the record alone."""
    return load_with_signer(folder, verifier, ref=ref)[0]


def load_with_signer(folder: Path, verifier: Verifier | Signer, *, ref: str) -> tuple[dict[str, Any], str]:
    """(record in ``folder``, id of the key that signed it), proved by signature and agreement of its copies.

    Raises Tampered when the envelope is missing, is not signed by a trusted key in its time, is for another
    version, or when ``record.json`` says something else.
    """
    envelope = _read_json(folder / ENVELOPE, ref)
    try:
        statement, key_id = verifier.verify_dated(envelope, "created_at")
    except Tampered as error:
        raise Tampered(f"the record of {ref} is not to be trusted: {error}") from error
    record = statement.get("predicate")
    if statement.get("predicateType") != PREDICATE_TYPE or not isinstance(record, dict):
        raise Tampered(f"{folder / ENVELOPE} is not the record of a dataset; restore it from a backup")
    names = [subject.get("name") for subject in statement.get("subject", [])]
    if record.get("ref") != ref or names != [ref]:
        raise Tampered(f"{folder / ENVELOPE} is the record of {record.get('ref')}, not of {ref}")
    if _read_json(folder / RECORD, ref) != record:
        raise Tampered(f"{folder / RECORD} is not what was signed; restore it from {ENVELOPE}")
    return record, key_id


def _read_json(path: Path, ref: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Tampered(f"{path.name} of {ref} is gone; restore {path} from a backup") from error
    except (OSError, ValueError) as error:
        raise Tampered(f"{path} cannot be read ({type(error).__name__}); restore it from a backup") from error


def digest_of(record: Mapping[str, Any]) -> str:
    """BLAKE3 (64 hex) of the record's canonical JSON: the database repeats it."""
    from blake3 import blake3

    from guard_core.attestation import canonical_json

    return blake3(canonical_json(dict(record))).hexdigest()


def sidecar_entry(path: Path) -> dict[str, Any]:
    """What the record keeps of a sidecar: BLAKE3 and size."""
    return {"blake3": file_digest(path), "bytes": path.stat().st_size}


def checked_sidecar(folder: Path, name: str, record: Mapping[str, Any]) -> Path:
    """The path of a sidecar whose bytes are the ones in ``record``. Raises Tampered."""
    path = folder / name
    wanted = record["sidecars"].get(name)
    if wanted is None or not path.is_file():
        raise Tampered(f"{name} of {record['ref']} is gone; restore {path} from a backup")
    if path.stat().st_size != wanted["bytes"] or file_digest(path) != wanted["blake3"]:
        raise Tampered(f"{path} is not what was signed for {record['ref']}; restore it from a backup")
    return path
