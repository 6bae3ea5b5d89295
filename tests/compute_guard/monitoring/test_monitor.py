"""A recording goes in; incidents, attributed seconds, steps and evidence come out."""

from __future__ import annotations

import html
import resource
import sqlite3
from contextlib import closing, contextmanager

import numpy as np
import pytest

from compute_guard.admission.workload import WorkloadState
from compute_guard.incidents import evidence
from compute_guard.incidents.incident import State
from compute_guard.incidents.store import Incidents
from compute_guard.ledger.store import Ledger
from compute_guard.monitoring.monitor import STEP_NS, Monitor, replay
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.history import History
from compute_guard.usage.samples import Frame, concat
from compute_guard.usage.sources.synthetic import SECOND, Load, SyntheticSource
from guard_core.errors import Undecidable

MINER = Load("idle-hold", node="n1", after="mining-capped", onset=20)
TRAINER = Load("training", node="n2")
POOL = "python burn.py --url stratum+tcp://pool.invalid:3333"


def recording(*loads, samples=40, seed=21):
    return SyntheticSource(loads, samples, seed)


def leases(tenant="canary", job="job-1", entrypoint=POOL):
    return LeaseBook.of(
        [
            Lease(MINER.device.key, tenant, job, entrypoint=entrypoint),
            Lease(TRAINER.device.key, "beta", "job-t", entrypoint="python train.py"),
        ]
    )


def test_a_capped_miner_is_found_stopped_and_written_up_and_its_neighbour_left_alone(
    still_home, waiting_job, cluster
):
    waiting_job("job-1", tenant="canary")
    waiting_job("job-t", tenant="beta")
    report = replay(still_home, recording(MINER, TRAINER), leases(), cluster)
    (incident,) = report.incidents
    assert (incident.tenant, incident.job, incident.kind) == ("canary", "job-1", "mining")
    assert (incident.severity, incident.state) == ("incident", State.CONTAINED)
    assert incident.channels == ("indicator", "telemetry")
    ledger = Ledger(still_home.storage)
    assert ledger.get("job-1").state is WorkloadState.EVICTED
    assert ledger.get("job-t").state is WorkloadState.PENDING
    assert {action.level: action.state for action in report.actions} == dict.fromkeys((0, 1, 2, 5), "done")
    folder = still_home.path("incidents", incident.id)
    assert evidence.verify(folder, still_home.signer.verifier) == []
    assert (folder / "notices" / "regulator.zh.md").is_file()


def test_the_warning_comes_before_the_incident_and_the_incident_within_six_samples(still_home, cluster):
    states = []
    replay(
        still_home,
        recording(MINER, TRAINER),
        leases(),
        cluster,
        on_incident=lambda i: states.append((i.severity, i.evidence["incident_since"])),
    )
    assert states[0][0] == "warning"  # the entrypoint alone, before any load
    since = next(at for severity, at in states if severity == "incident")
    onset = 1_800_000_000 + 20 * 15
    assert 0 < np.datetime64(since[:-1], "s").astype(int) - onset <= 6 * 15


def test_telemetry_alone_warns_and_stops_nothing(still_home, waiting_job, cluster):
    waiting_job("job-1", tenant="canary")
    report = replay(still_home, recording(MINER), leases(entrypoint="python simulate.py"), cluster)
    (incident,) = report.incidents
    assert (incident.severity, incident.channels) == ("warning", ("telemetry",))
    assert Ledger(still_home.storage).get("job-1").state is WorkloadState.PENDING


def test_every_second_of_every_device_is_accounted_for(still_home):
    source = recording(MINER, TRAINER, Load("free", node="n3"))
    report = replay(still_home, source, leases(), None)
    frame = source.read()
    spans = [np.ptp(frame.ts_ns[frame.device == d]) for d in range(3)]
    assert report.device_ms == sum(spans) // 1_000_000
    held = {(r["bucket"], r["tenant"]): r["gpu_ms"] for r in report.attribution}
    assert set(held) == {("tenant", "canary"), ("tenant", "beta"), ("system", "")}
    assert abs(sum(held.values()) - report.device_ms) <= len(held)  # each row is rounded to milliseconds


def test_made_up_telemetry_is_said_to_be_so_from_the_report_to_the_notice(still_home, cluster):
    report = replay(still_home, recording(MINER, TRAINER), leases(), cluster)
    assert report.synthetic
    assert report.incidents[0].synthetic
    notice = still_home.path("incidents", report.incidents[0].id, "notices", "customer.en.md").read_text()
    assert notice.startswith("**EXERCISE.")


