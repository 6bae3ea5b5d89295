"""Facts are gathered from the ledger, the audit log and the process table, not from what jobs write."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from compute_guard.admission.gateway import Gateway
from compute_guard.admission.refusals import RefusalLog
from compute_guard.monitoring.activity_feed import ActivityFeed, off_hours
from compute_guard.monitoring.holdings import Grant, Holding, Node
from compute_guard.monitoring.shells import below_workers
from compute_guard.testing import wait_until
from compute_guard.usage.sources.nvml import loaded_library
from guard_core.clock import to_ns
from guard_core.errors import Denied
from guard_core.findings import Enforcement


def test_submissions_are_seen_once_each_with_their_program(still_home, waiting_job, clock):
    feed = ActivityFeed(still_home)
    waiting_job("job-1", entrypoint="python train.py --secret x")
    clock.advance(seconds=30)
    assert [s.id for s in feed(to_ns(clock())).submissions] == ["job-1"]
    waiting_job("job-2")
    clock.advance(seconds=30)
    seen = feed(to_ns(clock())).submissions
    assert [s.id for s in seen] == ["job-1", "job-2"]
    assert "secret" not in str(seen)
    clock.advance(seconds=31 * 86_400)
    assert feed(to_ns(clock())).submissions == ()


def test_reads_of_the_verified_reader_are_followed_without_knowing_it(still_home, clock):
    feed = ActivityFeed(still_home)
    feed(to_ns(clock()))
    data = {"ref": "acme/d@1", "tenant": "acme", "workload": "job-1", "purpose": "train", "bytes": 77}
    for _ in range(2):
        still_home.audit.event("dataset.read", subject="d", data=data, enforcement=Enforcement.COOPERATIVE)
    reads = feed(to_ns(clock())).reads
    assert [(r.job, r.bytes, r.purpose) for r in reads] == [("job-1", 77, "train")] * 2
    assert len(feed(to_ns(clock())).reads) == 2  # each record once


def test_a_feed_that_begins_late_reads_the_last_hours_only_and_checks_every_record(still_home, clock):
    log = RefusalLog(still_home)
    log.note("old")
    clock.advance(seconds=60)
    fresh = ActivityFeed(still_home)
    assert len(fresh(to_ns(clock())).refusals) == 1
    segment = next(still_home.path("audit").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"old"', b'"new"'))
    late = ActivityFeed(still_home)
    assert late(to_ns(clock())).refusals == ()
    assert "changed" in late.problem
    assert late.failures == 1


def test_wrong_credentials_at_the_gateway_are_counted_and_cannot_fill_the_log(still_home, clock):
    gateway = Gateway(still_home)
    for _ in range(100):
        with pytest.raises(Denied):
            gateway.authenticate("tgt_nobody_guessed-secret")
    clock.advance(seconds=61)
    with pytest.raises(Denied):
        gateway.authenticate("tgt_nobody_guessed-secret")
    assert len(list(still_home.audit.records(kind="identity.refused"))) == 31
    refusals = ActivityFeed(still_home)(to_ns(clock())).refusals
    assert sum(r.count for r in refusals) == 101
    assert "guessed-secret" not in str(list(still_home.audit.records()))


def test_a_denied_decision_is_a_refusal_of_the_one_who_asked(still_home, clock):
    who = still_home.credentials.verify(still_home.credentials.issue(tenant="acme", user="eve"))
    still_home.decide(
        "guard/compute/isolation/decision",
        {"operation": "stop"},
        principal=who,
        enforcement=Enforcement.COOPERATIVE,
    )
    (refusal,) = ActivityFeed(still_home)(to_ns(clock())).refusals
    assert (refusal.who, refusal.tenant, refusal.what) == ("eve", "acme", "isolation")


def test_a_job_that_we_stopped_ourselves_did_not_come_past_admission(still_home, clock):
    for job, reason in (("ours", "it was evicted"), ("theirs", "it did not pass the admission gateway")):
        still_home.audit.event(
            "workload.unadmitted",
            subject=job,
            data={"kind": "submission", "reason": reason, "action": "stop"},
            enforcement=Enforcement.DETECTIVE,
        )
    (refusal,) = ActivityFeed(still_home)(to_ns(clock())).refusals
    assert (refusal.who, refusal.what) == ("theirs", "unadmitted")


def holding(pids, command):
    grant = Grant(submission_id="job-1", tenant="acme", entrypoint=command)
    node = Node(node_id="n", address="127.0.0.1", local=True, labels={"pool": "gold"})
    return Holding(node=node, job="job-1", grant=grant, gpus={0: 1000}, cpu_milli=0, pids=frozenset(pids))


@pytest.mark.parametrize(("command", "named"), [("python train.py", False), ("bash launch.sh", True)])
def test_a_shell_below_a_worker_is_seen_unless_the_command_names_it(command, named):
    psutil = pytest.importorskip("psutil")
    with subprocess.Popen(["/bin/bash", "-c", "read line"], stdin=subprocess.PIPE) as shell:
        wait_until(lambda: psutil.Process(shell.pid).cmdline() != [], seconds=10)
        found = below_workers([holding({os.getpid(), shell.pid}, command)])
        assert [(s.tenant, s.job, s.executable) for s in found] == (
            [] if named else [("acme", "job-1", "bash")]
        )
        shell.communicate(b"\n")


def test_the_shell_that_runs_the_command_itself_is_no_finding():
    pytest.importorskip("psutil")
    command = f"{sys.executable} -c 'input()'"
    line = f"{command}; true"  # so that the shell stays
    with subprocess.Popen(["/bin/sh", "-c", line], stdin=subprocess.PIPE) as shell:
        assert below_workers([holding({shell.pid}, command)]) == ()
        shell.communicate(b"\n")


def test_a_shell_in_the_middle_of_its_start_is_looked_at_the_next_time(monkeypatch):
    psutil = pytest.importorskip("psutil")
    with subprocess.Popen(["/bin/bash", "-c", "read line"], stdin=subprocess.PIPE) as shell:
        with monkeypatch.context() as early:
            early.setattr(psutil.Process, "cmdline", lambda process: [])
            assert below_workers([holding({shell.pid}, "python train.py")]) == ()
        wait_until(lambda: below_workers([holding({shell.pid}, "python train.py")]) != (), seconds=10)
        shell.communicate(b"\n")


def test_a_pool_that_is_not_everybodys_reserves_its_nodes(still_home, monkeypatch):
    gold = {"labels": {"pool": "gold"}, "tenants": ["beta"]}
    pools = {"gold": gold, "all": {"labels": {}, "tenants": ["*"]}}
    monkeypatch.setattr(
        type(still_home), "policy_data", lambda _: {"nodes": {"pools": pools}, "calendars": {}}
    )
    feed = ActivityFeed(still_home, lambda: [holding((), "x")])
    assert feed(0).reserved == {"n": frozenset({"beta"}), "127.0.0.1": frozenset({"beta"})}


def test_a_library_that_changes_is_told_from_then_on(still_home):
    feed = ActivityFeed(still_home)
    assert feed(0, {"n1": "aa"}).libraries == {"n1": "aa"}
    assert feed(0, {"n1": "bb"}).libraries == {"n1": "aa>bb"}


def test_the_library_that_answers_is_the_one_that_is_mapped(tmp_path):
    library = tmp_path / "libnvidia-ml.so.580.1"
    library.write_bytes(b"driver")
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 0 08:01 1 /usr/lib/libc.so.6\n7f02-7f03 r-xp 0 08:01 2 {library}\n")
    assert loaded_library(maps) == sha256(b"driver").hexdigest()
    assert loaded_library(tmp_path / "none") == ""


def test_working_hours_are_the_calendars(still_home):
    off = off_hours(still_home.policy_data()["calendars"])
    monday_morning = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)  # 10:00 in Shanghai
    assert not off(monday_morning)
    assert off(monday_morning + timedelta(hours=10))
    assert off(monday_morning - timedelta(days=1))
    assert off(datetime(2026, 10, 1, 2, 0, tzinfo=UTC))  # a holiday
    assert not off_hours({})(monday_morning)
