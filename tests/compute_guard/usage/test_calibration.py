"""Tails are learned from the fleet in shadow, kept whole, and not taught by what was reported."""

import numpy as np
import pytest

from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.calibration import FLEET, OWN_CELLS, Calibration
from compute_guard.usage.detectors import View
from compute_guard.usage.detectors.atypical_load import AtypicalLoad
from compute_guard.usage.features import CELLS, FEATURES, features
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.roster import Classes, roster
from compute_guard.usage.samples import Device, Frame
from compute_guard.usage.typicality import Typicality
from compute_guard.usage.window import Window
from guard_core.errors import UserError

STEP = 15_000_000_000
ROWS = list(FEATURES)
PODS = 24


def window_of(util, memory=None) -> Window:
    """The last CELLS cells of (T, S) utilisations, pushed one by one."""
    rolling = Rolling(STEP, CELLS)
    memory = np.full_like(util, 8.0) if memory is None else memory
    devices = tuple(Device("n", f"GPU-{i}", i, "H100") for i in range(util.shape[1]))
    for t in range(len(util)):
        values = {
            "util_percent": util[t].astype(np.float32),
            "memory_used_bytes": (memory[t] * 2**30).astype(np.float32),
        }
        where = np.arange(util.shape[1], dtype=np.int32)
        rolling.push(Frame(devices, np.full(util.shape[1], t * STEP), where, values))
    return rolling.snapshot()


