"""Equal hashes are found whatever is looked at at a time."""

import numpy as np
import pytest

from dataset_guard.checks.leakage import repeats
from dataset_guard.hashing.hash_store import HashStore


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("round_rows", [8_388_608, 500])
def test_first_rows_do_not_depend_on_the_rows_looked_at_at_a_time(monkeypatch, round_rows, mapped):
    monkeypatch.setattr(repeats, "_ROUND_ROWS", round_rows)
    monkeypatch.setattr(repeats, "_PART_ROWS", 100)
    monkeypatch.setattr("dataset_guard.hashing.hash_store._WINDOW_ROWS", 700)
    rng = np.random.default_rng(3)
    pool = rng.integers(0, 2**64, (3_000, 2), dtype=np.uint64)
    pool[:50, 0] = pool[50:100, 0]  # equal first halves of unequal hashes
    hashes = pool[rng.integers(0, 3_000, 4_000)]
    store = HashStore(rows=len(hashes), memory_bytes=100 if mapped else 1 << 20)
    store.add(hashes)
    first, found = repeats.first_of(store.all())
    _, at, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    expected = at[which.reshape(-1)]
    assert first.tolist() == expected.tolist()
    assert found == (expected != np.arange(4_000)).sum()
