"""New rows that are distributed otherwise than trusted ones: per column, jointly, and row by row."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.drift.distribution import CHECK
from guard_core.findings import Severity


def table(number, seed, *, shift=0.0, share=0.5, twist=1.0):
    random = np.random.default_rng(seed)
    x = random.normal(size=number)
    return pa.table(
        {
            "x": x + shift,
            "y": twist * x + random.normal(size=number) * 0.3,
            "z": random.normal(size=number),
            "kind": random.choice(["a", "b"], number, p=[share, 1 - share]),
            "label": random.integers(0, 2, number),
        }
    )


def update(after, before=None):
    before = table(2000, 1) if before is None else before
    whole = pa.concat_tables([before, after])
    return scan(whole, CHECK, label="label", baseline=Registered("acme/t@1", before, "label"))


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_an_honest_update_raises_nothing(seed):
    assert rules(update(table(500, seed))) == []


def test_a_shifted_column_is_named_with_its_effect():
    found = [f for f in update(table(500, 2, shift=1.0)).findings if f.rule_id == "DRFT001"]
    assert [f.columns for f in found] == [("x",)]
    assert found[0].severity is Severity.WARNING
    assert 0.3 < found[0].score < 0.5


def test_a_category_whose_shares_moved_is_named():
    finding = only(update(table(500, 2, share=0.8)), "DRFT001")
    assert (finding.columns, round(finding.score, 1)) == (("kind",), 0.3)
    assert "'a'" not in str(finding.to_json())


def test_drift_that_no_single_column_shows_is_found_jointly():
    found = update(table(800, 2, twist=-1.0))
    assert [f.rule_id for f in found.findings if f.rule_id == "DRFT001"] == []
    assert only(found, "DRFT002").score > 0.8


def test_rows_from_elsewhere_are_named():
    random = np.random.default_rng(9)
    after = table(500, 2)
    x, z = after["x"].to_numpy().copy(), after["z"].to_numpy().copy()
    rows = np.sort(random.choice(500, 12, replace=False))
    x[rows], z[rows] = 7.0, -7.0
    after = after.set_column(0, "x", pa.array(x)).set_column(2, "z", pa.array(z))
    finding = only(update(after), "DRFT003")
    assert set(finding.rows) >= {2000 + int(r) for r in rows}
    assert len(finding.rows) <= 14


@pytest.mark.parametrize(("number", "words"), [(50, "too few"), (0, "too few")])
def test_a_small_update_is_skipped_with_the_reason(number, words):
    assert words in update(table(number, 2)).checks[0]["skipped"]


def test_without_a_trusted_version_it_says_so():
    assert "no trusted version" in scan(table(10, 1), CHECK).checks[0]["skipped"]
