"""A sample of rows depends on their numbers and the seed, and on nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from dataset_guard.checks.sampling import RowSample, least_of, priorities

ROWS = np.arange(1_000, dtype=np.int64)


def test_priorities_are_those_of_splitmix64() -> None:
    # The first outputs of the reference (Vigna, splitmix64.c) for the state 0: row 0 is drawn with seed 0.
    assert priorities(np.array([0], np.int64), 0).tolist() == [0xE220A8397B1DCDAF]
    assert priorities(np.array([0], np.int64), 1).tolist() == [0x6E789E6AA1B965F4]


def test_the_least_are_all_those_up_to_the_limit() -> None:
    every = priorities(ROWS, 7)
    limit = np.sort(every)[99]
    places, ranks = least_of(ROWS, 7, limit)
    assert places.tolist() == np.flatnonzero(every <= limit).tolist()
    assert ranks.tolist() == every[places].tolist()


@pytest.mark.parametrize("cut", [1, 64, 999])
def test_however_rows_come_the_sample_is_the_same(cut: int) -> None:
    schema = pa.schema([("n", pa.int64())])

    def sampled(edges: list[int]) -> list[int]:
        first, second = RowSample(50, 3), RowSample(50, 3)
        for i, (start, stop) in enumerate(pairwise(edges)):
            (first if i % 2 else second).update(
                pa.record_batch([ROWS[start:stop]], schema=schema), ROWS[start:stop]
            )
        first.merge(second)
        rows, table = first.finish(schema)
        assert table["n"].to_pylist() == rows.tolist()
        return [int(row) for row in rows]

    found = sampled([0, cut, 1_000])
    assert found == sampled([0, 300, 700, 1_000])
    assert found == sorted(np.argsort(priorities(ROWS, 3))[:50].tolist())
