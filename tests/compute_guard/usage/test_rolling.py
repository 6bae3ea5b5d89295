"""The time grid under all that telemetry does to it: gaps, doubles, disorder, floods, clock jumps, resets."""

import numpy as np
import pytest

from compute_guard.usage.rolling import Rolling
from compute_guard.usage.samples import Device, Frame, concat

STEP = 15_000_000_000
A, B, C = (Device(f"node-{n}", f"GPU-{n}") for n in "abc")


def tick(cell, values, devices=(A, B, C), metric="util_percent", offset=0):
    rows = [(i, v) for i, v in enumerate(values) if v is not None]
    kind = np.float64 if metric == "energy_j" else np.float32
    return Frame(
        devices,
        np.asarray([cell * STEP + offset] * len(rows), dtype=np.int64),
        np.asarray([i for i, _ in rows], dtype=np.int32),
        {metric: np.asarray([v for _, v in rows], dtype=kind)},
    )


def rolling(cells=8):
    return Rolling(step_ns=STEP, cells=cells)


def test_samples_land_in_their_cells_oldest_first():
    window = rolling(4)
    for cell in range(10, 13):
        window.push(tick(cell, [cell, None, 0]))
    values = window.snapshot().values["util_percent"]
    np.testing.assert_array_equal(values[:, 0], [np.nan, 10, 11, 12])
    assert np.isnan(values[:, 1]).all()


def test_a_doubled_sample_is_counted_and_changes_nothing():
    window = rolling()
    window.push(tick(10, [1, 2, 3]))
    window.push(tick(10, [9, 9, 9]))
    assert window.snapshot().values["util_percent"][-1].tolist() == [1, 2, 3]
    assert window.quality.duplicate == 3
    assert window.snapshot().scores["util_percent"].age.tolist() == [1, 1, 1]


def test_a_sample_doubled_within_one_scrape_is_counted_too():
    window = rolling()
    window.push(concat([tick(10, [1, 2, 3]), tick(10, [9, 2, 3])]))
    assert window.snapshot().values["util_percent"][-1].tolist() == [1, 2, 3]
    assert (window.quality.duplicate, window.quality.accepted) == (3, 3)


def test_an_old_sample_fills_its_own_cell_without_touching_newer_ones():
    window = rolling()
    window.push(tick(10, [1, 1, 1]))
    window.push(tick(12, [3, 3, 3]))
    window.push(tick(11, [2, None, None]), now_ns=12 * STEP)
    np.testing.assert_array_equal(window.snapshot().values["util_percent"][-3:, 0], [1, 2, 3])
    assert window.snapshot().scores["util_percent"].age[0] == 2  # running statistics never go backwards


def test_a_sample_older_than_the_window_is_counted_as_late():
    window = rolling(4)
    window.push(tick(100, [1, 1, 1]))
    window.push(tick(50, [9, None, None]), now_ns=100 * STEP)
    assert window.quality.late == 1
    assert window.quality.accepted == 3


def test_one_node_whose_clock_jumps_ahead_does_not_move_the_fleet():
    window = rolling()
    for cell in range(10, 16):
        jumped = Frame(
            (A, B, C),
            np.asarray([cell * STEP, cell * STEP, (cell + 240) * STEP], dtype=np.int64),
            np.arange(3, dtype=np.int32),
            {"util_percent": np.asarray([50, 60, 70], dtype=np.float32)},
        )
        window.push(jumped)
    assert window.quality.future == 6
    view = window.snapshot()
    assert view.end_ns == 16 * STEP
    assert view.coverage("util_percent", 6).tolist() == [1, 1, 0]


def test_a_clock_one_step_ahead_is_skew_and_still_counts():
    window = rolling()
    for cell in range(10, 16):
        window.push(tick(cell, [50, 50, 50]))
        window.push(tick(cell + 1, [None, None, 55]), now_ns=cell * STEP)
    assert window.quality.future == 0
    assert window.snapshot().scores["util_percent"].age[2] >= 6


def test_a_node_that_always_reports_one_cell_late_gets_as_old_as_any_other():
    window = rolling()
    for cell in range(10, 16):
        window.push(tick(cell, [50, 50, None]), now_ns=cell * STEP)
        window.push(tick(cell - 1, [None, None, 50]), now_ns=cell * STEP)
    assert window.snapshot().scores["util_percent"].age.tolist() == [6, 6, 6]


def test_a_flood_of_samples_ages_a_series_no_faster():
    window = rolling()
    for cell in range(10, 14):
        for part in range(10):
            window.push(tick(cell, [50, 50, 50], offset=part * STEP // 10))
    assert window.quality.samples == 120
    assert window.snapshot().scores["util_percent"].age.tolist() == [4, 4, 4]


def test_after_a_long_gap_the_past_is_forgotten_but_after_a_short_one_it_is_kept():
    window = rolling()
    for cell in (10, 11, 12, 15, 16):
        window.push(tick(cell, [50, 50, 50]))
    assert window.snapshot().scores["util_percent"].age[0] == 5
    window.push(tick(40, [50, 50, 50]))
    assert window.snapshot().scores["util_percent"].age[0] == 1
    assert window.snapshot().coverage("util_percent", 8).tolist() == [0.125] * 3
    assert window.quality.missed_cells == 3 * (2 + 23)


def test_a_counter_that_went_down_is_a_reset_and_gives_no_rate():
    window = rolling()
    for cell, energy in ((10, 1000.0), (11, 2500.0), (12, 100.0), (13, 1600.0)):
        window.push(tick(cell, [energy, energy, energy], metric="energy_j"))
    np.testing.assert_array_equal(window.snapshot().rate("energy_j")[-3:, 0], [100.0, np.nan, 100.0])
    assert window.quality.counter_resets == 3


def test_devices_may_appear_at_any_time():
    window = rolling()
    window.push(tick(10, [1], devices=(A,)))
    window.push(tick(11, [2, 3], devices=(A, B)))
    np.testing.assert_array_equal(window.snapshot().values["util_percent"][-2:], [[1, np.nan], [2, 3]])


def test_the_order_in_which_a_scrape_lists_devices_does_not_matter():
    one, two = rolling(), rolling()
    for cell in range(5):
        one.push(tick(cell, [cell, 2 * cell], devices=(A, B)))
        two.push(tick(cell, [2 * cell, cell], devices=(B, A)))
    first, second = one.snapshot(), two.snapshot()
    np.testing.assert_array_equal(first.values["util_percent"], second.values["util_percent"][:, ::-1])


def test_a_snapshot_does_not_move_with_the_window():
    window = rolling()
    window.push(tick(10, [1, 1, 1]))
    before = window.snapshot()
    window.push(tick(11, [2, 2, 2]))
    assert before.values["util_percent"][-1].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        before.values["util_percent"][0, 0] = 5


def test_an_empty_window_says_that_it_is_empty():
    with pytest.raises(ValueError, match="no sample"):
        rolling().snapshot()
