"""Labels that changed since the trusted version."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, digits_table, only, rules, scan
from poison import demo, digits, precision_recall

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.poisoning.label_flip import CHECK
from guard_core.findings import Severity


def trusted(table, label="label"):
    return Registered("acme/digits@1", table, label, "train")


@pytest.mark.parametrize("seed", [20261123, 1, 2, 3])
def test_every_flipped_label_of_the_demo_is_found_and_nothing_else(tmp_path, seed):
    before, after, planted = demo(tmp_path, seed)
    finding = only(scan(after, CHECK, label="label", baseline=trusted(before)), "POIS001")
    assert precision_recall(finding.rows, planted.flipped) == (1.0, 1.0)
    assert finding.severity is Severity.CRITICAL
    assert finding.fdr == 0.0
    assert sum(finding.evidence["now_in_class"].values()) == len(planted.flipped)


def test_the_same_rows_in_another_order_and_new_real_rows_raise_nothing():
    pixels, labels = digits()
    before = digits_table(pixels[:1400], labels[:1400])
    after = digits_table(pixels[::-1], labels[::-1])
    assert rules(scan(after, CHECK, label="label", baseline=trusted(before))) == []


def test_features_with_two_trusted_labels_may_have_either():
    before = pa.table({"x": [1, 1, 2], "label": ["a", "b", "a"]})
    after = pa.table({"x": [1, 1, 1, 2], "label": ["b", "a", "c", "a"]})
    assert list(only(scan(after, CHECK, label="label", baseline=trusted(before)), "POIS001").rows) == [2]


def test_a_few_changed_labels_in_a_large_set_warn_and_five_are_critical():
    before = pa.table({"x": range(2000), "label": [0, 1] * 1000})

    def found(flips):
        labels = np.array([0, 1] * 1000)
        labels[:flips] = 1 - labels[:flips]
        after = pa.table({"x": range(2000), "label": labels})
        return only(scan(after, CHECK, label="label", baseline=trusted(before)), "POIS001")

    assert found(4).severity is Severity.WARNING
    assert found(5).severity is Severity.CRITICAL
    assert found(1).message.startswith("1 row of 2,000 has the features of a row in the trusted version")
    assert found(4).message.startswith("4 rows of 2,000 have the features of a row")


def test_an_honest_update_of_a_coarse_table_is_a_warning_at_most_and_says_how_often_labels_differ_anyway():
    random = np.random.default_rng(3)
    features = random.integers(0, 400, 2000)
    labels = random.integers(0, 50, 2000)
    before = pa.table({"x": features[:1000], "label": labels[:1000]})
    after = pa.table({"x": features, "label": labels})
    finding = only(scan(after, CHECK, label="label", baseline=trusted(before)), "POIS001")
    assert finding.severity is Severity.WARNING
    assert finding.fdr > 0.9


def test_a_duplicate_in_the_trusted_version_does_not_hide_flips():
    before = pa.table({"x": [*range(1000), *range(20)], "label": [0, 1] * 510})
    flipped = np.array([0, 1] * 510)
    flipped[100:120] = 1 - flipped[100:120]
    finding = only(
        scan(pa.table({"x": before["x"], "label": flipped}), CHECK, label="label", baseline=trusted(before)),
        "POIS001",
    )
    assert (finding.severity, finding.fdr, list(finding.rows)) == (Severity.CRITICAL, 0.0, [*range(100, 120)])


def test_a_lost_label_is_not_a_flip():
    before = pa.table({"x": [1, 2], "label": ["a", "b"]})
    after = pa.table({"x": [1, 2], "label": ["a", None]})
    assert rules(scan(after, CHECK, label="label", baseline=trusted(before))) == []


def test_no_label_value_is_in_the_finding():
    before = pa.table({"x": range(20), "label": ["zebra-canary", "okapi-canary"] * 10})
    after = pa.table({"x": range(20), "label": ["okapi-canary", "zebra-canary"] * 10})
    finding = only(scan(after, CHECK, label="label", baseline=trusted(before)), "POIS001")
    assert len(finding.rows) == 20
    assert "canary" not in str(finding.to_json())


def test_states_of_two_halves_merge_to_the_whole():
    before = pa.table({"x": range(1000), "label": [0, 1] * 500})
    after = before.set_column(1, "label", pa.array([1, 1] * 500))
    context = CheckContext(schema=after.schema, label="label", baseline=trusted(before))
    hashed = Registered("acme/digits@2", after, "label")
    states = []
    for start in (0, 300):
        stop = 300 if start == 0 else 1000
        state = CHECK.start(context)
        batch = after.slice(start, stop - start).combine_chunks().to_batches()[0]
        state.update(batch, start, hashed.row_hashes()[start:stop], hashed.feature_hashes()[start:stop])
        states.append(state)
    states[1].merge(states[0])
    whole = only(scan(after, CHECK, label="label", baseline=trusted(before)), "POIS001")
    (merged,) = states[1].finish()
    assert merged.rows == whole.rows
    assert merged.evidence == {name: whole.evidence[name] for name in merged.evidence}


@pytest.mark.parametrize(
    ("label", "baseline", "words"),
    [
        ("label", None, "no trusted version"),
        (None, trusted(pa.table({"x": [1], "label": [0]})), "no label column"),
        ("label", trusted(pa.table({"x": [1], "label": [0]}), None), "has no label"),
        ("label", trusted(pa.table({"x": [1], "label": [0], "more": [1]})), "rows cannot be matched"),
    ],
)
def test_what_cannot_be_compared_is_skipped_with_the_reason(label, baseline, words):
    result = scan(pa.table({"x": [1], "label": [0]}), CHECK, label=label, baseline=baseline)
    assert words in result.checks[0]["skipped"]
    assert result.findings == ()
