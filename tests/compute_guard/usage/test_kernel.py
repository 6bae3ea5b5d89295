"""Running statistics: floors, robustness, regimes; and that blocks change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.usage.kernel import FLOORS, Series, Tuning


def run(values, floor=1.0):
    series = Series(floor=floor, size=1)
    for value in values:
        series.update(np.asarray([value], dtype=np.float32))
    return series.scores()


def test_a_constant_series_keeps_its_level_and_gets_old():
    scores = run([60.0] * 20)
    assert scores.level[0] == 60.0
    assert scores.deviation[0] == 0.0
    assert scores.age[0] == 20.0


def test_below_the_physical_floor_nothing_is_a_change():
    scores = run([0.0] * 50 + [0.4, 0.0, 0.3] * 10)
    assert scores.age[0] == 80.0


def test_one_wild_sample_is_not_a_new_regime():
    assert run([50.0] * 20 + [100.0] + [50.0] * 5).age[0] == 26.0


def test_two_samples_at_a_new_level_start_a_new_regime():
    scores = run([0.0] * 20 + [60.0] * 4)
    assert scores.age[0] <= 4.0
    assert scores.level[0] == pytest.approx(60.0)


def test_a_slow_climb_is_a_change_too():
    assert run([10 + 0.5 * i for i in range(100)]).age[0] < 30


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_a_reading_that_is_no_number_changes_nothing(hole):
    holed, plain = run([50.0, 51.0, hole, 50.0, hole]), run([50.0, 51.0, 50.0])
    for name in ("level", "deviation", "cusum_high", "cusum_low", "age"):
        assert getattr(holed, name)[0] == getattr(plain, name)[0]


def test_a_series_that_was_forgotten_starts_anew():
    series = Series(floor=1.0, size=2)
    for _ in range(5):
        series.update(np.asarray([10.0, 10.0], dtype=np.float32))
    series.forget(np.asarray([True, False]))
    series.update(np.asarray([90.0, 10.0], dtype=np.float32))
    scores = series.scores()
    assert scores.level.tolist() == [90.0, 10.0]
    assert scores.age.tolist() == [1.0, 6.0]


def test_scores_do_not_move_when_the_series_does():
    series = Series(floor=1.0, size=1)
    series.update(np.asarray([1.0], dtype=np.float32))
    before = series.scores()
    series.update(np.asarray([100.0], dtype=np.float32))
    assert before.level[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        before.level[0] = 2.0


def test_the_wrong_number_of_values_is_refused():
    with pytest.raises(ValueError, match="expected 2 values"):
        Series(floor=1.0, size=2).update(np.zeros(3, dtype=np.float32))


def test_a_scale_needs_a_floor_above_zero():
    with pytest.raises(ValueError, match="floor"):
        Series(floor=0.0)
    assert min(FLOORS.values()) > 0


def reference(values, floor, tuning):
    """The same definition, one float at a time, straight from the docstring of the module."""
    level = deviation = high = low = age = 0.0
    for x in values:
        if not np.isfinite(x):
            continue
        if age == 0:
            level, deviation, high, low = x, 0.0, 0.0, 0.0
        scale = max(deviation * 1.2533141, floor)
        z = min(max((x - level) / scale, -tuning.clip), tuning.clip)
        high, low = max(high + z - tuning.slack, 0.0), max(low - z - tuning.slack, 0.0)
        step = z * scale * tuning.rate
        level += step
        deviation = deviation * (1 - tuning.rate) + abs(step)
        age += 1
        if max(high, low) > tuning.limit:
            level, deviation, high, low, age = x, 0.0, 0.0, 0.0, 1
    return level, deviation, age


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 100).map(float), st.just(float("nan"))), min_size=1, max_size=60))
def test_the_vectorised_kernel_agrees_with_the_definition(values):
    scores = run(values)
    level, deviation, age = reference(values, 1.0, Tuning())
    assert scores.age[0] == age
    assert scores.level[0] == pytest.approx(level, abs=1e-2)
    assert scores.deviation[0] == pytest.approx(deviation, abs=1e-2)


def test_every_series_is_scored_alone_wherever_it_lies():
    rng = np.random.default_rng(3)
    many, values = Series(floor=1.0, size=40_000), rng.uniform(0, 100, (6, 40_000)).astype(np.float32)
    for row in values:
        many.update(row)
    for column in (0, 32_767, 32_768, 39_999):
        assert many.scores().level[column] == run(values[:, column]).level[0]
