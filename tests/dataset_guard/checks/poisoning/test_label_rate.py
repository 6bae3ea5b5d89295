"""The stated share of false alarms is a limit, also where nothing tells hard rows from wrong labels."""

import numpy as np

from dataset_guard.checks.poisoning.label_doubt import channel, most_useful, probably_wrong
from dataset_guard.checks.poisoning.label_rate import false_at_most

ROWS, CLASSES, DRAWS = 700, 3, 30


def named_and_rates(chances, codes):
    """(the rows named, the expected share of right labels among them, its upper limit)."""
    right, moves = channel(chances, codes)
    doubt = probably_wrong(right, codes, moves)
    order = np.argsort(-doubt, kind="stable")
    length, expected = most_useful(doubt[order])
    return order[:length], expected, false_at_most(chances, codes, moves, order[:length])


def drawn(seed, *, flipped, sureness):
    """(what modest models say, labels drawn by the truth, which of these were then moved elsewhere)."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(CLASSES, 1 / sureness), ROWS)
    codes = (chances.cumsum(axis=1) > rng.random((ROWS, 1))).argmax(axis=1)
    moved = rng.random(ROWS) < flipped
    codes = np.where(moved, (codes + rng.integers(1, CLASSES, ROWS)) % CLASSES, codes)
    modest = np.clip(chances, 1e-3, None) ** 0.6
    return modest / modest.sum(axis=1, keepdims=True), codes, moved


def test_the_limit_holds_where_the_expectation_is_a_coin_toss():
    expected_holds = limit_holds = 0
    for seed in range(DRAWS):
        chances, codes, moved = drawn(seed, flipped=0.05, sureness=3.0)
        named, expected, limit = named_and_rates(chances, codes)
        true = 1 - moved[named].mean()
        expected_holds += true <= expected
        limit_holds += true <= limit
    assert limit_holds >= 0.9 * DRAWS
    assert expected_holds <= 0.7 * DRAWS


def test_wrong_labels_among_rows_that_are_sure_are_known_nearly_for_certain():
    chances, codes, moved = drawn(0, flipped=0.05, sureness=20.0)
    named, expected, limit = named_and_rates(chances, codes)
    assert moved[named].sum() >= 0.8 * moved.sum()
    assert expected <= limit <= 0.5


def test_of_hard_rows_all_may_be_right():
    chances, codes, _ = drawn(1, flipped=0.0, sureness=2.0)
    doubtful = np.argsort(chances[np.arange(ROWS), codes])[:40]
    as_if = 0.9 * np.eye(CLASSES) + 0.1 / CLASSES
    assert false_at_most(chances, codes, as_if, doubtful) > 0.9


def test_an_empty_list_promises_nothing():
    chances, codes, _ = drawn(0, flipped=0.0, sureness=10.0)
    assert false_at_most(chances, codes, np.eye(CLASSES), np.empty(0, np.int64)) == 1.0
