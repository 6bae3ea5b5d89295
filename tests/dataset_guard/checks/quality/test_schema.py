"""Empty columns, missing labels, and a schema that moved."""

import pyarrow as pa
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.quality.schema import CHECK
from guard_core.findings import Severity


def test_a_column_without_any_value_is_named():
    table = pa.table({"a": [1, 2], "b": pa.array([None, None], pa.int64()), "c": pa.nulls(2)})
    assert only(scan(table, CHECK), "QUAL010").columns == ("b", "c")


def test_rows_without_a_label_are_numbered_also_when_the_label_is_nan():
    table = pa.table({"a": [1] * 5, "label": pa.array([0.0, None, 1.0, float("nan"), 1.0])})
    finding = only(scan(table, CHECK, label="label"), "QUAL011")
    assert list(finding.rows) == [1, 3]
    assert finding.severity is Severity.WARNING


def test_a_set_that_is_labelled_in_part_is_no_critical_matter():
    table = pa.table({"a": [1, 2, 3], "label": pa.array([None, None, 1])})
    assert only(scan(table, CHECK, label="label"), "QUAL011").severity is Severity.WARNING


def test_a_set_without_any_label_is_critical():
    table = pa.table({"a": [1, 2], "label": pa.array([None, None], pa.int64())})
    assert only(scan(table, CHECK, label="label"), "QUAL011").severity is Severity.CRITICAL


def test_an_update_that_lost_most_of_its_labels_is_critical():
    table = pa.table({"a": [1, 2, 3], "label": pa.array([None, None, 1])})
    whole = pa.table({"a": [1, 2, 3], "label": [0, 1, 1]})
    trusted, alike = (Registered("acme/set@1", t, "label") for t in (whole, table))
    lost = only(scan(table, CHECK, label="label", baseline=trusted), "QUAL011")
    assert lost.severity is Severity.CRITICAL
    assert lost.evidence["share without a label in the trusted version"] == 0.0
    ever = only(scan(table, CHECK, label="label", baseline=alike), "QUAL011")
    assert ever.severity is Severity.WARNING


def test_a_type_that_changed_since_the_trusted_version_is_named():
    trusted = Registered("acme/set@1", pa.table({"a": [1], "b": ["x"]}))
    result = scan(pa.table({"a": ["1"], "b": pa.array(["x"], pa.large_string())}), CHECK, baseline=trusted)
    assert only(result, "QUAL012").columns == ("a",)


def test_lost_and_new_columns_are_named():
    trusted = Registered("acme/set@1", pa.table({"a": [1], "gone": [2]}))
    finding = only(scan(pa.table({"a": [1], "new": [2]}), CHECK, baseline=trusted), "QUAL013")
    assert finding.columns == ("gone", "new")


def test_an_orderly_table_gives_no_finding():
    table = pa.table({"a": [1, None], "label": ["x", "y"]})
    assert rules(scan(table, CHECK, label="label", baseline=Registered("acme/set@1", table, "label"))) == []
