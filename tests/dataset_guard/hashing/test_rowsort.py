"""Row hashes sorted by their first bits come out as any other sort has them."""

from __future__ import annotations

import numpy as np
import pytest

from dataset_guard.hashing.rowset import sort_hashes, sorted_run
from dataset_guard.hashing.rowsort import spread_order, spread_sorted


def _random(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (rows, 2), dtype=np.uint64)


def _plainly(parts: list[np.ndarray]) -> np.ndarray:
    run = np.concatenate(parts)
    return run[np.lexsort((run[:, 1], run[:, 0]))]


@pytest.mark.parametrize("sizes", [(0,), (1,), (17, 0, 3), (5_000, 40_000), (30_000,)])
def test_evenly_spread_hashes_are_sorted_whatever_parts_they_come_in(sizes: tuple[int, ...]) -> None:
    parts = [_random(size, seed) for seed, size in enumerate(sizes)]
    assert np.array_equal(spread_sorted(parts), _plainly(parts))


def test_equal_hashes_stay_as_many_as_they_were() -> None:
    parts = [np.repeat(_random(3_000), 5, axis=0), _random(3_000)]
    assert np.array_equal(spread_sorted(parts), _plainly(parts))


def test_equal_first_halves_are_told_by_the_second() -> None:
    hashes = _random(20_000)
    hashes[:, 0] >>= np.uint64(50)
    assert np.array_equal(spread_sorted([hashes]), _plainly([hashes]))


def test_a_slice_of_hash_values_is_sorted_like_the_whole_range() -> None:
    hashes = _random(20_000)
    hashes[:, 0] = (hashes[:, 0] >> np.uint64(9)) + np.uint64(7 << 57)
    assert np.array_equal(spread_sorted([hashes]), _plainly([hashes]))


def test_hashes_of_few_distinct_rows_are_left_to_another_sort() -> None:
    hashes = np.repeat(_random(2), 20_000, axis=0)[np.random.default_rng(3).permutation(40_000)]
    assert spread_sorted([hashes]) is None
    assert np.array_equal(sorted_run([hashes]), hashes[sort_hashes(hashes)])


def test_equal_hashes_are_ordered_by_row() -> None:
    hashes = np.concatenate([_random(9_000), _random(9_000)])
    expected = np.lexsort((hashes[:, 1], hashes[:, 0])).tolist()
    order, differ = spread_order(hashes)
    assert (order.tolist(), differ) == (expected, False)
    assert spread_order(hashes[:9_000])[1]
    assert sort_hashes(hashes).tolist() == expected


def test_equal_first_halves_of_unequal_hashes_are_told_by_the_second_also_in_an_order() -> None:
    hashes = _random(20_000)
    hashes[:, 0] >>= np.uint64(50)
    assert sort_hashes(hashes).tolist() == np.lexsort((hashes[:, 1], hashes[:, 0])).tolist()
