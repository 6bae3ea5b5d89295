"""Real Great Expectations on blocks: counts add up, rows are named, no value leaves."""

import json

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.quality.expectations import CHECK, Expectations
from guard_core.errors import UserError
from guard_core.findings import Severity

pytest.importorskip("great_expectations")


def suite(*expectations):
    return Expectations(suite={"name": "s", "expectations": list(expectations)})


def expect(kind, severity=None, **kwargs):
    entry = {"type": f"expect_{kind}", "kwargs": kwargs}
    return {**entry, "severity": severity} if severity else entry


def details(result):
    return result.checks[0]["details"]


def test_a_first_version_is_checked_with_the_least_suite():
    result = scan(pa.table({"a": [1, 2], "label": ["x", "y"]}), CHECK, label="label")
    assert rules(result) == []
    assert details(result)["meta"]["suite"] == "minimal"
    assert details(result)["statistics"]["successful_expectations"] == 4


def test_a_label_of_one_class_does_not_pass_the_least_suite():
    result = scan(pa.table({"a": [1, 2], "label": ["x", "x"]}), CHECK, label="label")
    assert only(result, "QUAL001").columns == ("label",)


def test_unexpected_rows_are_numbered_over_all_blocks():
    values = np.zeros(200_000)
    bad = [5, 65_535, 65_536, 131_073, 199_999]
    values[bad] = 7.0
    result = scan(
        pa.table({"x": values}), suite(expect("column_values_to_be_between", column="x", max_value=1))
    )
    finding = only(result, "QUAL001")
    assert list(finding.rows) == bad
    assert finding.severity is Severity.WARNING
    (said,) = finding.evidence["results"]
    assert said["result"]["element_count"] == 200_000
    assert said["result"]["unexpected_count"] == 5


def test_mostly_is_judged_over_the_whole_set_not_per_block():
    values = np.zeros(100_000)
    values[:900] = 7.0  # 1.4 % of the first block, 0.9 % of all

    def found(mostly):
        check = suite(expect("column_values_to_be_between", column="x", max_value=1, mostly=mostly))
        return rules(scan(pa.table({"x": values}), check))

    assert found(0.99) == []
    assert found(0.992) == ["QUAL001"]


def test_counts_equal_those_of_great_expectations_on_the_whole_frame():
    import great_expectations as gx
    import pandas as pd

    random = np.random.default_rng(3)
    rows = 150_000
    table = pa.table(
        {
            "x": pa.array(random.normal(size=rows), mask=random.random(rows) < 0.01),
            "y": random.normal(size=rows),
            "t": pa.array(random.choice(["ab", "abc", "b", None], rows).tolist()),
            "d": pa.array(random.choice(["u", "v"], rows).tolist()).dictionary_encode(),
        }
    )
    entries = [
        expect("column_values_to_be_between", column="x", min_value=-2, max_value=2, mostly=0.95),
        expect("column_values_to_not_be_null", column="x", mostly=0.98),
        expect("column_values_to_be_null", column="t", mostly=0.2),
        expect("column_values_to_match_regex", column="t", regex="^a", mostly=0.6),
        expect("column_value_lengths_to_be_between", column="t", min_value=2),
        expect("column_values_to_be_in_set", column="d", value_set=["u"], mostly=0.4),
        expect("column_pair_values_a_to_be_greater_than_b", column_A="x", column_B="y", mostly=0.5),
        expect("column_values_to_be_unique", column="y"),
        expect("column_mean_to_be_between", column="x", min_value=-0.1, max_value=0.1),
        expect("column_unique_value_count_to_be_between", column="t", max_value=2),
        expect("column_max_to_be_between", column="y", max_value=1),
        expect("table_row_count_to_equal", value=rows),
    ]
    ours = {r["expectation_config"]["type"]: r for r in details(scan(table, suite(*entries)))["results"]}
    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("a")
    batch = asset.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": table.to_pandas()})
    theirs = batch.validate(gx.ExpectationSuite(name="s", expectations=[
        gx.expectations.registry.get_expectation_impl(e["type"])(**e["kwargs"]) for e in entries
    ]))  # fmt: skip
    assert len(theirs.results) == len(entries)
    assert isinstance(batch.data.dataframe, pd.DataFrame)
    for result in theirs.results:
        mine = ours[result.expectation_config.type]
        assert mine["success"] == result.success, result.expectation_config.type
        if "element_count" in result.result:
            assert mine["result"]["unexpected_count"] == result.result["unexpected_count"]


