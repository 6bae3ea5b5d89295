"""How many distinct values a column has, over blocks, kept once each."""

import numpy as np
import pyarrow as pa
import pytest

from dataset_guard.checks.quality.compiled import Block, uniqueness
from dataset_guard.checks.quality.compiled.arguments import Bounds
from dataset_guard.checks.quality.compiled.uniqueness import DistinctCount

ANY = Bounds(None, None, low_open=False, high_open=False)


def counted(columns, parts=1):
    """The state of :class:`DistinctCount` over blocks of ``columns``, read in ``parts`` that are merged."""
    states = []
    for some in np.array_split(np.arange(len(columns)), parts):
        state = DistinctCount(["x"], ANY, share=False)
        for i in some:
            state.update(Block(pa.record_batch({"x": columns[i]}), 0))
        states.append(state)
    for other in states[1:]:
        states[0].merge(other)
    return states[0]


def drawn(kind, distinct, blocks=8, rows=500):
    rng = np.random.default_rng(3)
    numbers = [rng.integers(0, distinct, rows) for _ in range(blocks)]
    return [pa.array(n if kind == "number" else [f"v{i}" for i in n]) for n in numbers]


@pytest.mark.parametrize("kind", ["number", "text"])
@pytest.mark.parametrize(("distinct", "parts"), [(3, 1), (3, 3), (1_000_000, 1), (1_000_000, 3)])
def test_the_count_is_that_of_all_rows_together(kind, distinct, parts, monkeypatch):
    monkeypatch.setattr(uniqueness, "_WAITING", 1_200)
    columns = drawn(kind, distinct)
    expected = len(pa.chunked_array(columns).unique())
    assert counted(columns, parts).finish().observed == expected


@pytest.mark.parametrize("kind", ["number", "text"])
def test_a_label_of_few_values_takes_no_more_memory_with_more_rows(kind):
    assert counted(drawn(kind, 10, blocks=20)).nbytes == counted(drawn(kind, 10, blocks=2)).nbytes <= 160
