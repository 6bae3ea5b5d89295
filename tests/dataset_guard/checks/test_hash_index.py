"""Sorted hashes answer membership exactly as a dictionary would."""

from collections import Counter

import numpy as np
import pytest

from dataset_guard.checks.hash_index import HashIndex, equal_to_previous
from dataset_guard.hashing.rowset import sort_hashes


@pytest.mark.parametrize("values", [3, 50, 2**63])
def test_membership_and_counts_equal_those_of_a_dictionary(values):
    rng = np.random.default_rng(values % 1000)
    # Few first halves, many second halves: what chance never gives and the walk must survive.
    held = np.stack([rng.integers(0, values, 4_000), rng.integers(0, 7, 4_000)], axis=1).astype(np.uint64)
    asked = np.stack([rng.integers(0, values, 900), rng.integers(0, 9, 900)], axis=1).astype(np.uint64)
    truth = Counter(map(tuple, held.tolist()))
    index = HashIndex(held)
    assert index.contains(asked).tolist() == [tuple(h) in truth for h in asked.tolist()]
    assert index.count(asked).tolist() == [truth[tuple(h)] for h in asked.tolist()]
    assert len(index) == len(truth)
    assert index.total == 4_000


def test_an_empty_index_holds_nothing():
    empty = HashIndex(np.empty((0, 2), np.uint64))
    assert not empty.contains(np.zeros((3, 2), np.uint64)).any()
    assert empty.count(np.zeros((3, 2), np.uint64)).tolist() == [0, 0, 0]


def test_sorting_is_by_both_halves_and_stable():
    hashes = np.array([[5, 2], [5, 1], [1, 9], [5, 1]], np.uint64)
    assert sort_hashes(hashes).tolist() == [2, 1, 3, 0]
    assert equal_to_previous(hashes[sort_hashes(hashes)]).tolist() == [False, False, True, False]
