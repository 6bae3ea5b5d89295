"""Compiled expectations against Great Expectations itself: same verdicts, same counts, same rows."""

import numpy as np
import pytest
from gx_cases import Draw, table

from dataset_guard.checks.quality.compiled import COMPILED, compiled
from dataset_guard.checks.quality.compiled_pass import CompiledPass
from dataset_guard.checks.quality.gx_suite import Expected
from dataset_guard.checks.quality.gx_tally import Tally

pytest.importorskip("great_expectations")

from dataset_guard.checks.quality import gx_engine


def ours(data, expected, *, block):
    """Tallies of what is compiled, over blocks that reach two states in turn and are then merged."""
    rules = {i: r for i, e in enumerate(expected) if (r := compiled(e, data.schema)) is not None}
    states = []
    for _ in range(2):
        tallies = [Tally(e) for e in expected]
        states.append((CompiledPass(rules, tallies, 1 << 30), tallies))
    for number, start in enumerate(range(0, data.num_rows, block)):
        part = data.slice(start, block).combine_chunks().to_batches()[0]
        states[number % 2][0].update(part, start)
    (left, mine), (right, theirs) = states[::-1]  # later rows first: order must not matter
    for a, b in zip(mine, theirs, strict=True):
        a.merge(b)
    left.merge(right)
    left.finish(data.num_rows)
    return {i: mine[i] for i in rules}


def differences(seed, *, conditioned=False):
    """(compared, compiled although it raises, list of differences) for one random table."""
    random = np.random.default_rng(seed)
    data = table(random)
    draw = Draw(random, data)
    expected = draw.conditioned() if conditioned else draw.every()
    found = ours(data, expected, block=int(random.choice([7, 64, 1000])))
    theirs = gx_engine.evaluate(data.to_pandas(), expected, rows=True)
    compared, raised, wrong = 0, 0, []
    for i, tally in found.items():
        said = theirs[i]
        if said.raised:
            raised += 1
            continue
        compared += 1
        rows = sorted(np.concatenate(tally.rows).tolist()) if tally.rows else []
        mine = (tally.met, tally.elements, tally.missing, tally.unexpected, rows)
        their = (said.success, said.elements, said.missing, said.unexpected, sorted(said.rows))
        if mine != their:
            wrong.append((seed, expected[i].type, dict(expected[i].kwargs), mine, their))
    return compared, raised, wrong


def test_every_kind_is_drawn():
    random = np.random.default_rng(0)
    assert {e.type for e in Draw(random, table(random)).every()} == COMPILED


@pytest.mark.filterwarnings("ignore:This pattern is interpreted:UserWarning")
@pytest.mark.parametrize("seed", range(12))
def test_random_tables_get_the_verdicts_counts_and_rows_of_great_expectations(seed):
    compared, _, wrong = differences(seed)
    assert compared >= 30
    assert wrong == []


@pytest.mark.filterwarnings("ignore:This pattern is interpreted:UserWarning")
@pytest.mark.filterwarnings("ignore:The condition_parser parameter:DeprecationWarning")
@pytest.mark.parametrize("seed", range(4))
def test_of_the_rows_that_a_condition_picks_too(seed):
    compared, _, wrong = differences(seed, conditioned=True)
    assert wrong == []
    assert compared >= 8


@pytest.mark.parametrize(
    "condition",
    ["x > 3 & y < 2", "x + 1 > 3", "x > y", "x == [1, 2]", "`x` > 1", "x > @limit", "when > '2024-01-01'",
     "flag", "x > 1)", "nope > 1", "t > 'a'", "t.str.len() > 1", "x > '1'", "flag in [True]", ""],
)  # fmt: skip
def test_a_condition_that_pandas_may_read_otherwise_is_left_to_great_expectations(condition):
    data = table(np.random.default_rng(0))
    kwargs = {"column": "i", "row_condition": condition, "condition_parser": "pandas"}
    assert compiled(Expected("expect_column_values_to_not_be_null", kwargs), data.schema) is None
