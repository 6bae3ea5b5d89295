"""What ``cosign verify-blob-attestation`` checks: with cryptography alone, and with cosign if there is one.

It is a Go program with a long build: ``go install github.com/sigstore/cosign/v2/cmd/cosign@v2.4.3``.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import dataset_guard
from dataset_guard.registry.export import describe
from dataset_guard.registry.store import Registry
from guard_core import keys
from guard_core.attestation import pre_authentication_encoding
from guard_core.errors import Tampered, UserError

KEPT = Path.home() / ".cache" / "trainguard" / "cosign-v2.4.3"
COSIGN = shutil.which("cosign", path=f"{os.environ.get('PATH', '')}{os.pathsep}{KEPT}")


@pytest.fixture
def folder(home, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table({"x": [len(name)]}), folder / name)
    dataset_guard.register(folder, name="m", home=home, checks=["schema"])
    return folder


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_the_signature_holds_and_every_file_is_a_subject(home, folder, algorithm):
    keys.rotate(home, by=home.principal(), algorithm=algorithm)
    [public] = [k for i, k in home.signer.verifier.keys.items() if i == home.signer.key_id]
    envelope = describe("m@1", "cosign", home=home)
    [signature] = envelope["signatures"]
    payload = base64.b64decode(envelope["payload"])
    signed = pre_authentication_encoding("application/vnd.in-toto+json", payload)
    scheme = () if algorithm == "ed25519" else (ec.ECDSA(hashes.SHA256()),)
    public.verify(base64.b64decode(signature["sig"]), signed, *scheme)
    assert signature["keyid"] == ""  # cosign refuses any id but its own fingerprint of the key
    said = json.loads(payload)
    found = {s["name"]: s["digest"]["sha256"] for s in said["subject"]}
    assert found == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}
    assert said["predicate"] == Registry(home).reference("m@1", tenant="local").record
    changed = pre_authentication_encoding(
        "application/vnd.in-toto+json", payload.replace(b"a.parquet", b"c.parquet")
    )
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(signature["sig"]), changed, *scheme)


@pytest.mark.skipif(COSIGN is None, reason="cosign is not on PATH")
@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_cosign_itself_accepts_each_file_and_refuses_a_changed_one(home, folder, tmp_path, algorithm):
    old, _ = keys.rotate(home, by=home.principal(), algorithm=algorithm)
    attestation = tmp_path / "m.att"
    attestation.write_text(json.dumps(describe("m@1", "cosign", home=home)))

    def cosign(file, key_id=home.signer.key_id):
        command = [COSIGN, "verify-blob-attestation", "--insecure-ignore-tlog"]
        command += ["--key", home.path("keys", f"{key_id[:16]}.pub.pem"), "--signature", attestation]
        command += ["--type", "https://trainguard.dev/attestation/dataset-record/v1", file]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return ran.returncode == 0, ran.stderr

    for file in folder.iterdir():
        accepted, said = cosign(file)
        assert accepted, said
        assert "Verified OK" in said
    assert not cosign(folder / "a.parquet", old)[0]
    (folder / "a.parquet").write_bytes(b"changed")
    accepted, said = cosign(folder / "a.parquet")
    assert not accepted
    assert "no matching subject digest" in said


def test_a_file_that_was_changed_is_not_signed_for(home, folder):
    (folder / "a.parquet").write_bytes((folder / "b.parquet").read_bytes() + b"x")
    with pytest.raises(Tampered, match=r"a\.parquet of local/m@1 has other bytes"):
        describe("m@1", "cosign", home=home)
    (folder / "a.parquet").unlink()
    with pytest.raises(UserError, match=r"a\.parquet of local/m@1 cannot be read"):
        describe("m@1", "cosign", home=home)


def test_a_key_that_cosign_cannot_check_is_refused_with_the_remedy(home, folder):
    keys.rotate(home, by=home.principal(), algorithm="ecdsa-p384")
    with pytest.raises(UserError, match="keys rotate --algorithm ecdsa-p256"):
        describe("m@1", "cosign", home=home)
