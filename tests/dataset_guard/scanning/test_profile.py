"""Statistics in one pass: right, mergeable, and without a cell of text."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest

from dataset_guard.hashing.distinct import DistinctCount
from dataset_guard.hashing.hash_store import HashStore
from dataset_guard.scanning.profile import Profiler

SALT = bytes(32)


def profile(table: pa.Table, *, label=None, sizes=(1_000_000,), salt=SALT) -> dict:
    profiler = Profiler(table.schema, label=label, salt=salt)
    start, i = 0, 0
    while start < table.num_rows:
        part = table.slice(start, sizes[i % len(sizes)]).combine_chunks()
        profiler.update(part.to_batches()[0], start)
        start, i = start + part.num_rows, i + 1
    return profiler.finish()


def test_numbers_have_range_mean_deviation_nulls_and_zeros():
    column = profile(pa.table({"a": pa.array([3, None, 0, 9])}))["columns"]["a"]
    assert (column["min"], column["max"], column["nulls"], column["zeros"]) == (0, 9, 1, 1)
    assert column["mean"] == pytest.approx(4.0)
    assert column["std"] == pytest.approx(np.std([3, 0, 9], ddof=1))
    assert (column["distinct"], column["distinct_exact"]) == (3, True)


def test_nan_and_infinity_are_counted_and_do_not_spoil_the_range():
    column = profile(pa.table({"a": [1.0, float("nan"), float("inf"), 3.0]}))["columns"]["a"]
    assert (column["min"], column["max"], column["nans"], column["infinite"]) == (1.0, 3.0, 1, 1)
    json.dumps(column, allow_nan=False)


def test_large_integers_keep_every_digit():
    big = 2**53 + 1
    assert profile(pa.table({"a": [big, 5]}))["columns"]["a"]["max"] == big


def test_text_shows_lengths_and_no_letter_of_it():
    result = profile(
        pa.table({"t": ["confidential", "ab", None], "label": ["good", "bad", "bad"]}), label="label"
    )
    assert result["columns"]["t"]["lengths"] == {"min": 2, "max": 12, "mean": 7.0}
    written = json.dumps(result)
    assert not any(word in written for word in ("confidential", "good", "bad", '"ab"'))


def test_classes_are_counted_by_index_and_their_names_depend_on_the_salt():
    table = pa.table({"label": ["dog", "cat", "dog", None]})
    classes = profile(table, label="label")["label"]["classes"]
    assert [(c["class"], c["count"]) for c in classes] == [(0, 1), (1, 2)]
    again = profile(table, label="label", salt=bytes([1] * 32))["label"]["classes"]
    assert {c["name"] for c in classes}.isdisjoint(c["name"] for c in again)


def test_times_are_told_by_month_only():
    table = pa.table({"born": [dt.date(1990, 5, 17), dt.date(2001, 1, 2)]})
    column = profile(table)["columns"]["born"]
    assert (column["min"], column["max"]) == ("1990-05", "2001-01")


@pytest.mark.parametrize(
    "array",
    [
        pa.array([True, False, None]),
        pa.array([[1, 2], [], None]),
        pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float64(), 2)),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array([b"x", b"", None]),
        pa.array([{"a": 1}, None, {"a": 2}]),
        pa.array([1.5, None, 2.25], pa.float16()),
        pa.array(["1.50", None, "2.25"]).cast(pa.decimal128(5, 2)),
        pa.array([2**64 - 1, 1, None], pa.uint64()),
        pa.array([1, None, 2], pa.duration("ns")),
        pa.array([1, None, 2], pa.time64("us")),
        pa.array([0, 1, None], pa.timestamp("ns", "Asia/Shanghai")),
        pa.array(["x", None, "y"], pa.string_view()),
        pa.nulls(3),
    ],
    ids=lambda a: str(a.type),
)
def test_every_type_has_a_profile_that_is_json(array):
    column = profile(pa.table({"c": array}))["columns"]["c"]
    assert column["nulls"] == array.null_count
    json.dumps(column, allow_nan=False)


def test_an_empty_table_has_a_profile():
    assert profile(pa.table({"a": pa.array([], pa.int64())}))["rows"] == 0


def test_cutting_the_rows_otherwise_changes_nothing():
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=30_000), "b": rng.integers(0, 9, 30_000), "s": ["x"] * 30_000})
    whole, cut = profile(table, label="b"), profile(table, label="b", sizes=(7_001, 13, 4_096))
    assert whole["columns"]["a"].pop("mean") == pytest.approx(cut["columns"]["a"].pop("mean"))
    assert whole["columns"]["a"].pop("std") == pytest.approx(cut["columns"]["a"].pop("std"))
    assert whole["columns"]["b"].pop("mean") == pytest.approx(cut["columns"]["b"].pop("mean"))
    assert whole["columns"]["b"].pop("std") == pytest.approx(cut["columns"]["b"].pop("std"))
    assert whole == cut


def test_merged_profiles_are_the_profile_of_all_rows():
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.integers(0, 10**9, 20_000), "s": [f"v{i % 900}" for i in range(20_000)]})
    halves = []
    for start in (10_000, 0):
        half = Profiler(table.schema, label="s", salt=SALT)
        half.update(table.slice(start, 10_000).combine_chunks().to_batches()[0], start)
        halves.append(half)
    halves[0].merge(halves[1])
    merged, whole = halves[0].finish(), profile(table, label="s")
    assert merged["columns"]["a"].pop("mean") == pytest.approx(whole["columns"]["a"].pop("mean"))
    assert merged["columns"]["a"].pop("std") == pytest.approx(whole["columns"]["a"].pop("std"))
    assert merged == whole


@pytest.mark.parametrize("number", [1, 2, 1_000, 1_024])
def test_few_distinct_values_are_counted_exactly(number):
    count = DistinctCount()
    count.update(np.tile(np.arange(number, dtype=np.uint64), 5), np.ones(5 * number, bool))
    assert count.finish() == (number, True)


@pytest.mark.parametrize("number", [5_000, 400_000])
def test_many_distinct_values_are_estimated_within_a_tenth(number):
    count = DistinctCount()
    count.update(np.tile(np.arange(number, dtype=np.uint64), 2), np.ones(2 * number, bool))
    estimate, exact = count.finish()
    assert not exact
    assert estimate == pytest.approx(number, rel=0.1)


def test_hashes_beyond_the_memory_bound_go_to_a_file_and_come_back_equal():
    store = HashStore(memory_bytes=40 * 16)
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2**63, (30, 2)).astype(np.uint64) for _ in range(4)]
    handed = [store.add(p) for p in parts]
    assert isinstance(handed[-1], np.memmap)
    assert not isinstance(handed[0], np.memmap)
    assert (store.all() == np.concatenate(parts)).all()
