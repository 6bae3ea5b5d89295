"""The monitor as operators run it, short of a cluster: recordings, brakes, restarts, one at a time."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from compute_guard.admission.workload import WorkloadState
from compute_guard.incidents.store import Incidents
from compute_guard.ledger.store import Ledger
from compute_guard.monitoring.live import Fleet, HostNames, Watch, only_one, read_leases, read_status
from compute_guard.monitoring.monitor import Monitor
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.samples import Device, Frame, to_table
from compute_guard.usage.sources.prometheus import PrometheusSource
from compute_guard.usage.sources.synthetic import SECOND, Load, SyntheticSource
from guard_core.cli import root
from guard_core.errors import UserError

MINER = Load("idle-hold", node="n1", after="mining-capped", onset=10)
POOL = "python burn.py --url stratum+tcp://pool.invalid:3333"


def watch(home, cluster, samples=30, stop_after=None, **options):
    book = LeaseBook.of([Lease(MINER.device.key, "canary", "job-1", entrypoint=POOL)])
    said, scrapes = [], []

    def stopped():
        scrapes.append(1)
        return stop_after is not None and len(scrapes) >= stop_after

    source = SyntheticSource((MINER,), samples, seed=21)
    monitor = Monitor(home, book, cluster, **options)
    return Watch(monitor, source, book, stopped=stopped, say=said.append), said


def invoke(home_dir, *args):
    return CliRunner().invoke(root, ["--home", str(home_dir), "compute", "monitor", *args])


def test_a_watch_stops_a_miner_and_leaves_a_status_to_read(still_home, waiting_job, cluster):
    waiting_job("job-1", tenant="canary")
    run, _ = watch(still_home, cluster)
    run.run()
    assert Ledger(still_home.storage).get("job-1").state is WorkloadState.EVICTED
    status = read_status(still_home)
    assert status["scrapes"] == 30
    assert [device["node"] for device in status["devices"]] == ["n1"]
    assert status["synthetic"] is True


def test_the_kill_switch_keeps_a_watch_from_acting_but_not_from_seeing(still_home, waiting_job, cluster):
    waiting_job("job-1", tenant="canary")
    switch = still_home.path("response", "kill-switch")
    switch.parent.mkdir(parents=True)
    switch.write_text("ada")
    run, _ = watch(still_home, cluster)
    run.run()
    assert Ledger(still_home.storage).get("job-1").state is WorkloadState.PENDING
    steps = {step.level: step.state for step in run.monitor.report().actions}
    assert steps == {0: "done", 1: "done", 2: "done", 5: "blocked"}


def test_a_watch_that_is_told_to_stop_ends_after_its_scrape_and_the_next_goes_on(
    still_home, waiting_job, cluster
):
    waiting_job("job-1", tenant="canary")
    first, _ = watch(still_home, cluster, stop_after=12)
    first.run()
    assert first.scrapes == 12
    assert Ledger(still_home.storage).get("job-1").state is WorkloadState.PENDING
    second, _ = watch(still_home, cluster)
    second.run()
    assert len(Incidents(still_home).list()) == 1
    assert Ledger(still_home.storage).get("job-1").state is WorkloadState.EVICTED


def test_a_dry_run_says_what_it_sees_and_stores_nothing(still_home, waiting_job, cluster):
    waiting_job("job-1", tenant="canary")
    run, _ = watch(still_home, cluster, record=False, respond=False)
    seen = []
    run.on_observation = lambda observation: seen.append(observation.key)
    run.run()
    assert seen == [("canary", "job-1", "mining")]
    assert Incidents(still_home).list() == []
    assert Ledger(still_home.storage).get("job-1").state is WorkloadState.PENDING
    assert not still_home.path("telemetry").exists()


def test_only_one_monitor_watches_a_home_for_real(still_home):
    with (
        only_one(still_home),
        pytest.raises(UserError, match="another monitor of this home runs"),
        only_one(still_home),
    ):
        pytest.fail("two at once")
    with only_one(still_home):
        pass


def test_a_recording_is_judged_from_the_command_line_and_changes_nothing(home, home_dir, tmp_path):
    recording, leases = tmp_path / "hour.parquet", tmp_path / "leases.json"
    pq.write_table(to_table(SyntheticSource((MINER,), 30, seed=21).read()), recording)
    leases.write_text(
        json.dumps([{"device": MINER.device.key, "tenant": "acme", "job": "j", "entrypoint": POOL}])
    )
    args = ("--source", "replay", str(recording), "--leases", str(leases))
    answer = invoke(home_dir, *args)
    assert answer.exit_code == 0
    assert "dry run" in answer.stdout
    assert "mining  acme/j" in answer.stdout
    assert "(exercise)" in answer.stdout
    report = json.loads(invoke(home_dir, *args, "--format", "json").stdout)
    assert (report["ticks"], report["dry_run"], report["incidents"]) == (30, True, [])
    assert Incidents(home).list() == []
    leases.write_text(json.dumps([{"device": "n1/GPU-9", "tenant": "acme", "job": "j"}]))
    words = invoke(home_dir, *args).stderr
    assert "names 'n1/GPU-9', which no reading is of" in words
    assert repr(MINER.device.key) in words


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--source", "replay"), "needs exactly one recording"),
        (("--source", "replay", "gone.parquet"), "does not exist"),
        (("http://127.0.0.1:1/metrics",), "no cluster of this home"),
        (("--source", "nvml", "here"), "takes no address"),
    ],
)
def test_what_cannot_be_watched_is_said_in_one_sentence(home_dir, args, words):
    answer = invoke(home_dir, *args)
    assert words in str(answer.exception)
    assert isinstance(answer.exception, UserError)


def test_leases_that_are_not_a_list_of_leases_are_refused(tmp_path):
    path = tmp_path / "leases.json"
    for text in ("{", "3", '[{"device": "d"}]', '[{"unknown": 1}]'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"leases\.json cannot be read"):
            read_leases(path)


def test_the_time_an_answer_takes_does_not_move_the_next_scrape(monkeypatch):
    clock, waited = [1_800_000_000_000_000_000], []

    def pause(seconds):
        waited.append(seconds)
        clock[0] += round(seconds * 1e9)

    monkeypatch.setattr(Fleet, "scrape", lambda self: (clock[0], True))
    taken = []
    for moment in Fleet(list, 2.0, pause, now_ns=lambda: clock[0]).frames():
        taken.append(moment)
        clock[0] += 700_000_000  # the monitor judges and answers
        if len(taken) == 4:
            break
    assert [b - a for a, b in pairwise(taken[1:])] == [2_000_000_000] * 2
    assert waited[1:] == [1.3] * 2


def test_an_exporter_that_never_answers_is_an_error_and_one_that_stops_is_counted(monkeypatch):
    feed = Fleet(lambda: [("http://127.0.0.1:1/metrics", "n")], 0.0, lambda _: None)
    with pytest.raises(UserError, match="cannot be read"):
        next(feed.frames())
    assert feed.failures == 1


def frame_of(*devices):
    rows = np.arange(len(devices), dtype=np.int32)
    return Frame(tuple(devices), np.full(len(devices), 15 * SECOND), rows, {"util_percent": rows + 50.0})


def test_a_node_has_one_name_whatever_its_exporters_call_it():
    names, ours = HostNames(), {"10.0.0.5": "n1", "n1": "n1"}
    ray, dcgm = Device("10.0.0.5", "index-0", 0), Device("n1", "GPU-a", 0)
    found = names.applied(frame_of(ray, dcgm), ours)
    assert [device.key for device in found.devices] == ["n1/index-0", "n1/GPU-a"]
    rolling = Rolling(15 * SECOND, 4)
    rolling.push(found)
    assert rolling.snapshot().twins == ((0, 1),)
    assert rolling.copies().tolist() == [1]


def test_a_device_keeps_the_name_it_was_first_seen_under():
    names, device = HostNames(), Device("10.0.0.5", "index-0", 0)
    assert names.applied(frame_of(device), {}).devices == (device,)  # Ray did not answer yet
    assert names.applied(frame_of(device), {"10.0.0.5": "n1"}).devices == (device,)


def test_a_gpu_that_two_exporters_report_ran_once(still_home):
    whole, again, sliced = Device("n1", "GPU-a", 0), Device("n1", "index-0", 0), Device("n1", "GPU-b/1", 1)
    lease = Lease(whole.key, "acme", "job-1")
    monitor = Monitor(still_home, LeaseBook.of([lease, replace(lease, device=again.key)]), None)
    for tick in (1, 2):
        frame = frame_of(whole, again, sliced)
        monitor.take(replace(frame, ts_ns=frame.ts_ns * tick), 15 * SECOND * tick)
    rows = {row["tenant"]: row["gpu_ms"] for row in monitor.report().attribution if row["bucket"] == "tenant"}
    assert rows == {"acme": 15_000}
    assert monitor.report().device_ms == 30_000


def test_a_monitor_that_cannot_keep_its_interval_says_so_once_until_it_can_again():
    times = [0.0, 2.0, 2.0, 15.0, 18.0, 18.0, 30.0, 30.5, 30.5, 31.5]  # begun, judged, asked for the next
    clock = iter([int(seconds * SECOND) for seconds in times])
    exporter = "http://n1/metrics"
    fleet = Fleet(lambda: [(exporter, "")], 1.0, lambda _: None, now_ns=lambda: next(clock))
    fleet._readers[exporter] = PrometheusSource(exporter, fetch=lambda _: b"", now_ns=lambda: 0)
    frames, paces = fleet.frames(), []
    for _ in range(4):
        next(frames)
        paces.append((fleet.overruns, fleet.pace))
    said = "a scrape took 2.0 s, longer than its interval; raise --interval (1)"
    assert paces == [(0, ""), (1, said), (2, said), (2, "")]
