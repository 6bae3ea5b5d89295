"""Classes that were filled with rows of one other class."""

import numpy as np

from dataset_guard.checks.poisoning.aimed_flips import aimed

SIZES = (400, 300, 300, 300, 100)


def chances_and_codes(told, seed=0):
    """Models that know four classes, and take the fifth for the first; ``told`` of its rows stand out."""
    random = np.random.default_rng(seed)
    codes = np.repeat(np.arange(5), SIZES)
    seen = np.where(codes == 4, 0, codes)
    chances = np.full((len(codes), 5), 0.02)
    chances[np.arange(len(codes)), seen] = 0.8
    rare = 0.1 * random.random(len(codes))
    rare[np.flatnonzero(codes == 4)[: round(told * SIZES[4])]] += 0.1
    chances[:, 4] = np.where(seen == 0, rare, 0.01)
    return chances / chances.sum(axis=1, keepdims=True), codes


def test_a_class_that_nothing_tells_from_one_other_was_filled_from_it():
    chances, codes = chances_and_codes(told=0.0)
    (one,) = aimed(chances, codes)
    assert (one.likely, one.given, one.whole) == (0, 4, True)
    assert one.rows.tolist() == np.flatnonzero(codes == 4).tolist()
    assert 0.0 < one.fdr <= 0.15


def test_a_rare_class_that_stands_out_a_little_is_left_alone():
    assert aimed(*chances_and_codes(told=0.3)) == []


def test_where_models_know_little_a_class_that_they_do_not_know_says_nothing():
    chances, codes = chances_and_codes(told=0.0)
    chances[300:600] = 0.2
    assert aimed(chances, codes) == []
