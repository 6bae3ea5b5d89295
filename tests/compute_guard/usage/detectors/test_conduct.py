"""What jobs and people do besides computing: reads and sends, submissions, refusals, shells, sensors."""

import numpy as np
import pytest

from compute_guard.usage.activity import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    Activity,
    DatasetRead,
    Flows,
    Refusal,
    Shell,
    Submission,
    program_of,
)
from compute_guard.usage.attribution import Lease, LeaseBook, Use
from compute_guard.usage.detectors import View
from compute_guard.usage.detectors.abnormal_export import AbnormalExport
from compute_guard.usage.detectors.control_plane_abuse import ControlPlaneAbuse
from compute_guard.usage.detectors.cross_tenant import CrossTenant
from compute_guard.usage.detectors.new_entrypoint import NewEntrypoint
from compute_guard.usage.detectors.off_hours import OffHours
from compute_guard.usage.detectors.sensor_integrity import SensorIntegrity
from compute_guard.usage.detectors.submission_burst import SubmissionBurst, poisson_tail
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.samples import Device, Frame

STEP = 15_000_000_000
GPUS = tuple(Device("n1", f"GPU-{i}", i) for i in range(4))
GIB = 2**30


def view(util=0.0, cells=20, devices=GPUS, leases=(), silent=(), uses=None, flows=None, **activity):
    rolling = Rolling(STEP, 48)
    for cell in range(cells):
        rows = [i for i in range(len(devices)) if not (i in silent and cell >= cells - 8)]
        levels = np.broadcast_to(np.asarray(util, dtype=np.float32), len(devices))[rows]
        rolling.push(
            Frame(
                devices,
                np.full(len(rows), (1000 + cell) * STEP),
                np.asarray(rows, dtype=np.int32),
                {"util_percent": levels},
            ),
            now_ns=(1000 + cell) * STEP,
        )
    return View(
        rolling.snapshot(),
        LeaseBook.of(leases),
        uses or {},
        activity=Activity(**activity),
        flows=flows or Flows(),
    )


def sent(total, start_cell=1005, end_cell=1020):
    """``total`` bytes leave node n1 evenly between two cells."""
    flows = Flows()
    for cell in range(1000, end_cell):
        rate = total / ((end_cell - start_cell - 1) * 15) if cell > start_cell else 0.0
        flows.take({"n1": rate}, cell * STEP)
    return flows


def read(size, cell=1005, purpose="train", job="job-1"):
    return DatasetRead("acme/d@1", "acme", job, purpose, size, cell * STEP)


MINE = Lease(GPUS[0].key, "acme", "job-1")
AT = 1020 * STEP - 1


def export(util=2.0, size=4 * GIB, out=3 * GIB, purpose="train", leases=(MINE,)):
    found = AbnormalExport().detect(
        view(util, leases=leases, reads=(read(size, purpose=purpose),), flows=sent(out))
    )
    return list(found)


def test_a_job_that_reads_rests_and_sends_is_told():
    (signal,) = export()
    assert (signal.tenant, signal.job, signal.channel) == ("acme", "job-1", "egress")
    assert signal.evidence["sent_bytes"] == pytest.approx(3 * GIB, rel=0.01)
    assert signal.evidence["datasets"] == ["acme/d@1"]


@pytest.mark.parametrize(
    "honest",
    [
        {"util": 85.0},
        {"out": GIB},
        {"purpose": "export"},
        {"out": 200 * 2**20, "size": 2**20},
        {"leases": ()},
    ],
)
def test_training_small_traffic_and_allowed_exports_are_not(honest):
    assert export(**honest) == []


def test_on_a_shared_node_it_is_said_that_it_may_be_the_neighbours_traffic():
    neighbour = Lease(GPUS[1].key, "beta", "job-b")
    (signal,) = export(leases=(MINE, neighbour))
    assert signal.evidence["node_shared_with_other_tenants"]
    assert signal.score < export()[0].score


