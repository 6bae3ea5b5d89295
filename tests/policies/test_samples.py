"""The samples beside each policy are its documentation, and each one's expected verdict is true."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from guard_core.errors import UserError
from guard_core.policy.bundle import load_bundle, shipped_policies
from guard_core.policy.metadata import instead_of, package_notes
from guard_core.policy.rego_ast import parse
from guard_core.policy.samples import Sample, read_samples, run_samples

SAMPLES = read_samples(shipped_policies())
DECISIONS = sorted(p for p in shipped_policies().glob("guard/**/*.rego") if "\ndecision :=" in p.read_text())


@pytest.fixture(scope="module")
def problems() -> dict[str, str]:
    bundle = load_bundle(shipped_policies())
    return {result.sample.name: result.problem for result in run_samples(bundle, shipped_policies())}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_the_sample_is_decided_as_it_says(problems: dict[str, str], sample: Sample) -> None:
    assert problems[sample.name] == ""


@pytest.mark.parametrize("rego", DECISIONS, ids=lambda p: p.stem)
def test_every_decision_has_samples_of_both_kinds(rego: Path) -> None:
    assert {s.expect["allow"] for s in SAMPLES if s.file.parent.parent == rego.parent} == {True, False}


def test_every_rule_that_refuses_in_a_sample_says_what_would_have_been_allowed() -> None:
    instead = instead_of(package_notes(load_bundle(shipped_policies()).modules))
    fired = {rule for s in SAMPLES for kind in ("deny", "hold") for rule in s.expect.get(kind, ())}
    assert fired <= set(instead)


def test_where_two_policies_name_a_rule_alike_the_one_that_decided_has_the_word() -> None:
    notes = package_notes(load_bundle(shipped_policies()).modules)
    said = {
        path: instead_of(notes, path=f"guard/{path}/decision")["approvals-missing"]
        for path in ("dataset/share", "response/action", "policy/change")
    }
    assert said == {
        "dataset/share": "have others of your tenant approve it: trainguard dataset approve",
        "response/action": "have others approve it: trainguard response approve",
        "policy/change": "have someone other than the author and yourself approve it: "
        "trainguard policy approve",
    }


def test_every_policy_says_what_it_is_for_and_which_article_it_serves() -> None:
    modules = load_bundle(shipped_policies()).modules
    notes = package_notes(modules)
    assert {n.file for n in notes} == set(modules)
    assert all(n.title and n.description and n.article in {"4", "5"} for n in notes)


def test_every_rule_is_annotated_where_it_stands() -> None:
    modules = load_bundle(shipped_policies()).modules
    told = {note.file: set(note.instead) for note in package_notes(modules)}
    for file, text in modules.items():
        rules = set(re.findall(r'"rule": "([a-z0-9-]+)"', text)) - {"undecided"}
        assert rules <= told[file], file


def test_every_rule_says_what_it_is_about_and_which_article_it_serves() -> None:
    """Each definition that gives reasons, and every other rule where it is first defined."""
    for file, text in load_bundle(shipped_policies()).modules.items():
        lines = text.splitlines()
        seen: set[str] = set()
        for rule in parse(file, text).rules:
            if rule.kind == "default" or (rule.kind != "set" and rule.name in seen):
                continue
            seen.add(rule.name)
            above = list(takewhile(lambda line: line.startswith("#"), reversed(lines[: rule.place[0] - 1])))
            block = "\n".join(line[2:] for line in reversed(above)).rpartition("METADATA\n")[2]
            notes = yaml.safe_load(block)
            where = f"{file}:{rule.place[0]} {rule.name}"
            assert {"title", "description", "custom"} <= set(notes or ()), where
            assert notes["title"] and notes["description"], where
            assert notes["custom"]["article"] in {4, 5}, where


def test_a_sample_that_is_wrong_says_what_it_got(tmp_path: Path) -> None:
    folder = tmp_path / "guard" / "dataset" / "use" / "samples"
    folder.mkdir(parents=True)
    good = next(s for s in SAMPLES if s.name == "dataset/use/deny_foreign")
    text = good.file.read_text()
    (folder / "wrong.yaml").write_text(text.replace("allow: false", "allow: true"))
    (result,) = run_samples(load_bundle(shipped_policies()), tmp_path)
    assert result.problem == "allow is False, expected True"
    (folder / "wrong.yaml").write_text(text.replace("title:", "titel:"))
    with pytest.raises(UserError, match="a sample needs title"):
        read_samples(tmp_path)
