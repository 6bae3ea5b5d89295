"""Detectors that compare a job with itself and its peers: regime change, straggler, hang, memory creep."""

import numpy as np
import pytest

from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.detectors import View, load_detectors
from compute_guard.usage.detectors.memory_creep import MemoryCreep, line, size_bytes
from compute_guard.usage.detectors.regime_change import RegimeChange
from compute_guard.usage.detectors.straggler import Straggler
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.samples import Frame
from compute_guard.usage.sources.synthetic import SECOND, Load, SyntheticSource

STEP = 15 * SECOND
NEW = ("USAG005", "USAG006", "USAG007", "USAG008")
GANG = 4


def watch(loads, detectors, *, samples=120, seed=9100, gang=GANG, change=None, since=0, kind="batch"):
    """First sample of each (kind, device index); devices are leased to jobs of ``gang`` devices each."""
    source = SyntheticSource(tuple(loads), samples, seed)
    book = LeaseBook.of(
        Lease(load.device.key, "acme", f"job-{i // gang}", start_ns=since, kind=kind)
        for i, load in enumerate(loads)
    )
    rolling, first = Rolling(STEP, 48), {}
    for number, frame in enumerate(source.frames()):
        values = {name: array.copy() for name, array in frame.values.items()}
        if change is not None:
            change(number, frame.device, values)
        rolling.push(Frame(frame.devices, frame.ts_ns, frame.device, values))
        for detector in detectors:
            for signal in detector.detect(View(rolling.snapshot(), book)):
                index = int(signal.device.rsplit("-", 1)[1])
                first.setdefault((signal.kind, index), number)
                assert signal.synthetic
                assert 0 <= signal.score <= 1000
    return first


def many(kind, count=12, **more):
    return [Load(kind, index=i, **more) for i in range(count)]


@pytest.mark.parametrize(
    "kind", ["training", "training-flat", "training-fp32", "inference", "idle-hold", "free"]
)
def test_nothing_is_said_about_honest_work(kind):
    detectors = [each for each in load_detectors() if each.rule_id in NEW]
    assert len(detectors) == 4
    assert watch(many(kind), detectors, samples=200) == {}


@pytest.mark.parametrize("after", ["mining-capped", "mining-full", "idle-hold"])
def test_a_training_job_that_turns_into_something_else_is_seen_within_five_minutes(after):
    seen = watch(many("training-flat", after=after, onset=60), [RegimeChange()], samples=90)
    assert len(seen) == 12
    assert min(seen.values()) >= 60
    assert max(seen.values()) - 60 <= 20


def test_a_new_job_is_not_compared_with_the_one_before_it():
    loads = many("idle-hold", after="training-flat", onset=60)
    assert watch(loads, [RegimeChange()], samples=90, since=(1_800_000_000 + 60 * 15) * SECOND) == {}
    assert watch(loads, [RegimeChange()], samples=90) != {}


def test_a_batch_job_of_one_device_that_stops_computing_is_told_and_a_service_that_rests_is_not():
    hung = many("training-flat", after="idle-hold", onset=60, count=4)
    seen = watch(hung, [Straggler()], samples=100, gang=1)
    assert set(seen) == {("hang", index) for index in range(4)}
    assert {at - 60 for at in seen.values()} == {23}
    assert watch(hung, [Straggler()], samples=100, gang=1, kind="service") == {}
    assert watch(many("training", count=24), [Straggler()], samples=200, gang=1) == {}


def slowed(number, device, values, *, who=2, onset=60, to=0.4):
    if number >= onset:
        mine = device == who
        values["tensor_active"][mine] *= to
        values["power_w"][mine] = 75 + (values["power_w"][mine] - 75) * to


def test_one_device_that_slows_down_beside_its_peers_is_named_and_they_are_not():
    seen = watch(many("training-flat"), [Straggler()], samples=90, change=slowed)
    assert set(seen) == {("straggler", 2)}
    assert 60 <= seen["straggler", 2] <= 80


def test_a_job_that_slows_down_as_a_whole_has_no_straggler():
    def all_slowed(number, device, values):
        for who in range(GANG):
            slowed(number, device, values, who=who)

    assert watch(many("training-flat", GANG), [Straggler()], samples=90, change=all_slowed) == {}


@pytest.mark.parametrize("util", [0.0, 100.0])
def test_a_job_that_stands_still_or_spins_in_a_collective_hangs(util):
    def hang(number, device, values):
        if number >= 60:
            stopped = device < GANG
            values["tensor_active"][stopped] = 0.0
            values["util_percent"][stopped] = util

    seen = watch(many("training-flat"), [Straggler()], samples=90, change=hang)
    assert [kind for kind, _ in seen] == ["hang"]
    assert 60 <= next(iter(seen.values())) <= 80


def leaking(mib_per_sample, onset=20):
    def change(number, device, values):
        if number >= onset:
            mine = device == 1
            grown = values["memory_used_bytes"][mine] * 0.1 + (number - onset) * mib_per_sample * 2**20
            values["memory_used_bytes"][mine] = np.minimum(grown + 20 * 2**30, 80 * 2**30)

    return change


def test_memory_that_creeps_is_told_with_the_time_that_is_left():
    loads = many("training")
    seen = watch(loads, [MemoryCreep()], samples=90, change=leaking(200))
    assert set(seen) == {("memory_creep", 1)}
    assert seen["memory_creep", 1] <= 70


def test_memory_that_creeps_so_slowly_that_the_end_is_far_is_left_alone():
    assert watch(many("training"), [MemoryCreep()], samples=90, change=leaking(8)) == {}


def test_the_forecast_of_a_straight_leak_is_right():
    values = np.stack([np.linspace(0, 39, 40), np.full(40, 5.0)], axis=1)
    values[7, 0] = np.nan
    slope, explained, last = line(values)
    assert slope[0] == pytest.approx(1.0)
    assert explained[0] == pytest.approx(1.0)
    assert last[0] == pytest.approx(39.0)
    assert not explained[1] > 0  # what does not vary is not explained


@pytest.mark.parametrize(
    ("model", "gib"),
    [("NVIDIA H100 80GB HBM3", 80), ("NVIDIA H200", 141), ("Tesla T4", 16), ("NVIDIA A100-SXM4", None)],
)
def test_the_size_of_a_device_is_known_or_not_guessed(model, gib):
    assert size_bytes(model) == (None if gib is None else gib * 2**30)