def test_a_missing_column_and_a_wrong_type_are_critical():
    check = suite(
        expect("column_values_to_be_between", column="gone", min_value=0, severity="info"),
        expect("column_values_to_be_of_type", column="t", type_="int"),
    )
    finding = only(scan(pa.table({"t": ["a"]}), check), "QUAL002")
    assert finding.columns == ("gone", "t")
    assert finding.severity is Severity.CRITICAL


@pytest.mark.parametrize("name", ["float", "float64"])
def test_a_type_may_be_named_as_python_or_numpy_name_it(name):
    check = suite(expect("column_values_to_be_of_type", column="x", type_=name))
    assert rules(scan(pa.table({"x": [1.0]}), check)) == []


def test_the_severity_of_the_suite_is_the_severity_of_the_finding():
    table = pa.table({"x": [5]})
    for severity in Severity:
        check = suite(expect("column_values_to_be_between", severity, column="x", max_value=1))
        assert only(scan(table, check), "QUAL001").severity is severity


def test_an_object_of_great_expectations_is_a_suite_too():
    import great_expectations as gx

    given = gx.ExpectationSuite(
        name="s",
        expectations=[
            gx.expectations.ExpectColumnValuesToBeBetween(column="x", max_value=1),
            gx.expectations.ExpectColumnValuesToNotBeNull(column="y", severity="critical"),
        ],
    )
    result = scan(pa.table({"x": [5], "y": pa.array([None], pa.int64())}), Expectations(suite=given))
    assert [f.severity for f in result.findings] == [Severity.CRITICAL, Severity.WARNING]


def test_no_value_of_the_data_is_in_findings_or_details():
    canary, number = "canary-7f3a", 918273645.5
    table = pa.table({"t": ["ok", canary, canary], "x": [1.0, 2.0, number], "u": ["a", "b", canary]})
    check = suite(
        expect("column_values_to_be_in_set", column="t", value_set=["ok"]),
        expect("column_values_to_be_between", column="x", max_value=3),
        expect("column_values_to_be_unique", column="t"),
        expect("column_most_common_value_to_be_in_set", column="t", value_set=["ok"]),
        expect("column_distinct_values_to_be_in_set", column="u", value_set=["a", "b"]),
        expect("column_max_to_be_between", column="x", max_value=3),
        expect("column_sum_to_be_between", column="x", max_value=3),
        expect("column_values_to_be_between", column="u", max_value=3),  # text against a number: raises
    )
    result = scan(table, check)
    said = json.dumps([[f.to_json() for f in result.findings], list(result.checks)], default=str)
    assert canary not in said
    assert "918273645" not in said
    assert {"QUAL001", "QUAL004"} <= set(rules(result))


def test_values_of_the_trusted_version_are_not_told_either():
    trusted = Registered("acme/set@1", pa.table({"x": [0.0, 918273645.5] * 20}))
    result = scan(pa.table({"x": [9e12] * 9}), CHECK, baseline=trusted)
    said = json.dumps([[f.to_json() for f in result.findings], list(result.checks)], default=str)
    assert rules(result) == ["QUAL001"]
    assert "918273645" not in said
    assert "9000000000000" not in said


