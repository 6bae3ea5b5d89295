"""Suites as records: what is given, what a profile leads to expect, and the least of all."""

import json

import pyarrow as pa
import pytest
from check_kit import Registered

from dataset_guard.checks.quality.gx_suite import MOST_DERIVED, derived, given, minimal
from guard_core.errors import UserError
from guard_core.findings import Severity


def derive(table, label=None):
    return derived(Registered("acme/set@1", table, label).profile, label, slack=0.25, mostly=0.99)


def of(suite, kind, column):
    (found,) = [e for e in suite.expectations if e.type == kind and e.kwargs.get("column") == column]
    return found.kwargs


def test_a_suite_is_read_from_a_file_as_from_its_json(tmp_path):
    entry = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}, "severity": "info"}
    document = {"name": "s", "expectations": [entry]}
    path = tmp_path / "suite.json"
    path.write_text(json.dumps(document))
    assert given(path) == given(str(path)) == given(document)
    assert given(path).expectations[0].severity is Severity.INFO


def test_severity_is_the_expectations_own_then_its_metas_then_a_warning():
    def severity(**entry):
        return given({"expectations": [{"type": "t", **entry}]}).expectations[0].severity

    assert severity(severity="critical", meta={"severity": "info"}) is Severity.CRITICAL
    assert severity(meta={"severity": "info"}) is Severity.INFO
    assert severity() is Severity.WARNING


def test_the_old_key_of_the_type_is_understood():
    assert given({"expectations": [{"expectation_type": "t"}]}).expectations[0].type == "t"


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("nowhere.json", "cannot be read"),
        ({"expectations": []}, "at least one"),
        ({"name": "s"}, "at least one"),
        ({"expectations": [{"kwargs": {}}]}, 'expectation 0 has no "type"'),
        ({"expectations": [{"type": "t", "severity": "fatal"}]}, "info, warning, critical"),
        ({"expectations": [{"type": "t", "kwargs": [1]}]}, "not an object"),
    ],
)
def test_what_is_no_suite_is_refused_in_one_sentence(suite, words):
    with pytest.raises(UserError, match=words):
        given(suite)


def test_a_file_that_is_not_json_is_refused_with_its_name(tmp_path):
    path = tmp_path / "suite.json"
    path.write_text("expectations: [")
    with pytest.raises(UserError, match=r"suite\.json is not JSON"):
        given(path)


def test_a_profile_leads_to_types_nulls_ranges_and_the_number_of_classes():
    table = pa.table(
        {
            "size": pa.array([0.0, 4.0] * 50),
            "kind": ["a", "b"] * 50,
            "sparse": pa.array([1.0, None] * 50),
            "label": ["x", "y"] * 50,
        }
    )
    suite = derive(table, "label")
    assert of(suite, "expect_column_values_to_be_of_type", "kind")["type_"] == "str"
    assert of(suite, "expect_column_values_to_not_be_null", "size")["mostly"] == 1.0
    between = of(suite, "expect_column_values_to_be_between", "size")
    assert (between["min_value"], between["max_value"]) == (-1.0, 5.0)
    assert of(suite, "expect_column_unique_value_count_to_be_between", "label")["max_value"] == 2
    assert not [e for e in suite.expectations if e.type.endswith("not_be_null") and e.columns == ("sparse",)]


def test_a_column_that_numbers_the_rows_has_no_range():
    kinds = {e.type for e in derive(pa.table({"id": range(1000)})).expectations}
    assert "expect_column_values_to_be_between" not in kinds


def test_a_wide_table_says_how_many_columns_were_left_out():
    suite = derive(pa.table({f"c{i}": [0.0] for i in range(MOST_DERIVED + 9)}))
    assert suite.note == "9 more columns were left out"


def test_the_constants_of_a_suite_are_not_shown():
    suite = derive(pa.table({"size": [12345.0, 67890.0] * 9}))
    assert "12345" not in str([e.config() for e in suite.expectations])


def test_the_least_suite_asks_for_rows_columns_and_two_classes():
    assert [e.type for e in minimal(["a", "label"], "label").expectations] == [
        "expect_table_row_count_to_be_between",
        "expect_table_columns_to_match_set",
        "expect_column_values_to_not_be_null",
        "expect_column_unique_value_count_to_be_between",
    ]
    assert len(minimal(["a"], None).expectations) == 2


def test_equal_suites_have_equal_digests():
    table = pa.table({"a": [1.0, 2.0]})
    assert derive(table).digest == derive(table).digest != minimal(["a"], None).digest
