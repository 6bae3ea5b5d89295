"""``trainguard policy``: what it prints, and the exit status scripts rely on."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from guard_core.cli import main
from guard_core.config import load_settings
from guard_core.findings import Enforcement
from guard_core.home import Home
from guard_core.policy.bundle import load_bundle, shipped_policies
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.engine import make_engine
from guard_core.policy.server import ServerEngine

UNSIGNED = {"ref": "local/digits@1", "exists": True, "tenant": "local", "name": "digits", "version": 1}
UNSIGNED |= {"verdict": "allow", "signed": False, "record_ok": True, "shared_with": [], "tampered": False}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_policies(), tmp_path / "policies"))


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


def test_check_accepts_the_shipped_policies(capsys: pytest.CaptureFixture[str], home_dir: Path) -> None:
    assert main(["policy", "check", "--format", "json"]) == 0
    said = printed(capsys)
    assert said["ok"] is True
    assert said["revision"] == load_bundle(shipped_policies()).revision
    assert said["faults"] == []


def test_check_names_what_is_not_portable_and_exits_1(
    capsys: pytest.CaptureFixture[str], policies: Path, home_dir: Path
) -> None:
    rego = policies / "guard" / "dataset" / "use" / "use.rego"
    rego.write_text(rego.read_text() + "\nlate if time.now_ns() > 1\n")
    assert main(["policy", "check", str(policies)]) == 1
    out = capsys.readouterr().out
    assert "use.rego:" in out
    assert "input.now_ns" in out
    assert "not accepted" in out


def test_check_says_which_questions_a_directory_leaves_without_an_answer(
    capsys: pytest.CaptureFixture[str], policies: Path, home_dir: Path
) -> None:
    shutil.rmtree(policies / "guard" / "dataset" / "share")
    assert main(["policy", "check", str(policies)]) == 0
    assert (
        "guard/dataset/share: no rule here, so whatever is asked of it is denied" in capsys.readouterr().out
    )
    assert main(["policy", "check", str(policies), "--format", "json"]) == 0
    assert printed(capsys)["undecided"] == ["guard/dataset/share"]


def test_check_of_broken_data_is_the_users_mistake(
    capsys: pytest.CaptureFixture[str], policies: Path, home_dir: Path
) -> None:
    tenants = policies / "data" / "tenants.yaml"
    tenants.write_text(tenants.read_text().replace("tier: basic", "tier: gold", 1))
    assert main(["policy", "check", str(policies)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "tenants.yaml:" in captured.err


def test_check_refuses_what_only_the_embedded_compiler_refuses(
    capsys: pytest.CaptureFixture[str], policies: Path, home_dir: Path
) -> None:
    rego = policies / "guard" / "dataset" / "use" / "use.rego"
    rego.write_text(rego.read_text() + "\nodd contains x if some x in ({x | some x in [1, 2]} - {1})\n")
    assert main(["policy", "check", str(policies)]) == 2
    assert "use.rego:" in capsys.readouterr().err


@pytest.mark.opa
def test_check_asks_opa_too_when_it_is_there(
    opa: str,
    capsys: pytest.CaptureFixture[str],
    policies: Path,
    home_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRAINGUARD_OPA", opa)
    rego = policies / "guard" / "dataset" / "use" / "use.rego"
    rego.write_text(rego.read_text() + "\n\n\n\nbadly   :=    1\n")  # portable, but not as opa fmt writes it
    assert main(["policy", "check", str(policies), "--format", "json"]) == 1
    said = printed(capsys)
    assert said["faults"] == []
    assert {run["name"]: run["ok"] for run in said["tools"]}["opa fmt --fail"] is False


def test_a_named_opa_that_is_none_is_not_passed_over(
    capsys: pytest.CaptureFixture[str], home_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINGUARD_OPA", "no-such-program")
    assert main(["policy", "check"]) == 2
    assert "TRAINGUARD_OPA" in capsys.readouterr().err


def test_test_runs_the_tests_and_the_samples(capsys: pytest.CaptureFixture[str], home_dir: Path) -> None:
    assert main(["policy", "test", "--format", "json", "--threshold", "90"]) == 0
    said = printed(capsys)
    assert said["ok"] is True
    assert said["passed"] > 60
    assert said["failed"] == 0
    assert said["samples"]
    assert all(sample["problem"] == "" for sample in said["samples"])


def test_a_failing_test_or_sample_exits_1(
    capsys: pytest.CaptureFixture[str], policies: Path, home_dir: Path
) -> None:
    rego = policies / "guard" / "lib" / "facts" / "facts.rego"
    rego.write_text(rego.read_text().replace("fact.signed == true", "fact.exists == true", 1))
    assert main(["policy", "test", str(policies)]) == 1
    out = capsys.readouterr().out
    assert "facts_test.rego:" in out
    assert "deny_unsigned.yaml: A dataset whose record has no valid signature: allow is True" in out


def test_too_little_coverage_exits_1(policies: Path, home_dir: Path) -> None:
    few = ["policy", "test", str(policies), "--match", "guard.lib.caller"]  # what these ask for is not much
    assert main(few) == 0
    assert main([*few, "--threshold", "90"]) == 1


def test_no_test_that_matches_exits_1(capsys: pytest.CaptureFixture[str], home_dir: Path) -> None:
    assert main(["policy", "test", "--match", "nothing.like.this"]) == 1
    assert "no test matches" in capsys.readouterr().out


def test_why_tells_a_denial_in_the_words_the_user_got(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    decision = home.decide(
        "guard/dataset/use/decision",
        {"dataset": UNSIGNED, "purpose": "train", "workload": None},
        principal=home.principal(),
        enforcement=Enforcement.COOPERATIVE,
        subject="local/digits@1",
    )
    assert main(["policy", "why", decision.decision_id]) == 0
    out = capsys.readouterr().out
    assert f"{decision.decision_id}  denied  guard/dataset/use/decision" in out
    assert "dataset local/digits@1 has no valid signature [dataset-unsigned]" in out
    assert "dataset local/digits@1 has no valid signature [dataset-unsigned]" in decision.explain()
    assert "instead: register it again" in out
    assert '"purpose": "train"' in out
    assert main(["policy", "why", decision.decision_id, "--format", "json"]) == 0
    said = printed(capsys)
    assert said["outcome"] == "denied"
    assert said["revision"] == decision.revision
    assert said["same_revision"] is True
    assert said["deny"][0]["rule"] == "dataset-unsigned"
    assert list(said["instead"]) == ["dataset-unsigned"]
    assert said["input"]["principal"]["tenant"] == "local"


def test_why_tells_an_undecidable_one_from_a_denial(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    decision = home.decide(
        "guard/nothing/decision", {}, principal=home.principal(), enforcement=Enforcement.COOPERATIVE
    )
    assert main(["policy", "why", decision.decision_id]) == 0
    out = capsys.readouterr().out
    assert "undecidable" in out
    assert "policy_unavailable" in out


def test_why_of_an_unknown_decision_is_the_users_mistake(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    assert main(["policy", "why", "dec-nothing"]) == 2
    assert "no decision 'dec-nothing' on record" in capsys.readouterr().err


@pytest.mark.opa
def test_serve_opa_serves_the_policies_in_force_to_the_token_alone(
    opa: str,
    capsys: pytest.CaptureFixture[str],
    home_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("TRAINGUARD_OPA", opa)
    monkeypatch.setenv("TRAINGUARD_POLICY_SERVER_URL", url)
    monkeypatch.setenv("TRAINGUARD_POLICY_SERVER_TOKEN_FILE", str(token))
    assert main(["policy", "serve-opa", "--print"]) == 0
    command = shlex.split(capsys.readouterr().out)
    assert "s3cret" not in " ".join(command)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"{url}/health?bundles", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            allowed = ServerEngine(url, token="s3cret", deadline_s=10.0)
            answer = allowed.evaluate("guard/dataset/use/decision", {})
            assert answer.revision == load_bundle(shipped_policies()).revision
            assert answer.value["allow"] is False
            refused = ServerEngine(url, token="guess", deadline_s=10.0).evaluate(
                "guard/dataset/use/decision", {}
            )
            assert "401" in (refused.error or "")
            secret = urllib.request.Request(
                f"{url}/v1/data/system", headers={"Authorization": "Bearer s3cret"}
            )
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(secret, timeout=5)
        finally:
            server.kill()


def test_serve_opa_does_not_open_an_unprotected_server_to_the_network(
    capsys: pytest.CaptureFixture[str], home_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "opa"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("TRAINGUARD_OPA", str(program))
    monkeypatch.setenv("TRAINGUARD_POLICY_SERVER_URL", "http://0.0.0.0:8181")
    assert main(["policy", "serve-opa", "--print"]) == 2
    assert "server_token_file" in capsys.readouterr().err


def test_make_engine_uses_the_engine_that_is_configured_and_no_other(home_dir: Path) -> None:
    assert isinstance(make_engine(load_settings(home=home_dir)), EmbeddedEngine)
    server = make_engine(
        load_settings(home=home_dir, policy={"engine": "server", "server_url": "http://127.0.0.1:1"})
    )
    assert isinstance(server, ServerEngine)
    assert server.evaluate("guard/dataset/use/decision", {}).error