def test_a_stranger_on_a_free_device_is_nobodys_incident(still_home):
    load = Load("mining-full", node="n9", process=(4242, "kdevtmpfsi"))
    report = replay(still_home, recording(load, samples=10), LeaseBook(), None)
    kinds = {(i.kind, i.tenant, i.severity) for i in report.incidents}
    assert ("unattributed_process", "unattributed", "incident") in kinds
    assert ("mining", "unattributed", "incident") in kinds  # its name, and what it computes
    assert {row["bucket"] for row in report.attribution} == {"unattributed"}


def test_when_the_signal_passes_a_warning_closes_itself(still_home):
    load = Load("mining-capped", node="n1", after="training", onset=20)
    report = replay(still_home, recording(load), LeaseBook.of([Lease(load.device.key, "acme", "j")]), None)
    (incident,) = report.incidents
    assert (incident.severity, incident.state) == ("warning", State.RESOLVED)


def test_a_second_monitor_goes_on_with_the_incidents_of_the_first(still_home, cluster):
    frames = list(recording(MINER, TRAINER).frames())
    book = leases()
    for part in (frames[:30], frames[30:]):
        monitor = Monitor(still_home, book, cluster)
        monitor.start()
        for frame in part:
            monitor.take(frame, int(np.median(frame.ts_ns)))
    assert len(Incidents(still_home).list()) == 1
    opened = list(still_home.audit.records(kind="incident.opened"))
    assert len(opened) == 1


def test_an_incident_whose_monitor_died_before_answering_is_answered_at_the_next_start(
    still_home, cluster, waiting_job, seen
):
    waiting_job("job-1")
    opened = Incidents(still_home).observe(seen("telemetry", "indicator"))
    steps = Monitor(still_home, LeaseBook(), cluster).start()
    assert [(step.incident_id, step.level, step.state) for step in steps] == [
        (opened.id, level, "done") for level in (0, 1, 2, 5)
    ]
    assert Monitor(still_home, LeaseBook(), cluster).start() == []


def mangled(frames, rng):
    """Duplicates, disorder, a 10x flood, NaN, gaps, a clock that jumps and a counter reset, all at once."""
    for number, frame in enumerate(frames):
        if number in (22, 30, 31):
            continue  # scrapes that never came, the first of them while the evidence grows
        values = {k: v.copy() for k, v in frame.values.items()}
        if number % 7 == 3:
            for array in values.values():
                array[rng.random(len(array)) < 0.5] = np.nan
        if number == 25:
            values["energy_j"][:] = 0.0
        ts = frame.ts_ns.copy()
        if number % 9 == 5:
            ts[-1] += 3_600 * SECOND
        odd = Frame(frame.devices, ts, frame.device, values, frame.processes)
        order = rng.permutation(len(odd))
        yield frame.ts_ns, concat([odd.take(order)] * (10 if number % 5 == 0 else 2))


def test_telemetry_in_disarray_hides_no_miner_and_accuses_nobody_else(still_home, cluster):
    rng = np.random.default_rng(7)
    monitor = Monitor(still_home, leases(), cluster)
    loads = (MINER, TRAINER, Load("inference", node="n3"), Load("free", node="n4"))
    for times, frame in mangled(recording(*loads, samples=60).frames(), rng):
        monitor.take(frame, int(np.median(times)))
    report = monitor.report()
    assert [(i.tenant, i.kind, i.severity) for i in report.incidents] == [("canary", "mining", "incident")]
    assert report.quality["duplicate"] > 0
    assert report.quality["future"] > 0
    assert report.quality["counter_resets"] > 0
    taken = ("accepted", "duplicate", "out_of_order", "late", "future")
    assert sum(report.quality[name] for name in taken) == report.quality["samples"]  # none lost


def test_a_monitor_whose_own_clock_was_ahead_is_blind_for_three_scrapes_and_no_longer(still_home, cluster):
    monitor = Monitor(still_home, leases(), cluster)
    frames = list(recording(MINER, TRAINER, samples=60).frames())
    raised = []
    for number, frame in enumerate(frames):
        wrong = 3 * 86_400 * SECOND if number < 15 else 0  # three days ahead, then set right
        odd = Frame(frame.devices, frame.ts_ns + wrong, frame.device, frame.values, frame.processes)
        raised += [(number, i.severity) for i in monitor.take(odd, int(np.median(odd.ts_ns)))]
    report = monitor.report()
    assert report.quality["clock_set_back"] == 1
    assert report.quality["late"] == 2 * len(frames[0])
    assert min(number for number, severity in raised if severity == "incident") <= 20 + 6
    seen_ms = (14 + 59 - 17) * 15_000 * len(frames[0])
    assert abs(report.device_ms - seen_ms) <= 1_000  # all but what passed while it was blind


