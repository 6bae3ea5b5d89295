"""A column that knows the label is told, however it knows; columns that only help are not."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import rules, scan

from dataset_guard.checks.leakage.target_leakage import CHECK
from guard_core.findings import Severity

ROWS = 4_000


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def honest(rng):
    label = rng.integers(0, 2, ROWS)
    helps = label + rng.normal(0, 1.0, ROWS)
    return {"helps": helps, "noise": rng.normal(size=ROWS), "label": label}


def found(columns):
    return [f for f in scan(pa.table(columns), CHECK, label="label").findings if f.rule_id == "LEAK008"]


def test_columns_that_only_help_are_no_leak(rng):
    assert found(honest(rng)) == []


@pytest.mark.parametrize("form", ["number", "text", "noisy number"])
def test_a_column_that_is_the_label_in_other_words_is_a_warning_with_its_p_value(rng, form):
    columns = honest(rng)
    label = columns["label"]
    columns["copy"] = {
        "number": label * 7.5 + 3,
        "text": np.where(label == 1, "approved", "declined"),
        "noisy number": label + rng.uniform(0, 0.4, ROWS),
    }[form]
    (finding,) = found(columns)
    assert (finding.columns, finding.severity) == (("copy",), Severity.WARNING)
    assert finding.score >= 0.95
    assert finding.evidence["p_value"] == 0.01


def test_being_filled_in_may_tell_the_label(rng):
    columns = honest(rng)
    unknown = (columns["label"] == 0) & (rng.random(ROWS) < 0.97)
    columns["closed_on"] = pa.array(rng.normal(size=ROWS), mask=unknown)
    (finding,) = found(columns)
    assert finding.columns == ("closed_on",)
    assert finding.evidence["kind"] == "missing"


def test_the_order_of_two_times_may_tell_the_label(rng):
    columns = honest(rng)
    opened = rng.integers(10**15, 2 * 10**15, ROWS)
    updated = opened + np.where(columns["label"] == 1, 1, -1) * rng.integers(10**6, 10**9, ROWS)
    for name, ticks in (("opened", opened), ("updated", updated)):
        columns[name] = pa.array(ticks, pa.timestamp("us"))
    (finding,) = found(columns)
    assert finding.columns == ("opened", "updated")
    assert finding.evidence["kind"] == "time order"


def test_an_id_in_sorted_rows_is_only_information(rng):
    columns = honest(rng)
    order = np.argsort(columns["label"], kind="stable")
    columns = {n: v[order] for n, v in columns.items()}
    columns["id"] = np.arange(ROWS)
    (finding,) = found(columns)
    assert (finding.columns, finding.severity) == (("id",), Severity.INFO)
    assert "order of the rows" in finding.message


def test_an_id_given_by_class_in_shuffled_rows_is_a_warning(rng):
    columns = honest(rng)
    columns["id"] = columns["label"] * 100_000 + rng.permutation(ROWS)
    (finding,) = found(columns)
    assert (finding.columns, finding.severity) == (("id",), Severity.WARNING)


def test_a_numeric_target_is_judged_by_explained_variance(rng):
    columns = honest(rng)
    columns["label"] = rng.normal(size=ROWS)
    assert found(columns) == []
    columns["scaled"] = 1_000 * columns["label"] + 3
    (finding,) = found(columns)
    assert finding.columns == ("scaled",)


def test_few_rows_are_not_judged(rng):
    table = pa.table({n: v[:60] for n, v in honest(rng).items()})
    result = scan(table, CHECK, label="label")
    assert rules(result) == []
    assert result.checks[0]["skipped"] == "fewer than 100 rows were seen"
