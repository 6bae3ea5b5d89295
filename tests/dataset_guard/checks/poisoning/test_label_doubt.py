"""How labels were moved is learnt from the labels themselves, and the stated share of false alarms holds."""

import numpy as np
import pytest

from dataset_guard.checks.poisoning.label_doubt import channel, most_useful, probably_wrong

ROWS, CLASSES = 2_000, 4
PLANS = {
    "at random": np.full((CLASSES, CLASSES), 0.02) + 0.92 * np.eye(CLASSES),
    "to the next class": 0.94 * np.eye(CLASSES) + 0.06 * np.roll(np.eye(CLASSES), 1, axis=1),
    "from one class to one other": np.eye(CLASSES) + 0.15 * np.outer(np.eye(CLASSES)[2], [1, 0, -1, 0]),
}


def judged(moves, seed=0):
    """(what models say that learnt a little of the moves, the given labels, which of them were moved)."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, CLASSES, ROWS)
    codes = np.array([rng.choice(CLASSES, p=moves[c]) for c in right])
    told = 0.8 * np.eye(CLASSES)[right] + 0.2 * moves[right]
    chances = np.clip(told * np.exp(rng.normal(0, 0.4, (ROWS, CLASSES))), 1e-3, None)
    return chances / chances.sum(axis=1, keepdims=True), codes, codes != right


@pytest.mark.parametrize("plan", sorted(PLANS))
def test_labels_moved_by_any_plan_are_named(plan):
    chances, codes, moved = judged(PLANS[plan])
    right, moves = channel(chances, codes)
    doubt = probably_wrong(right, codes, moves)
    order = np.argsort(-doubt, kind="stable")
    length, stated = most_useful(doubt[order])
    named = order[:length]
    assert moved[named].sum() >= 0.9 * moved.sum()
    assert 1 - moved[named].mean() <= stated + 0.05


def test_where_labels_were_moved_to_is_learnt_for_each_class():
    _, moves = channel(*judged(PLANS["to the next class"])[:2])
    others = moves - np.diag(np.diag(moves))
    assert others.argmax(axis=1).tolist() == [1, 2, 3, 0]
    assert others.max(axis=1).min() > 0.02  # 0.06 were moved; the prior speaks for labels drawn at random


def test_labels_that_nobody_moved_are_not_doubted():
    chances, codes, _ = judged(np.eye(CLASSES))
    right, moves = channel(chances, codes)
    assert probably_wrong(right, codes, moves).max() < 0.1
