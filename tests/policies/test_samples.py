"""The samples beside each policy are its documentation, and each one's expected verdict is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guard_core.policy.bundle import load_bundle, shipped_policies
from guard_core.policy.data_yaml import read_document
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.question import MAX_INPUT_INTEGER

SAMPLES = sorted(shipped_policies().glob("guard/**/samples/*.yaml"))
SETS = ("deny", "hold", "warn")


@pytest.fixture(scope="module")
def engine() -> EmbeddedEngine:
    return EmbeddedEngine(load_bundle(shipped_policies()))


def rule_path(sample: Path) -> str:
    return sample.parent.parent.relative_to(shipped_policies()).as_posix() + "/decision"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda p: f"{p.parent.parent.name}/{p.stem}")
def test_the_sample_is_decided_as_it_says(engine: EmbeddedEngine, sample: Path) -> None:
    document: dict[str, Any] = read_document(sample, max_integer=MAX_INPUT_INTEGER).value
    answer = engine.evaluate(rule_path(sample), document["input"])
    assert answer.error is None
    expected = document["expect"]
    said = {
        key: sorted(r["rule"] for r in answer.value.get(key, ())) if key in SETS else answer.value.get(key)
        for key in expected
    }
    assert said == {key: sorted(v) if key in SETS else v for key, v in expected.items()}
    for key in {"deny", "hold"} & set(answer.value) - set(expected):
        assert answer.value[key] == []


def test_every_decision_has_samples_of_both_kinds() -> None:
    for rego in sorted(shipped_policies().glob("guard/**/*.rego")):
        if "\ndecision :=" in rego.read_text() and "lib" not in rego.parts:
            allowed = [
                read_document(p, max_integer=MAX_INPUT_INTEGER).value["expect"]["allow"]
                for p in rego.parent.glob("samples/*.yaml")
            ]
            assert {True, False} <= set(allowed), f"{rego} lacks a sample that is allowed or one that is not"
