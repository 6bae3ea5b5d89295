"""However two texts are compared, their similarity is that of their sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_guard.checks.leakage import lsh

_SHINGLES = st.lists(st.integers(0, 40) | st.integers(0, 2**32 - 1), min_size=1, max_size=60)


def _table() -> np.ndarray:
    return np.zeros(lsh._SLOTS_FOR_FEW + 1, np.uint64)


@settings(max_examples=100, deadline=None)
@given(_SHINGLES, _SHINGLES)
def test_counting_and_sorting_give_the_similarity_of_the_sets(one: list[int], two: list[int]) -> None:
    a, b = np.array(one, np.uint32), np.array(two, np.uint32)
    expected = len({*one} & {*two}) / len({*one} | {*two})
    assert lsh._counted(a, b, _table()) == expected
    assert lsh._jaccard(np.unique(a), np.unique(b)) == expected


def test_comparisons_do_not_see_what_earlier_ones_left_in_the_table() -> None:
    table, rng = _table(), np.random.default_rng(5)
    table[-1] = 2**30 - 3  # the numbers of comparisons begin anew among these
    for _ in range(6):
        a, b = rng.integers(0, 300, 200).astype(np.uint32), rng.integers(0, 300, 200).astype(np.uint32)
        assert lsh._counted(a, b, table) == lsh._counted(a, b, _table())


def test_texts_too_long_for_the_table_are_in_one_cluster_all_the_same() -> None:
    from dataset_guard.checks.leakage.minhash import BINS, sign

    long = np.arange(2 * lsh._FEW, dtype=np.uint32) * np.uint32(2_654_435_761)
    other = np.arange(7, 7 + lsh._FEW, dtype=np.uint32)
    parts = [long, other, np.append(long[5:], other[:3])]
    ends = np.cumsum([len(p) for p in parts])
    signatures, shingles = np.empty((3, BINS), np.uint32), np.concatenate(parts)
    sign(ends, shingles, signatures)
    texts = lsh.Texts(np.arange(3), signatures, ends, shingles)
    assert lsh.clusters(texts, 0.7).tolist() == [0, 1, 0]
