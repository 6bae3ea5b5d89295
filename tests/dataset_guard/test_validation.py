"""Suites as contracts: validate a file or a version, suggest a suite, and what the page and the JSON hold."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.commands.text import validation_text
from dataset_guard.registration.register import register
from guard_core.cli import main
from guard_core.errors import Denied, Tampered, UserError

ROWS = 400


def suite(*expectations):
    return {"name": "contract", "expectations": [{"type": t, "kwargs": k} for t, k in expectations]}


CONTRACT = suite(
    ("expect_column_values_to_be_unique", {"column": "id"}),
    ("expect_column_values_to_be_between", {"column": "x", "min_value": -9, "max_value": 9}),
    ("expect_column_values_to_be_in_set", {"column": "kind", "value_set": ["a", "b"]}),
    ("expect_table_row_count_to_be_between", {"min_value": 1}),
)


def table(rows=ROWS):
    rng = np.random.default_rng(2)
    return pa.table(
        {
            "id": np.arange(rows),
            "x": rng.normal(size=rows),
            "kind": pa.array(["a", "b"] * (rows // 2)),
            "note": pa.array([f"secret-{i % 7}" for i in range(rows)]),
            "label": rng.integers(0, 2, rows),
        }
    )


def broken():
    data = table().to_pydict()
    data["x"][3], data["kind"][5], data["kind"][6] = 918273.5, "canary-7f3a", "canary-7f3a"
    return pa.table(data)


@pytest.fixture
def version(home, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(table(), path)
    register(path, name="t", tenant="acme", label="label", split="train", home=home, checks=[])
    return path


def test_data_that_keeps_the_contract_is_told_so():
    found = dataset_guard.validate(table(), CONTRACT)
    assert found.success
    assert found.findings == ()
    assert repr(found) == "<Validation of Table: 4 of 4 expectations met, 400 rows>"


def test_what_breaks_it_is_told_by_row():
    found = dataset_guard.validate(broken(), CONTRACT)
    assert not found.success
    failed = {
        r["expectation_config"]["kwargs"]["column"]: list(rows)
        for r, rows in zip(found.result["results"], found.unexpected_rows, strict=True)
        if not r["success"]
    }
    assert failed == {"x": [3], "kind": [5, 6]}


def test_neither_json_nor_page_nor_notebook_holds_a_value_or_a_constant():
    found = dataset_guard.validate(broken(), CONTRACT)
    for text in (json.dumps(found.to_json()), found.to_html(), found._repr_html_()):
        assert "canary" not in text
        assert "918273" not in text
        assert "value_set" not in text


def test_the_page_is_self_contained_and_in_both_languages():
    page = dataset_guard.validate(broken(), CONTRACT).to_html(lang="zh")
    assert "default-src &#39;none&#39;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "部分期望未满足" in page
    assert "2 of 4 expectations of this suite hold" in page
    assert "5–6" in page


def test_what_an_aggregate_saw_is_told_where_that_is_a_count():
    found = dataset_guard.validate(table(), suite(("expect_table_row_count_to_be_between", {"max_value": 9})))
    assert f"observed: {ROWS}" in validation_text(found)
    assert f"observed: {ROWS}" in found.to_html()


def test_the_result_is_one_that_great_expectations_loads():
    pytest.importorskip("great_expectations")
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResultSchema,
        ExpectationValidationResultSchema,
    )

    said = json.loads(json.dumps(dataset_guard.validate(broken(), CONTRACT).to_json()))
    loaded = ExpectationSuiteValidationResultSchema().load(said)
    assert loaded["suite_name"] == "contract"
    assert loaded["statistics"]["unsuccessful_expectations"] == 2
    one = ExpectationValidationResultSchema().load(said["results"][0])
    assert one["result"]["unexpected_count"] == 1


def test_a_registered_version_is_validated_through_the_verified_reader(version, home):
    found = dataset_guard.validate("acme/t@1", CONTRACT, home=home)
    assert found.success
    assert found.name == "acme/t@1"
    assert found.fingerprint.startswith("dg1:")
    [event] = home.audit.records(kind="dataset.read")
    assert event["data"]["purpose"] == "inspect"
    assert event["data"]["complete"] is True
    pq.write_table(broken(), version)
    with pytest.raises(Tampered):
        dataset_guard.validate("acme/t@1", CONTRACT, home=home)


def test_the_suggested_suite_is_met_by_its_version_and_by_one_like_it(version, home):
    suggested = dataset_guard.suggest_suite("acme/t@1", home=home)
    assert dataset_guard.validate("acme/t@1", suggested, home=home).success
    assert dataset_guard.validate(table(100), suggested).success
    broken_by = dataset_guard.validate(broken(), suggested)
    assert [f.columns[0] for f in broken_by.findings] == ["x"] or broken_by.success
    types = {(e["type"], e["kwargs"].get("column")) for e in suggested["expectations"]}
    assert ("expect_column_values_to_be_unique", "id") in types
    assert ("expect_column_value_lengths_to_be_between", "note") in types


def test_values_are_suggested_only_when_asked_for(version, home):
    quiet = json.dumps(dataset_guard.suggest_suite("acme/t@1", home=home))
    assert "secret-3" not in quiet
    suggested = dataset_guard.suggest_suite("acme/t@1", values=True, home=home)
    sets = {
        e["kwargs"]["column"]: e["kwargs"]["value_set"]
        for e in suggested["expectations"]
        if "value_set" in e["kwargs"]
    }
    assert sets == {"kind": ["a", "b"], "note": [f"secret-{i}" for i in range(7)], "label": [0, 1]}
    assert dataset_guard.validate("acme/t@1", suggested, home=home).success
    assert not dataset_guard.validate(broken(), suggested).success


def test_great_expectations_loads_the_suggested_suite_and_agrees(version, home):
    gx = pytest.importorskip("great_expectations")
    suggested = dataset_guard.suggest_suite("acme/t@1", values=True, home=home)
    context = gx.get_context(mode="ephemeral")
    loaded = context.suites.add(gx.ExpectationSuite(**suggested))
    assert len(loaded.expectations) == len(suggested["expectations"])
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("a")
    batch = asset.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": table().to_pandas()})
    assert batch.validate(loaded).success


def test_another_tenants_version_is_not_validated(version, home, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="beta", user="lin"))
    with pytest.raises(Denied):
        dataset_guard.validate("acme/t@1", CONTRACT)


def test_the_commands_do_the_same(version, home_dir, home, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["dataset", "suggest-suite", "acme/t@1", "--out", "suite.json"]) == 0
    assert main(["dataset", "validate", "acme/t@1", "--suite", "suite.json"]) == 0
    pq.write_table(broken(), "new.parquet")
    (tmp_path / "contract.json").write_text(json.dumps(CONTRACT))
    capsys.readouterr()
    status = main(["dataset", "validate", "new.parquet", "--suite", "contract.json", "--docs", "page.html"])
    out, _ = capsys.readouterr()
    assert status == 1
    assert "NOT MET  2 of 4 expectations" in out
    assert "expect_column_values_to_be_in_set  kind" in out
    assert "rows 5–6" in out
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert main(["dataset", "validate", "new.parquet", "--suite", "contract.json", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["suite_name"] == "contract"
    assert main(["dataset", "validate", "new.parquet", "--suite", "gone.json"]) == 2


def test_what_is_no_suite_is_said_before_the_data_is_read():
    with pytest.raises(UserError, match="at least one"):
        dataset_guard.validate(table(), {"name": "empty", "expectations": []})
