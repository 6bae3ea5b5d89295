"""What MLflow is given fits MLflow: sizes, types it can parse, tags that add up."""

import json
from dataclasses import replace

import pytest

from dataset_guard.integrations.mlflow_fields import colspec, input_tags, mlflow_type, note, profile
from guard_core.findings import Verdict


def test_profile_values_are_short_enough_for_the_drawer(report):
    long = replace(
        report,
        name="n" * 200,
        decision_id="dec-019ab-" + "f" * 40,
        policy_revision="sha256:" + "0" * 64,
    )
    shown = profile(long)
    assert list(shown) == [
        "num_rows",
        "guard_verdict",
        "guard_version",
        "guard_findings",
        "guard_fingerprint",
        "guard_decision_id",
        "guard_policy_revision",
    ]
    assert all(len(str(value)) <= 45 for value in shown.values())


def test_profile_says_verdict_version_and_findings(report):
    shown = profile(report)
    assert shown["guard_verdict"] == "quarantine"
    assert shown["guard_version"] == "acme/digits@3"
    assert shown["guard_findings"] == "1 critical, 1 warning"
    assert shown["guard_fingerprint"] == "dg1:" + "5a" * 16


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bool", "boolean"),
        ("uint8", "integer"),
        ("int32", "integer"),
        ("uint32", "long"),
        ("int64", "long"),
        ("uint64", "any"),
        ("float16", "float"),
        ("float", "float"),
        ("float64", "double"),
        ("large_string", "string"),
        ("fixed_size_binary[16]", "binary"),
        ('timestamp[us, tz="UTC"]', "datetime"),
        ("date", "datetime"),
        ("decimal(10, 2)", "any"),
        ('struct<"a": int64>', "any"),
    ],
)
def test_logical_types_become_mlflow_types(kind, expected):
    assert mlflow_type(kind) == {"type": expected}


@pytest.mark.parametrize("kind", ["list<float32>", "list<item: float>", "fixed_size_list[64]<float32>"])
def test_lists_become_arrays(kind):
    assert mlflow_type(kind) == {"type": "array", "items": {"type": "float"}}


def test_mlflow_itself_can_read_the_schema(report):
    from mlflow.types import Schema

    every = replace(report, schema=(*report.schema, ("when", "date"), ("odd", "decimal(3, 1)")))
    schema = Schema.from_json(json.dumps(colspec(every)))
    assert schema.input_names() == ["pixel_1", "scan", "label", "when", "odd"]
    assert [c.required for c in schema.inputs] == [False, False, True, False, False]


def test_a_schema_too_large_for_mlflow_is_cut(report):
    wide = replace(report, schema=tuple((f"column_{i:06d}", "float64") for i in range(40_000)))
    kept = colspec(wide)
    assert 1_000 < len(kept) < 40_000
    assert len(json.dumps({"mlflow_colspec": kept})) < 1_048_575


def test_several_inputs_of_one_context_are_listed_with_the_worst_verdict(report):
    first = input_tags(report, "training", {})
    clean = replace(
        report, name="more", version=1, verdict=Verdict.ALLOW, fingerprint="dg1:" + "00" * 32, digest=""
    )
    both = input_tags(clean, "training", first)
    assert both["guard.dataset.training"] == "acme/digits@3, acme/more@1"
    assert both["guard.dataset.training.verdict"] == "quarantine"
    assert input_tags(clean, "training", both)["guard.dataset.training"] == "acme/digits@3, acme/more@1"


def test_names_cannot_become_markdown(report):
    text = note(replace(report, name="a`](javascript:x)"))
    assert "`acme/a'](javascript:x)@3`" in text
