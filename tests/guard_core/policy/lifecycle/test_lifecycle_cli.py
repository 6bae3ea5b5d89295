"""The commands as a person types them: what they print, where, and their exit status."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from guard_core.cli import main
from guard_core.findings import Enforcement
from guard_core.home import Home


@pytest.fixture
def strict(candidate: Path) -> Path:
    """A candidate that refuses datasets with warnings."""
    file = candidate / "data" / "thresholds.yaml"
    value = yaml.safe_load(file.read_text())
    value["tiers"]["basic"]["use"]["warn_verdict"] = "deny"
    file.write_text(yaml.safe_dump(value))
    return candidate


def decide(home: Home, verdict: str = "warn") -> str:
    fact = {
        "ref": "acme/<b>digits@1", "exists": True, "tenant": "acme", "name": "<b>digits", "version": 1,
        "verdict": verdict, "signed": True, "record_ok": True, "shared_with": [], "tampered": False,
    }  # fmt: skip
    return home.decide(
        "guard/dataset/use/decision",
        {"dataset": fact, "purpose": "train", "workload": None},
        principal=home.principal(tenant="acme"),
        enforcement=Enforcement.ENFORCED,
    ).decision_id


@pytest.fixture
def owner(home: Home, keys: Path) -> Home:
    """A home with real time, three recorded decisions, and the tests' signing key."""
    import shutil

    shutil.copytree(keys, home.path("keys", "policy"))
    for verdict in ("warn", "warn", "allow"):
        decide(home, verdict)
    return home


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["policy", *args])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_replay_prints_what_would_change_and_changes_nothing(
    owner: Home, strict: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "replay", "--candidate", str(strict))
    assert (code, err) == (0, "")
    assert re.search(r"allow->deny +2 +66\.67 %", out)
    assert "[dataset-warned]  2 decisions" in out
    assert not owner.path("policy").exists()


def test_replay_as_json_has_the_documented_shape(
    owner: Home, strict: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "replay", "--candidate", str(strict), "--format", "json", "--since", "1h")
    found = json.loads(out)
    assert code == 0
    assert {k: found[k] for k in ("decisions", "distinct", "classes", "allows")} == {
        "decisions": 3, "distinct": 2, "classes": {"allow->deny": 2, "unchanged": 1}, "allows": 3,
    }  # fmt: skip
    assert set(found["changes"][0]) == {
        "class", "tenant", "path", "rules", "count", "gpu_hours", "message", "examples",
    }  # fmt: skip


def test_the_replay_page_is_one_safe_file_in_two_languages(
    owner: Home, strict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out" / "replay.html"
    args = ("replay", "--candidate", str(strict), "--format", "html", "--output", str(page))
    code, out, err = run(capsys, *args)
    assert (code, out) == (0, "")
    assert err == f"wrote {page}\n"
    text = page.read_text()
    assert "default-src &#39;none&#39;" in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    assert "<b>digits" not in text, "a dataset's name is text, not markup"
    assert "&lt;b&gt;digits" in text
    assert "策略变更的影响回放" in text
    assert 'class="stacked"' in text
    assert "allow-&gt;deny" in text
    assert '<span class="chip critical">' in text, "a new denial is red in the table,"
    painted = re.findall(r'<rect class="((?:mark|series)[^"]*)"', text)
    assert painted == ["mark critical", "series7"] * 2, "and in the bar and its legend"


@pytest.mark.parametrize(("fail_on", "code"), [("never", 0), ("error", 0), ("deny", 1), ("change", 1)])
def test_replay_fails_a_pipeline_when_asked_to(
    owner: Home, strict: Path, capsys: pytest.CaptureFixture[str], fail_on: str, code: int
) -> None:
    assert run(capsys, "replay", "--candidate", str(strict), "--fail-on", fail_on)[0] == code


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("replay", "--since", "yesterday"), "nothing is staged"),
        (("replay", "--since", "monday", "--candidate", "CANDIDATE"), "'monday' is neither a time ago"),
        (("replay", "--candidate", "/nowhere"), "/nowhere cannot be read"),
        (("stage", "warn"), "nothing is staged"),
        (("stage", "warn", "--tenants", "acm"), "--tenants: there is no tenant 'acm' in data/tenants.yaml"),
        (("unstage",), "nothing is staged"),
        (("approve",), "nothing is staged"),
        (("promote",), "nothing is staged"),
        (("rollback",), "no earlier bundle"),
        (("break-glass", "--reason", "a good long reason", "--ttl", "soon"), "--ttl 'soon' is not a time"),
        (("break-glass", "--reason", "a good long reason", "--ttl", "1h"), "name what to put in force"),
        (("review", "em-1", "--verdict", "justified", "--note", "x"), "no emergency 'em-1' awaits"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_exit_status_2(
    owner: Home, strict: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], said: str
) -> None:
    code, out, err = run(capsys, *(str(strict) if a == "CANDIDATE" else a for a in args))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_change_from_the_command_line_needs_two_people(
    owner: Home, strict: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, "stage", "shadow", "--candidate", str(strict))
    assert code == 0
    assert re.match(r"chg-\S+ in shadow for all tenants: sha256:[0-9a-f]{64} \(bundle 2\)\n", out)
    trial = ("--min-allows", "3", "--p99-ms", "1000")
    code, out, err = run(capsys, "promote", *trial)
    assert (code, out) == (1, "")
    assert "2 recorded allows would be refused, most by dataset-warned" in err
    code, _, err = run(capsys, "promote", *trial, "--expect", "dataset-warned")
    assert code == 1
    assert "nobody but its author" in err
    assert run(capsys, "approve")[0] == 1
    bob = owner.credentials.issue(tenant="local", user="bob", roles=("policy-approver",))
    monkeypatch.setenv("TRAINGUARD_TOKEN", bob)
    assert run(capsys, "approve")[0] == 0
    monkeypatch.delenv("TRAINGUARD_TOKEN")
    code, out, _ = run(capsys, "promote", *trial, "--expect", "dataset-warned")
    assert code == 0
    assert out.startswith("in force: sha256:")
    code, out, _ = run(capsys, "status")
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()][:2] == [
        ["in", "force", "bundle", "2"],
        ["before", "bundle", "1", out.splitlines()[1].split()[3]],
    ]
    decision = owner.decision_record(decide(owner))
    assert decision is not None
    assert decision["result"]["allow"] is False
    assert run(capsys, "rollback")[0] == 0
    again = owner.decision_record(decide(owner))
    assert again is not None
    assert again["result"]["allow"] is True


def test_status_without_a_store_says_whose_policies_are_in_force(
    owner: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "status")[1].endswith("(the shipped policies; no policy store)\n")
    assert json.loads(run(capsys, "status", "--format", "json")[1])["store"] is False


@pytest.mark.opa
def test_bundle_writes_what_opa_serves_with_the_key_it_names(
    owner: Home,
    opa_server: Callable[..., object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "bundle.tar.gz"
    code, out, _ = run(capsys, "bundle", "--output", str(target))
    assert code == 0
    key = out.split("verify with ")[1].strip()
    opa_server(target, "--verification-key", key)


def test_only_a_platform_admin_signs_bundles(
    owner: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINGUARD_TOKEN", owner.credentials.issue(tenant="acme", user="eve"))
    code, _, err = run(capsys, "bundle", "--output", str(tmp_path / "b.tar.gz"))
    assert code == 1
    assert "only a platform admin" in err
    assert not (tmp_path / "b.tar.gz").exists()