def test_an_update_like_the_trusted_version_meets_what_was_derived_from_it():
    random = np.random.default_rng(1)

    def table(rows):
        return pa.table(
            {"x": random.normal(size=rows), "t": ["a", "b"] * (rows // 2), "label": [0, 1] * (rows // 2)}
        )

    result = scan(table(2000), CHECK, label="label", baseline=Registered("acme/set@1", table(2000), "label"))
    assert rules(result) == []
    assert details(result)["meta"]["suite"] == "derived"


def test_a_lost_column_a_new_class_and_new_nulls_break_the_derived_suite():
    before = pa.table({"x": [1.0, 2.0] * 50, "gone": [1.0, 2.0] * 50, "label": [0, 1] * 50})
    after = pa.table({"x": pa.array([None, 2.0] * 50), "label": [0, 2, 1, 1] * 25})
    result = scan(after, CHECK, label="label", baseline=Registered("acme/set@1", before, "label"))
    assert only(result, "QUAL002").columns == ("gone",)
    assert {f.columns for f in result.findings if f.rule_id == "QUAL001"} == {("x",), ("label",)}


def test_what_does_not_fit_the_budget_of_great_expectations_is_said_not_passed_over():
    entry = expect("column_value_z_scores_to_be_less_than", column="x", threshold=9, double_sided=True)
    check = Expectations(suite={"expectations": [entry]}, whole_rows=1000)
    result = scan(pa.table({"x": range(1001)}), check)
    finding = only(result, "QUAL004")
    assert "1,001 rows" in finding.message
    assert finding.severity is Severity.WARNING
    assert details(result)["success"] is False


def test_what_does_not_fit_the_budget_of_compiled_rules_is_said_too():
    entries = [
        expect("column_values_to_be_unique", column="x"),
        expect("column_max_to_be_between", column="x", max_value=2000),
    ]
    check = Expectations(suite={"expectations": entries}, column_bytes=8_000)
    result = scan(pa.table({"x": range(1001)}), check)
    assert "1,001 rows need more than the budget of 8,000 bytes" in only(result, "QUAL004").message
    assert [r["success"] for r in details(result)["results"]] == [False, True]


def test_only_what_is_not_compiled_is_left_to_great_expectations():
    check = suite(
        expect("column_values_to_be_between", column="x", min_value=0),
        expect("column_values_to_be_between", column="x", min_value=0, row_condition="x > 1"),
        expect("column_values_to_match_regex", column="t", regex="^a"),
        expect("column_values_to_match_strftime_format", column="t", strftime_format="%Y"),
    )
    found = details(scan(pa.table({"x": [1, 2], "t": ["a", "a"]}), check))["results"]
    engines = {(r["expectation_config"]["type"], r["meta"]["engine"]) for r in found}
    assert engines == {
        ("expect_column_values_to_be_between", "trainguard"),
        ("expect_column_values_to_be_between", "great_expectations"),
        ("expect_column_values_to_match_regex", "trainguard"),
        ("expect_column_values_to_match_strftime_format", "great_expectations"),
    }


def test_without_great_expectations_the_compiled_part_still_speaks(monkeypatch):
    monkeypatch.setattr("dataset_guard.checks.quality.gx_engine.installed", lambda: False)
    check = suite(
        expect("column_values_to_be_between", column="x", min_value=2),
        expect("column_values_to_match_strftime_format", column="t", strftime_format="%Y"),
    )
    result = scan(pa.table({"x": [1, 2], "t": ["a", "a"]}), check)
    assert rules(result) == ["QUAL001", "QUAL004"]
    assert "trainguard[gx]" in only(result, "QUAL004").message


def test_what_needs_a_database_or_a_parameter_is_said():
    check = suite(
        {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": "SELECT * FROM {batch}"}},
        expect("column_values_to_be_between", column="x", max_value={"$PARAMETER": "limit"}),
    )
    message = only(scan(pa.table({"x": [1]}), check), "QUAL004").message
    assert "database" in message
    assert "suite parameter" in message


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (expect("nonsense", column="x"), "not known to Great Expectations"),
        (expect("column_values_to_be_between", column="x"), "cannot both be None"),
        (
            expect("column_values_to_be_between", column="x", max_value=1, most=1),
            "extra fields not permitted",
        ),
    ],
)
def test_an_expectation_that_is_none_is_the_users_mistake(entry, words):
    with pytest.raises(UserError, match=words):
        scan(pa.table({"x": [1]}), suite(entry))


def test_states_of_parts_merge_to_the_whole():
    random = np.random.default_rng(5)
    table = pa.table({"x": random.normal(size=3000), "k": random.integers(0, 900, 3000)})
    check = suite(
        expect("column_values_to_be_between", column="x", max_value=2),
        expect("column_values_to_be_unique", column="k"),
        expect("column_unique_value_count_to_be_between", column="k", max_value=10),
        expect("table_row_count_to_equal", value=3000),
        expect("table_columns_to_match_ordered_list", column_list=["x", "k"]),
    )
    context = CheckContext(schema=table.schema)
    states = []
    for start in (0, 1000, 2000):
        state = check.start(context)
        state.update(table.slice(start, 1000).to_batches()[0], start, None, None)
        states.append(state)
    states[2].merge(states[0])
    states[2].merge(states[1])
    merged = sorted(states[2].finish(), key=lambda f: (f.rule_id, f.columns))
    whole = sorted(scan(table, check).findings, key=lambda f: (f.rule_id, f.columns))
    assert [(f.rule_id, f.columns, f.rows, f.evidence) for f in merged] == [
        (f.rule_id, f.columns, f.rows, f.evidence) for f in whole
    ]
    assert len(merged) == 3


def test_a_process_that_has_its_own_context_keeps_it():
    import great_expectations as gx
    from great_expectations.data_context.data_context.context_factory import project_manager

    own = gx.get_context(mode="ephemeral")
    scan(pa.table({"x": [1, 2]}), CHECK)
    assert project_manager.get_expectations_store() is own.expectations_store
