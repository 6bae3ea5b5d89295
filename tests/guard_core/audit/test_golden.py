"""Logs written by version 1 of the format verify for ever. Never regenerate these files: add new ones."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from guard_core.attestation import Verifier
from guard_core.audit import record, verify
from guard_core.audit.proof import check

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"


@pytest.fixture
def keys():
    return Verifier.of(GOLDEN / "audit-key.pub.pem")


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "audit"
    target.mkdir()
    shutil.copy(GOLDEN / "audit.jsonl", target / "000000000000.jsonl")
    shutil.copy(GOLDEN / "audit-head.json", target / "head.json")
    return target


def test_a_log_of_version_1_verifies_with_its_root_and_signature(folder, keys):
    report = verify(folder, verifier=keys)
    assert (report.ok, report.records, report.signed) == (True, 3, 3)
    assert report.head == "3863bf1267e85ebf9f962ea13121529b65c4b97663c43fc1b243b38194e3965a"
    assert report.root == "0edfa0f4ccad976f14466b7bd4bbcacfbafda07df9bfee16b0b55d7f699fd82e"


def test_a_proof_of_version_1_holds(keys):
    assert check(json.loads((GOLDEN / "audit-proof.json").read_text()), keys)["decision_id"] == "dec-golden-1"


def test_the_same_records_are_still_written_byte_for_byte():
    prev = record.GENESIS
    for seq, line in enumerate((GOLDEN / "audit.jsonl").read_bytes().splitlines(keepends=True)):
        body = {k: v for k, v in json.loads(line).items() if not k.startswith("_")}
        written, prev = record.encode(body, seq=seq, prev=prev)
        assert written == line


def test_the_hashes_can_be_checked_with_nothing_but_json_and_sha256():
    previous = "0" * 64
    for line in (GOLDEN / "audit.jsonl").read_text().splitlines():
        value = json.loads(line)
        stated = value.pop("_hash")
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == stated
        assert value["_prev"] == previous
        previous = stated


def test_a_decision_record_has_the_members_of_opas_decision_log():
    denied, failed = (json.loads(x) for x in (GOLDEN / "audit.jsonl").read_text().splitlines()[1:])
    opa = {"labels", "decision_id", "bundles", "path", "input", "requested_by", "timestamp", "metrics"}
    assert opa | {"result", "erased"} <= denied.keys()
    assert opa | {"error"} <= failed.keys()
    assert denied["input"]["now_ns"] == 1795410499927729001
    assert denied["erased"] == ["/input/api_key"]
    assert "result" not in failed
