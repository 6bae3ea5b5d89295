"""Copied rows are found by number; an accident is told from a leak."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.leakage.chance import chance_of, poisson_tail
from dataset_guard.checks.leakage.exact_overlap import CHECK
from dataset_guard.hashing.rowhash import RowHasher
from guard_core.findings import Severity


def table_of(rows: int, seed: int, classes: int = 3) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {"x": rng.normal(size=rows), "y": rng.normal(size=rows), "label": rng.integers(0, classes, rows)}
    )


def relabelled(table: pa.Table) -> pa.Table:
    return table.set_column(2, "label", pa.array((np.asarray(table["label"]) + 1) % 3))


def test_test_rows_copied_into_train_are_critical_and_named():
    test = table_of(400, 1)
    train = pa.concat_tables([table_of(2_000, 2), test.slice(100, 40)])
    against = (Registered("acme/digits-test@1", test, "label", "test"),)
    finding = only(scan(train, CHECK, label="label", split="train", against=against), "LEAK002")
    assert finding.severity is Severity.CRITICAL
    assert list(finding.rows) == list(range(2_000, 2_040))
    assert finding.evidence["reference"] == "acme/digits-test@1"
    assert finding.evidence["share_of_reference"] == 0.1


def test_copies_with_another_label_are_found_by_their_features():
    test = table_of(400, 1)
    train = pa.concat_tables([table_of(2_000, 2), relabelled(test.slice(0, 30))])
    against = (Registered("acme/t@1", test, "label", "test"),)
    finding = only(scan(train, CHECK, label="label", split="train", against=against), "LEAK002")
    assert list(finding.rows) == list(range(2_000, 2_030))
    assert finding.evidence["other_label"] == 30


def test_an_unlabelled_test_set_is_compared_by_features():
    test = table_of(400, 1)
    train = pa.concat_tables([table_of(2_000, 2), test.slice(0, 30)])
    against = (Registered("acme/t@1", test.drop_columns(["label"]), None, "test"),)
    finding = only(scan(train, CHECK, label="label", split="train", against=against), "LEAK002")
    assert len(finding.rows) == 30


def test_one_shared_row_is_a_warning_because_chance_explains_it():
    test = table_of(400, 1)
    train = pa.concat_tables([table_of(2_000, 2), test.slice(7, 1)])
    against = (Registered("acme/t@1", test, "label", "test"),)
    finding = only(scan(train, CHECK, label="label", split="train", against=against), "LEAK002")
    assert finding.severity is Severity.WARNING
    assert list(finding.rows) == [2_000]


def test_a_coarse_table_overlaps_by_nature_and_is_not_critical():
    rng = np.random.default_rng(0)
    both = pa.table({"a": rng.integers(0, 40, 4_000), "b": rng.integers(0, 40, 4_000)})
    against = (Registered("acme/t@1", both.slice(3_000), None, "test"),)
    result = scan(both.slice(0, 3_000), CHECK, split="train", against=against)
    assert only(result, "LEAK002").severity is Severity.WARNING


def test_copying_the_test_rows_twice_does_not_hide_them():
    test = table_of(400, 1)
    copies = test.slice(100, 40)
    train = pa.concat_tables([table_of(2_000, 2), copies, copies])
    against = (Registered("acme/t@1", test, "label", "test"),)
    finding = only(scan(train, CHECK, label="label", split="train", against=against), "LEAK002")
    assert finding.severity is Severity.CRITICAL


def test_two_training_sets_may_share_rows_with_a_warning():
    other = table_of(400, 1)
    train = pa.concat_tables([table_of(2_000, 2), other.slice(0, 40)])
    against = (Registered("acme/more@1", other, "label", "train"),)
    finding = only(scan(train, CHECK, label="label", split="train", against=against), "LEAK002")
    assert finding.severity is Severity.WARNING


def test_an_earlier_version_of_the_same_set_is_not_another_set():
    table = table_of(500, 1)
    against = (Registered("acme/set@1", table, "label", "train"),)
    assert rules(scan(table, CHECK, label="label", against=against)) == []


def test_repeats_within_a_set_are_information_until_they_are_many():
    base = table_of(1_000, 3)
    few = only(scan(pa.concat_tables([base, base.slice(0, 5)]), CHECK), "LEAK001")
    many = only(scan(pa.concat_tables([base, base.slice(0, 200)]), CHECK), "LEAK001")
    assert few.severity is Severity.INFO
    assert list(few.rows) == list(range(1_000, 1_005))
    assert many.severity is Severity.WARNING


def test_equal_features_with_unequal_labels_name_every_row_of_the_group():
    base = table_of(1_000, 4)
    result = scan(pa.concat_tables([base, relabelled(base.slice(10, 3))]), CHECK, label="label")
    assert list(only(result, "QUAL003").rows) == [10, 11, 12, 1_000, 1_001, 1_002]


def test_a_clean_pair_of_sets_gives_no_finding():
    against = (Registered("acme/t@1", table_of(400, 1), "label", "test"),)
    assert rules(scan(table_of(2_000, 2), CHECK, label="label", split="train", against=against)) == []


def test_states_merged_in_any_order_give_the_findings_of_one_pass():
    base = table_of(1_000, 3)
    table = pa.concat_tables([base, base.slice(0, 30)]).combine_chunks()
    context = CheckContext(schema=table.schema, label="label", tenant="acme", name="set")
    hasher = RowHasher(table.schema, key=bytes(32), label="label")
    states = []
    for start in (0, 300, 900):
        batch = table.slice(start, {0: 300, 300: 600, 900: 130}[start]).combine_chunks().to_batches()[0]
        hashes = hasher.hash(batch)
        states.append(CHECK.start(context))
        states[-1].update(batch, start, hashes.keyed, hashes.features)
    states[2].merge(states[0])
    states[2].merge(states[1])
    assert next(iter(states[2].finish())).rows == only(scan(table, CHECK, label="label"), "LEAK001").rows


@pytest.mark.parametrize(("at_least", "mean"), [(1, 0.57), (5, 0.57), (40, 0.57), (3, 10.0), (200, 120.0)])
def test_the_poisson_tail_is_that_of_scipy(at_least, mean):
    from scipy.stats import poisson

    expected = 1.0 if at_least <= mean else poisson.sf(at_least - 1, mean)
    assert poisson_tail(at_least, mean) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("values", [40, 400, 4_000])
def test_a_split_by_chance_of_rows_that_repeat_by_nature_is_no_leak(values):
    rng = np.random.default_rng(values)
    rows = np.concatenate([rng.integers(0, values, 1_500), 10**6 + np.arange(500)])
    rng.shuffle(rows)
    train, test = rows[:1_400], rows[1_400:]
    _, sizes = np.unique(train, return_counts=True)
    assert chance_of(sizes, len(np.intersect1d(train, test)), len(test)) > 1e-3


def test_copies_of_rows_that_do_not_repeat_are_one():
    assert chance_of(np.ones(10_000, np.int64), 12, 1_000) < 1e-6
