import json
import shutil

import pytest

from guard_core.cli import main
from guard_core.findings import Enforcement


@pytest.fixture
def three(home):
    ids = [
        home.audit.event(kind, subject="s", data={}, enforcement=Enforcement.DETECTIVE)
        for kind in ("dataset.read", "dataset.verified", "workload.state")
    ]
    return home, ids


def file_of(home):
    return home.audit.directory / "000000000000.jsonl"


def test_verify_tells_that_the_log_is_whole(three, capsys):
    assert main(["audit", "verify"]) == 0
    out = capsys.readouterr().out
    assert "3 records, 3 signed" in out
    assert "whole; root" in out


def test_verify_in_json_is_one_document_on_stdout(three, capsys):
    assert main(["audit", "verify", "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["records"], report["problems"]) == (True, 3, [])


def test_verify_of_a_changed_log_exits_1_naming_record_file_and_line_and_repairs_nothing(three, capsys):
    home, _ = three
    file_of(home).write_bytes(file_of(home).read_bytes().replace(b"dataset.verified", b"dataset.veriFied"))
    bad = file_of(home).read_bytes()
    assert main(["audit", "verify"]) == 1
    assert "record 1 was changed" in (out := capsys.readouterr().out)
    assert "000000000000.jsonl line 2" in out
    assert file_of(home).read_bytes() == bad


def test_verify_against_a_kept_head_notices_that_time_was_turned_back(three, capsys, tmp_path):
    home, _ = three
    assert main(["audit", "head"]) == 0
    kept = tmp_path / "kept.json"
    kept.write_text(capsys.readouterr().out)
    assert main(["audit", "verify", "--head", str(kept)]) == 0
    for path in home.audit.directory.iterdir():
        path.unlink()
    home.path("keys", "audit.anchor").unlink()
    home.audit.event("x.y", subject="", data={}, enforcement=Enforcement.DETECTIVE)
    assert main(["audit", "verify"]) == 0
    assert main(["audit", "verify", "--head", str(kept)]) == 1


def test_verify_where_there_is_no_log_is_a_usage_error(home, capsys):
    assert main(["audit", "verify"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no audit log at ")


def test_an_unmasked_export_is_the_logs_own_lines_and_can_be_verified(three, capsys, tmp_path):
    home, _ = three
    target = tmp_path / "export.jsonl"
    assert main(["audit", "export", "--unmasked", "--output", str(target)]) == 0
    assert target.read_bytes() == file_of(home).read_bytes()
    assert main(["audit", "verify", str(target)]) == 0


def test_an_export_can_be_of_one_area(three, capfdbinary):
    assert main(["audit", "export", "--kind", "dataset."]) == 0
    kinds = [json.loads(line)["kind"] for line in capfdbinary.readouterr().out.splitlines()]
    assert kinds == ["dataset.read", "dataset.verified"]


def test_an_export_since_no_time_is_a_usage_error(three, capsys):
    assert main(["audit", "export", "--since", "yesterday"]) == 2
    assert "--since 'yesterday' is not an RFC 3339 time" in capsys.readouterr().err


def test_a_proof_made_here_is_checked_there_with_the_public_key_alone(three, capsys, tmp_path, monkeypatch):
    home, ids = three
    assert main(["audit", "prove", ids[1]]) == 0
    proof = tmp_path / "proof.json"
    proof.write_text(capsys.readouterr().out)
    key = next(home.path("keys").glob("*.pub.pem"))
    monkeypatch.setenv("TRAINGUARD_HOME", str(tmp_path / "another"))
    assert main(["audit", "check-proof", str(proof), "--key", str(key)]) == 0
    assert json.loads(capsys.readouterr().out)["event_id"] == ids[1]
    assert not (tmp_path / "another").exists()


def test_a_whole_log_is_not_restarted(three, capsys):
    assert main(["audit", "restart", "--reason", "curious"]) == 2
    assert "is whole: there is nothing to restart" in capsys.readouterr().err


def test_a_damaged_log_is_restarted_with_a_reason_and_decisions_are_given_again(three, capsys):
    home, _ = three
    file_of(home).write_bytes(b"")
    assert main(["audit", "restart", "--reason", "the disk was swapped"]) == 0
    assert main(["audit", "verify"]) == 0
    (first,) = home.audit.records()
    assert (first["kind"], first["data"]["reason"]) == ("audit.restarted", "the disk was swapped")


def test_only_a_platform_admin_restarts_a_log(three, capsys, monkeypatch):
    home, _ = three
    file_of(home).write_bytes(b"")
    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="acme", user="ann"))
    assert main(["audit", "restart", "--reason", "mischief"]) == 1
    assert file_of(home).read_bytes() == b""


def test_a_copy_that_lies_elsewhere_is_checked_with_this_homes_keys(three, capsys, tmp_path):
    home, _ = three
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(home.audit.directory, copy)
    assert main(["audit", "verify", str(copy)]) == 0
    file = copy / file_of(home).name
    file.write_bytes(file.read_bytes().replace(b"dataset.verified", b"dataset.veriFied"))
    assert main(["audit", "verify", str(copy)]) == 1
