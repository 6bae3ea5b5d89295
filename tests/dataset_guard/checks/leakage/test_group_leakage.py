"""Keys that stand on both sides of a split are found without being named."""

import json

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.leakage.group_leakage import CHECK, GroupLeakage, Values, says_key, words
from guard_core.findings import Severity


def patients(numbers, seed=0, name="patient_id") -> pa.Table:
    rng = np.random.default_rng(seed)
    picks = rng.choice(np.asarray(numbers), 6 * len(numbers))
    return pa.table({name: [f"p{n:05d}" for n in picks], "x": rng.normal(size=len(picks))})


def test_patients_on_both_sides_are_counted_and_never_named():
    test = Registered("acme/test@1", patients(range(180, 260), 1), split="test")
    finding = only(scan(patients(range(200)), CHECK, against=(test,)), "LEAK006")
    assert finding.severity is Severity.WARNING
    assert finding.columns == ("patient_id",)
    assert finding.evidence["values_on_both_sides"] == 20
    assert finding.score == pytest.approx(20 / 80, abs=0.01)
    assert "p00" not in json.dumps(finding.to_json())


def test_a_split_by_patient_says_nothing():
    test = Registered("acme/test@1", patients(range(200, 260), 1), split="test")
    assert rules(scan(patients(range(200)), CHECK, against=(test,))) == []


def test_a_column_that_is_not_named_like_a_key_is_information():
    test = Registered("acme/test@1", patients(range(180, 260), 1, "town"), split="test")
    table = patients(range(200), 0, "town")
    assert only(scan(table, CHECK, against=(test,)), "LEAK006").severity is Severity.INFO
    named = GroupLeakage(columns=("town",))
    assert only(scan(table, named, against=(test,)), "LEAK006").severity is Severity.WARNING


def test_categories_and_unique_numbers_are_no_keys():
    rng = np.random.default_rng(0)
    table = pa.table({"colour_id": rng.choice(["red", "green", "blue"], 3_000), "row_id": np.arange(3_000)})
    test = Registered("acme/test@1", table.slice(0, 500), split="test")
    assert rules(scan(table, CHECK, against=(test,))) == []


@pytest.mark.parametrize("name", ["user_id", "PatientId", "id", "患者编号", "customer", "session-key"])
def test_names_that_say_key(name):
    assert says_key(name)


@pytest.mark.parametrize("name", ["width", "paid", "identity", "userful", "grid", "text"])
def test_names_that_do_not(name):
    assert not says_key(name)


def test_both_sides_follow_the_same_values_within_the_budget():
    mine, theirs = Values(500), Values(500)
    numbers = pa.array([f"k{i}" for i in range(20_000)])
    for start in range(0, 20_000, 1_000):
        mine.add(words(numbers.slice(start, 1_000)))
    theirs.add(words(numbers.slice(10_000)))
    limit = min(mine.limit, theirs.limit)
    own, other = mine.hashes[mine.hashes <= limit], theirs.hashes[theirs.hashes <= limit]
    assert len(mine.hashes) <= 500
    assert np.isin(other, own).all()
    assert 0.4 < np.isin(own, other).mean() < 0.6