def test_bytes_are_integrated_over_time_and_gaps_are_not_made_up():
    flows = Flows()
    flows.call([("10.0.0.7", "n7")])
    for at in (0, 15, 30, 1_000, 1_015):
        flows.take({"n7": 100.0}, at * 1_000_000_000)
    flows.take({"n7": float("nan")}, 1_030_000_000_000)
    flows.take({"n7": 9e9}, 5_000_000_000)  # late
    assert flows.since("10.0.0.7", 0) == 4_500.0
    assert flows.since("n7", 30_000_000_000) == 1_500.0
    assert flows.since("elsewhere", 0) == 0.0


def habit(count=60, every=8 * HOUR_NS, program="train#1", off=False):
    return tuple(
        Submission(f"old-{i}", "acme", "ada", AT - DAY_NS - i * every, program, off_hours=off)
        for i in reversed(range(count))
    )


def test_a_day_worker_at_night_is_told_and_a_night_worker_is_not():
    now = Submission("new", "acme", "eve", AT - MINUTE_NS, "train#1", off_hours=True)
    (signal,) = OffHours().detect(view(submissions=(*habit(), now)))
    assert (signal.job, signal.evidence["user"]) == ("new", "eve")
    assert not list(OffHours().detect(view(submissions=(*habit(off=True), now))))
    assert not list(OffHours().detect(view(submissions=(*habit(5), now))))


def test_a_program_new_to_a_settled_tenant_is_told_once_and_its_arguments_are_nobodys():
    now = Submission("new", "acme", "eve", AT - MINUTE_NS, program_of("/tmp/.x/burn --wallet s3cret"))
    (signal,) = NewEntrypoint().detect(view(submissions=(*habit(), now)))
    assert signal.evidence["program"].startswith("burn#")
    assert "s3cret" not in str(signal)
    restless = tuple(Submission(f"o{i}", "acme", "a", AT - DAY_NS, f"p{i}") for i in range(60))
    assert not list(NewEntrypoint().detect(view(submissions=(*restless, now))))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("python -u /a/train_v2.py --lr 3", "python3 train_v9.py", True),
        ("bash -c 'python run.py'", "python run.py", True),
        ("python train.py", "python serve.py", False),
        ("", "", True),
    ],
)
def test_a_program_is_told_by_its_name(one, other, same):
    assert (program_of(one) == program_of(other)) is same


def test_a_burst_is_measured_against_the_busiest_hour_of_the_week():
    burst = tuple(Submission(f"b{i}", "acme", "bot", AT - i * 10**9) for i in range(40))
    (signal,) = SubmissionBurst().detect(view(submissions=(*habit(20), *burst)))
    assert (signal.tenant, signal.job, signal.evidence["recent"]) == ("acme", "", 40)
    busy = tuple(Submission(f"w{i}", "acme", "bot", AT - DAY_NS - i * 10**9) for i in range(240))
    assert not list(SubmissionBurst().detect(view(submissions=(*busy, *burst))))


def test_the_poisson_tail_is_the_exact_one_to_a_few_percent():
    from math import exp, factorial, log10

    exact = -log10(1 - sum(exp(-4.0) * 4.0**k / factorial(k) for k in range(15)))
    assert poisson_tail(15, 4.0) == pytest.approx(exact, rel=0.02)
    assert poisson_tail(3, 4.0) == 0.0


def test_refused_credentials_probing_and_unadmitted_work_are_three_channels():
    refused = (
        Refusal("credentials", "", "authentication", AT - MINUTE_NS, count=25),
        *(Refusal("eve", "acme", "isolation", AT - i * 10**9) for i in range(30)),
        Refusal("raysubmit_1", "", "unadmitted", AT - MINUTE_NS),
        Refusal("old", "", "unadmitted", AT - HOUR_NS),
    )
    found = {s.channel: s for s in ControlPlaneAbuse().detect(view(refusals=refused))}
    assert set(found) == {"authentication", "denied", "unadmitted"}
    assert (found["denied"].tenant, found["denied"].job) == ("acme", "eve")
    few = (Refusal("credentials", "", "authentication", AT, count=5),)
    assert not list(ControlPlaneAbuse().detect(view(refusals=few)))


