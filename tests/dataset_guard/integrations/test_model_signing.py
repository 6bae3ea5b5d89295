"""The real model-signing library verifies our signature over a version's files, and finds what changed."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from guard_core import keys
from guard_core.cli import main

verifying = pytest.importorskip("model_signing.verifying", reason="model-signing is not installed")


@pytest.fixture
def folder(home, tmp_path):
    keys.rotate(home, by=home.principal(), algorithm="ecdsa-p256")
    for name in ("b/part-1.parquet", "b.parquet", "a.parquet"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": [len(name)]}), path)
    return tmp_path / "set"


def exported(home, tmp_path, data, capsys):
    dataset_guard.register(data, name="m", home=home, checks=["schema"])
    assert main(["dataset", "export", "m@1", "--format", "model-signing"]) == 0
    (tmp_path / "m.sig").write_text(capsys.readouterr().out)
    (tmp_path / "key.pub").write_bytes(home.signer.public_pem)
    return verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "key.pub"), tmp_path / "m.sig"


def test_model_signing_verifies_the_folder_and_refuses_a_changed_one(home, folder, tmp_path, capsys):
    verifier, signature = exported(home, tmp_path, folder, capsys)
    verifier.verify(folder, signature)
    (folder / "extra.parquet").write_bytes((folder / "a.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"[Ee]xtra"):
        verifier.verify(folder, signature)
    (folder / "extra.parquet").unlink()
    (folder / "a.parquet").write_bytes(b"changed")
    with pytest.raises(ValueError, match="mismatch"):
        verifier.verify(folder, signature)


def test_a_single_file_verifies(home, folder, tmp_path, capsys):
    verifier, signature = exported(home, tmp_path, folder / "a.parquet", capsys)
    verifier.verify(folder / "a.parquet", signature)


@pytest.mark.parametrize("data", ["a.parquet", "."])
def test_the_command_of_model_signing_accepts_what_was_exported(home, folder, tmp_path, capsys, data):
    _, signature = exported(home, tmp_path, folder / data, capsys)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder / data)]
    said = subprocess.run(
        [*command, "--signature", str(signature), "--public_key", str(tmp_path / "key.pub")],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Verification succeeded" in said.stdout


def test_a_file_with_other_bytes_is_not_described(home, folder, tmp_path, capsys):
    exported(home, tmp_path, folder, capsys)
    (folder / "a.parquet").write_bytes(b"changed")
    assert main(["dataset", "export", "m@1", "--format", "model-signing"]) != 0
    assert "a.parquet of local/m@1 has other bytes than were registered" in capsys.readouterr().err


def test_an_ed25519_key_is_refused_with_the_remedy(home, folder, capsys):
    keys.rotate(home, by=home.principal())
    dataset_guard.register(folder, name="m", home=home, checks=["schema"])
    assert main(["dataset", "export", "m@1", "--format", "model-signing"]) == 2
    assert "keys rotate --algorithm ecdsa-p256" in json.dumps(capsys.readouterr().err)
