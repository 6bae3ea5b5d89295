"""Rows of a training set that lie in the time of its test set are told, when the split is one by time."""

import numpy as np
import pyarrow as pa
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.leakage.temporal_leakage import CHECK
from guard_core.findings import Severity

DAY = 86_400_000_000


def days(values) -> pa.Table:
    return pa.table(
        {"at": pa.array(np.asarray(values) * DAY, pa.timestamp("us")), "x": np.arange(len(values))}
    )


TEST = Registered("acme/test@1", days(np.arange(1_000, 1_100)), split="test")


def test_late_rows_of_a_split_by_time_are_listed():
    train = [*range(900), 1_050, 1_060, 1_099]
    finding = only(scan(days(train), CHECK, against=(TEST,), split="train"), "LEAK007")
    assert list(finding.rows) == [900, 901, 902]
    assert (finding.count, finding.severity) == (3, Severity.WARNING)


def test_a_clean_split_by_time_says_nothing():
    assert rules(scan(days(range(900)), CHECK, against=(TEST,), split="train")) == []


def test_a_split_by_chance_is_information_and_lists_no_rows():
    rng = np.random.default_rng(0)
    finding = only(scan(days(rng.integers(900, 1_200, 500)), CHECK, against=(TEST,)), "LEAK007")
    assert finding.severity is Severity.INFO
    assert not len(finding.rows)
    assert finding.count > 100


def test_without_a_test_set_the_check_says_that_it_was_skipped():
    train = Registered("acme/more@1", TEST.table, split="train")
    for against in ((), (train,)):
        skipped = scan(days(range(10)), CHECK, against=against).checks[0]["skipped"]
        assert skipped == "no test or validation set was named (--against)"