def test_a_shell_below_a_worker_is_told_with_its_job():
    shell = Shell("n1", "acme", "job-1", "bash", 4242)
    (signal,) = ControlPlaneAbuse().detect(view(shells=(shell,)))
    assert (signal.channel, signal.tenant, signal.job) == ("shell", "acme", "job-1")
    assert signal.evidence["executables"] == ["bash"]


def test_an_unknown_or_exchanged_driver_library_is_an_invariant():
    (changed,) = SensorIntegrity().detect(view(libraries={"n1": "aa>bb"}))
    assert changed.invariant
    assert not list(SensorIntegrity().detect(view(libraries={"n1": "aa"})))
    listed = SensorIntegrity(library_sha256=("aa",))
    assert not list(listed.detect(view(libraries={"n1": "aa"})))
    (unlisted,) = listed.detect(view(libraries={"n1": "cc"}))
    assert unlisted.evidence["sha256"] == "cc"


def test_a_held_device_that_falls_silent_alone_is_told_and_a_silent_fleet_is_not():
    (signal,) = SensorIntegrity().detect(view(leases=(MINE,), silent={0}))
    assert (signal.channel, signal.tenant) == ("gap", "acme")
    assert not list(SensorIntegrity().detect(view(leases=(MINE,), silent={0, 1, 2, 3})))
    assert not list(SensorIntegrity().detect(view(silent={0})))  # nobody holds it


def test_two_exporters_that_disagree_about_one_device_are_told():
    twins = (Device("n1", "GPU-0", 0), Device("n1", "index-0", 0))
    (signal,) = SensorIntegrity().detect(view([0.0, 97.0], devices=twins))
    assert (signal.channel, signal.evidence["util_percent"]) == ("source", [0.0, 97.0])
    assert not list(SensorIntegrity().detect(view([90.0, 97.0], devices=twins)))
    three = (*twins, Device("n1", "dcgm-0", 0))
    found = list(SensorIntegrity().detect(view([0.0, 97.0, 2.0], devices=three)))
    assert [signal.evidence["util_percent"] for signal in found] == [[0.0, 97.0], [97.0, 2.0]]
    slices = (Device("n1", "GPU-0/1", 0), Device("n1", "GPU-0/2", 0))
    assert not list(SensorIntegrity().detect(view([0.0, 97.0], devices=slices)))


def test_a_process_of_one_tenant_on_anothers_device_is_a_broken_invariant():
    mine = Lease(GPUS[0].key, "acme", "job-1", pids=frozenset({7}))
    theirs = Lease(GPUS[1].key, "beta", "job-b", pids=frozenset({8}))
    uses = {GPUS[1].key: (Use(7, "python", None, GIB), Use(8, "python", None, GIB))}
    (signal,) = CrossTenant().detect(view(leases=(mine, theirs), uses=uses))
    assert (signal.tenant, signal.job, signal.channel) == ("acme", "job-1", "process")
    assert signal.invariant
    own = {GPUS[0].key: (Use(7, "python", None, GIB),)}
    assert not list(CrossTenant().detect(view(leases=(mine, theirs), uses=own)))


def test_a_device_of_a_reserved_node_is_for_its_tenants_only():
    (signal,) = CrossTenant().detect(view(leases=(MINE,), reserved={"n1": frozenset({"beta"})}))
    assert (signal.channel, signal.tenant) == ("pool", "acme")
    assert not list(CrossTenant().detect(view(leases=(MINE,), reserved={"n1": frozenset({"acme"})})))