def test_a_store_that_refuses_is_counted_and_blinds_nobody(still_home, cluster):
    still_home.path("telemetry").write_text("a file where the store should be")
    report = replay(still_home, recording(MINER, TRAINER), leases(), cluster)
    assert report.history_failures > 0
    assert report.incidents[0].severity == "incident"


@contextmanager
def locked(home):
    """The home's database as another process holds it that writes and does not end."""
    with home.storage.reading() as session:  # its connection is pooled: it will not wait its usual seconds
        session.connection().exec_driver_sql("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(home.storage.url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def full(_):
    """No file may grow beyond a page, as when the disk is full: database, audit log, telemetry, evidence."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("away", "words", "since"),
    [(locked, "locked", 0), (locked, "locked", 22), (full, "full|I/O|large", 22)],
    ids=["locked at the start", "locked before the second channel", "full before the second channel"],
)
def test_a_store_that_takes_nothing_ends_the_watch_and_the_next_one_loses_nothing_and_stops_once(
    still_home, cluster, waiting_job, away, words, since
):
    waiting_job("job-1", tenant="canary")
    frames = list(recording(MINER, TRAINER).frames())
    monitor = Monitor(still_home, leases(), cluster)
    for frame in frames[:since]:
        monitor.take(frame, int(np.median(frame.ts_ns)))
    with away(still_home), pytest.raises(Undecidable, match=words):
        for frame in frames[since:]:
            monitor.take(frame, int(np.median(frame.ts_ns)))
    assert {i.severity for i in Incidents(still_home).list()} == ({"warning"} if since else set())
    assert Ledger(still_home.storage).get("job-1").state is WorkloadState.PENDING
    report = replay(still_home, recording(MINER, TRAINER), leases(), cluster)
    (incident,) = Incidents(still_home).list()
    assert (incident.severity, incident.state) == ("incident", State.CONTAINED)
    assert [step.state for step in report.actions if step.level == 5] == ["done"]
    steps = [record["data"] for record in still_home.audit.records(kind="response.action")]
    assert [(step["level"], step["phase"]) for step in steps].count((5, "executing")) == 1


def test_history_holds_what_was_watched_in_few_files(still_home):
    replay(still_home, recording(TRAINER), leases(), None)
    kept = History(still_home.path("telemetry")).read(0, 2_000_000_000 * SECOND)
    assert len(kept) == 40
    assert len(list(still_home.path("telemetry").rglob("*.parquet"))) == 2


def test_leases_may_change_while_it_watches(still_home):
    late = 1_800_000_000 * SECOND + 30 * STEP_NS

    def book(at_ns):
        return leases(job="first") if at_ns < late else leases(job="second")

    report = replay(still_home, recording(MINER, samples=40), book, None)
    assert {i.job for i in report.incidents} == {"first", "second"}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_draws_the_series_and_says_who_decided(still_home, cluster, lang):
    from compute_guard.incidents.page import render

    source = recording(MINER, TRAINER)
    report = replay(still_home, source, leases(), cluster)
    page = render(report.incidents[0], report.actions, source.read(), lang=lang)
    assert page.count("<svg") == 6
    assert "confirmed-mining" in page
    assert report.actions[-1].decision_id in page
    assert "src=" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in html.unescape(page)


def test_a_job_with_a_hostile_name_cannot_write_into_the_page_or_the_notice(still_home):
    from compute_guard.incidents import notices
    from compute_guard.incidents.page import render

    evil = '</style><script>alert(1)</script>"><img src=x onerror=y>|![x](javascript:z)\n# Heading'
    load = Load("mining-capped", node='<svg onload="x">')
    book = LeaseBook.of([Lease(load.device.key, "acme", evil)])
    source = recording(load, samples=12)
    (incident,) = replay(still_home, source, book, None).incidents
    page = render(incident, [], source.read())
    assert "<script" not in page
    assert "<img" not in page
    assert "<svg onload" not in page
    text = notices.render("customer", "en", incident, now=still_home.clock())
    assert "![x](" not in text
    assert "\n# Heading" not in text
    assert "<script" not in text
