"""How new a course is: the streaming sums are the distances they stand for, and alarms rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.usage.novelty import LIMIT, Alarms, Novelty, Stretches, Tail

DAY = 96


def nearest(values, length, lags=None):
    """By comparing every stretch with the last one."""
    last = values[-length:]
    found = [
        float(np.sqrt(((values[len(values) - length - lag : len(values) - lag] - last) ** 2).sum()))
        for lag in range(length, len(values) - length + 1)
        if lags is None or lag in lags
    ]
    return min(found, default=0.0)


@given(st.integers(2, 9), st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.integers(12, 80))
@settings(max_examples=60, deadline=None)
def test_the_streaming_distance_is_the_distance_to_the_nearest_earlier_stretch(length, values, keep):
    stretches, lags = Stretches(length, keep), np.asarray([length, 17, 23])
    series = np.asarray(values, dtype=np.float64)
    for seen in range(1, len(series) + 1):
        stretches.take(series[max(0, seen - keep - length - 1) : seen])
    reachable = series[max(0, len(series) - keep - length) :]
    assert stretches.nearest(len(series)) == pytest.approx(nearest(reachable, length), abs=1e-3)
    at_lags = nearest(reachable, length, set(lags.tolist()))
    assert stretches.nearest(len(series), lags) == pytest.approx(at_lags, abs=1e-3)


def test_a_tail_forgets_what_is_older_than_it_keeps():
    tail, fresh = Tail(keep=50), Tail(keep=50)
    for value in [1e9] * 50 + list(range(50)):
        tail.take(value)
    for value in range(50):
        fresh.take(value)
    assert tail.take(70.0) == fresh.take(70.0) > 1.0


def days(count, seed=0):
    """A tenant that computes from eight to six, a little differently each day."""
    rng = np.random.default_rng(seed)
    hours = np.arange(count * DAY) % DAY / DAY * 24
    return 8.0 * ((hours >= 8) & (hours < 18)) + rng.normal(0, 0.3, count * DAY)


def scores(values):
    novelty = Novelty(DAY, keep=14 * DAY)
    return [novelty.take(value) for value in values]


def test_a_night_of_work_is_new_by_its_hour_though_its_level_is_every_days():
    values = days(12)
    values[11 * DAY + 8 : 11 * DAY + 24] += 8.0  # two to six in the morning
    told = scores(values)
    total = np.asarray([sum(parts.values()) for parts in told])
    night = slice(11 * DAY + 8, 11 * DAY + 24)
    assert total[3 * DAY : 11 * DAY].max() < LIMIT < total[night].max()
    first = int(np.argmax(total[night] >= LIMIT))
    assert first <= 6
    worst = told[11 * DAY + 8 + int(np.argmax(total[night]))]
    assert worst["hour"] > worst["level"]


def test_after_an_alarm_it_rests_the_longer_the_more_was_seen_up_to_what_it_keeps():
    def told(seen_from, seen_to):
        alarms = Alarms(quiet=100, keep=2_000)
        return [seen for seen in range(seen_from, seen_to) if alarms.take(LIMIT, seen)]

    assert told(1, 101) == []
    assert told(101, 160) == [101, 117, 133, 149]
    early, late = np.diff(told(1_000, 1_400)), np.diff(told(5_000, 5_400))
    assert early.max() < late.min() == late.max() == 81
    assert not Alarms(quiet=0, keep=10).take(LIMIT - 0.01, 50)