def serving(cells, seed, pods=PODS):
    """Requests come and go, with rests: (cells, pods)."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((cells, pods)) < 0.6, 0.0, rng.gamma(2.0, 10.0, (cells, pods)).clip(0, 90))


def feed(judge, util, *, start=0, memory=None, pods=PODS):
    """Run (T, S) through a rolling window and a judgement; signals by cell."""
    rolling = Rolling(STEP, CELLS)
    devices = tuple(Device("n", f"GPU-{i}", i, "H100") for i in range(pods))
    book = LeaseBook.of([Lease(d.key, "acme", f"job-{d.index}", kind="service") for d in devices])
    told = {}
    for t in range(len(util)):
        values = {
            "util_percent": util[t].astype(np.float32),
            "memory_used_bytes": np.full(pods, 8.0 * 2**30, dtype=np.float32)
            if memory is None
            else memory[t],
        }
        at = np.full(pods, (start + t) * STEP)
        rolling.push(Frame(devices, at, np.arange(pods, dtype=np.int32), values))
        window = rolling.snapshot()
        typical = judge.judge(window, roster(book, window.columns, len(window.devices)))
        signals = list(AtypicalLoad().detect(View(window, book, typical=typical)))
        judge.learn(window, {s.device for s in signals})
        for signal in signals:
            told.setdefault(int(signal.device.rsplit("-", 1)[1]), (t, signal))
    return told


@pytest.fixture(scope="module")
def taught():
    judge = Typicality(Calibration(15.0, shadow_hours=20.0))
    assert feed(judge, serving(420, 1)) == {}
    return judge


def test_features_say_what_their_words_say():
    util = np.zeros((CELLS, 3))
    util[:, 1] = 50.0
    util[:, 2] = np.tile([0.0, 80.0], CELLS // 2)
    memory = np.full((CELLS, 3), 8.0)
    memory[:, 0] = 8.0 + 0.05 * np.arange(CELLS)
    found = dict(zip(ROWS, features(window_of(util, memory)), strict=True))
    assert found["rest_12"].tolist() == [0.0, 50.0, 0.0]
    assert found["mean_40"].tolist() == [0.0, 50.0, 40.0]
    assert found["high_40"].tolist() == [0.0, 50.0, 80.0]
    assert found["low_40"].tolist() == [0.0, 50.0, 0.0]
    assert found["busy_40"].tolist() == [0.0, 40.0, 20.0]
    assert np.expm1(found["flatness_5"]).tolist() == pytest.approx([0.0, 25.0, 48 / 82], abs=1e-4)
    assert found["growth_48"][0] == pytest.approx(0.05 * (CELLS - 1), rel=1e-3)
    assert found["rises_48"].tolist() == [CELLS - 1, 0.0, 0.0]


def test_a_window_with_gaps_has_no_features():
    util = np.full((CELLS, 2), 50.0)
    util[-3, 0] = np.nan
    found = features(window_of(util))
    assert np.isnan(found[:8, 0]).all()
    assert np.isfinite(found[:, 1]).all()


def test_a_load_without_rest_is_told_within_six_samples_and_with_what_is_usual(taught):
    util = serving(CELLS + 20, 2)
    util[CELLS:, 3] = 57.0
    told = feed(taught, util, start=1_000)
    assert set(told) == {3}
    at, signal = told[3]
    assert at - CELLS < 6
    assert set(signal.evidence["features"]) <= set(ROWS)
    assert signal.evidence["class"] == "service/H100"
    assert all(
        signal.evidence["features"][name] > signal.evidence["usual_at_most"][name]
        for name in signal.evidence["features"]
    )


def test_nothing_is_said_before_the_fleet_has_been_watched_long_enough():
    judge = Typicality(Calibration(15.0, shadow_hours=1e6))
    util = serving(CELLS + 40, 3)
    util[:, 0] = 60.0
    assert feed(judge, util) == {}
    assert judge.calibration.tails(("service", "H100")) is None
    assert judge.calibration.hours(FLEET) > 0


def test_a_young_class_borrows_the_fleets_tails(taught):
    assert taught.calibration.tails(("notebook", "L4")) is taught.calibration.tails(FLEET)


def test_what_is_reported_teaches_nothing():
    judge = Typicality(Calibration(15.0, shadow_hours=20.0))
    feed(judge, serving(420, 1))
    before = judge.calibration.tails(("service", "H100"))
    util = serving(400, 5)
    util[:, 3] = 57.0
    feed(judge, util, start=1_000)
    judge.calibration._tails.clear()
    after = judge.calibration.tails(("service", "H100"))
    row = ROWS.index("rest_12")
    assert after.start[0][row] == pytest.approx(before.start[0][row], abs=2.0)
    assert after.scale[0][row] < 6.0


def test_a_device_is_also_measured_against_its_own_past():
    calibration = Calibration(15.0)
    values = np.zeros((len(FEATURES), 1), dtype=np.float32)
    quiet = np.ones(1, dtype=np.bool_)
    for _ in range(OWN_CELLS + 60):
        calibration.learn(values + 10.0, Classes.of([("batch", "A")]), quiet)
    assert calibration.exceedance(values + 25.0)[:, 0] == pytest.approx(15.0)
    fresh = Calibration(15.0)
    assert np.isnan(fresh.exceedance(values)).all()


def test_the_calibration_is_kept_whole_and_read_back_the_same(tmp_path, taught):
    path = tmp_path / "calibration.npz"
    taught.calibration.save(path)
    again = Calibration.load(path, step_seconds=15.0, shadow_hours=20.0)
    assert again.classes() == taught.calibration.classes()
    for name in again.classes():
        assert np.array_equal(again._counts[name], taught.calibration._counts[name])
    other_step = Calibration.load(path, step_seconds=60.0)
    assert other_step.classes() == {}
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="damaged"):
        Calibration.load(path, step_seconds=15.0)
    assert Calibration.load(tmp_path / "none", step_seconds=15.0).classes() == {}


def test_two_fleets_make_one(taught):
    both = Calibration(15.0)
    both.merge(taught.calibration)
    both.merge(taught.calibration)
    assert both.hours(FLEET) == pytest.approx(2 * taught.calibration.hours(FLEET))


def test_made_up_readings_teach_a_real_fleet_nothing():
    device = Device("n", "SYN-1", 0, "H100", synthetic=True)
    rolling = Rolling(STEP, CELLS)
    judge = Typicality(Calibration(15.0))
    for t in range(CELLS + 20):
        values = {"util_percent": np.zeros(1, np.float32), "memory_used_bytes": np.ones(1, np.float32)}
        rolling.push(Frame((device,), np.full(1, t * STEP), np.zeros(1, np.int32), values))
        window = rolling.snapshot()
        judge.judge(window, roster(LeaseBook(), window.columns, len(window.devices)))
        judge.learn(window, ())
    assert judge.calibration.hours(FLEET) == 0.0
