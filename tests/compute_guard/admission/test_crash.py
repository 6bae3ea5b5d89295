"""kill -9 between any two writes of a release: the order of the writes is what keeps every job."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager

import pytest

from compute_guard.admission.gateway import Gateway
from compute_guard.admission.workload import WorkloadState
from guard_core.audit import verify
from guard_core.config import load_settings
from guard_core.home import Home


def ask(name, cpus):
    return {"entrypoint": f"echo {name}", "submission_id": name, "entrypoint_num_cpus": cpus}


@pytest.fixture(scope="module")
def with_room(tmp_path_factory):
    """A home in which one job of each of two trees of cohorts may go: a2 and c2."""
    folder = tmp_path_factory.mktemp("room") / "home"
    with Home.open(load_settings(home=folder)) as home:
        gateway = Gateway(home)
        for tenant, names, cpus in (("acme", ("a1", "a2"), 2), ("canary", ("c1", "c2"), 1)):
            who = home.credentials.verify(home.credentials.issue(tenant=tenant, user="u"))
            for name in names:
                gateway.submit(who, ask(name, cpus))
        for name in ("a1", "c1"):
            gateway.finish(name, WorkloadState.FINISHED, "SUCCEEDED:")
    return folder


def release_and_die(folder, writes, told):
    """In a process of its own: release, tell who was given out, and die of kill -9 after so many writes."""
    with Home.open(load_settings(home=folder)) as home:
        gateway = Gateway(home)
        left = writes
        append, posting = home.audit.append, gateway.ledger.posting

        def wrote():
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def counted(bodies):
            number = append(bodies)
            wrote()
            return number

        @contextmanager
        def committed(quotas=None):
            with posting(quotas) as open_posting:
                yield open_posting
            wrote()

        home.audit.append, gateway.ledger.posting = counted, committed
        for admitted in gateway.releases():
            for one in admitted:
                os.write(told, f"{one.id}\n".encode())


def died_after(folder, writes):
    """Whether it was killed, and who had been given out by then."""
    hears, told = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            release_and_die(folder, writes, told)
            status = 0
        finally:
            os._exit(status)
    os.close(told)
    with os.fdopen(hears) as lines:
        given = lines.read().split()
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0, given


def test_kill_9_after_any_write_of_a_release_loses_no_job_and_no_record_of_one(with_room, tmp_path):
    killed, writes, seen = True, 0, []
    while killed:
        writes += 1
        folder = tmp_path / f"home-{writes}"
        shutil.copytree(with_room, folder)
        killed, given = died_after(folder, writes)
        with Home.open(load_settings(home=folder)) as home:
            gateway = Gateway(home)
            allowed = {r["decision_id"] for r in home.audit.records(kind="decision") if r["result"]["allow"]}
            stated = {
                r["subject"]
                for r in home.audit.records(kind="workload.state")
                if r["data"]["state"] == "admitted"
            }
            reserved = gateway.ledger.entries(states=[WorkloadState.ADMITTED])
            assert {entry.decision_id for entry in reserved} <= allowed
            assert set(given) <= {entry.id for entry in reserved} & stated
            # The reconciler hands over what is reserved and not in Ray; who waits still gets in.
            lost = [gateway.resubmission(entry).id for entry in reserved if entry.id not in given]
            seen.append((len(lost), len(given)))
            later = [one.id for one in gateway.release()]
            assert sorted([*given, *lost, *later]) == ["a2", "c2"]
            assert set(gateway.ledger.reservations()) == {"a2", "c2"}
            assert verify(folder / "audit").ok
    # Decisions, reservation, its record with the next tree's decisions, reservation, its record; no more.
    assert seen == [(0, 0), (1, 0), (1, 0), (1, 1), (1, 1), (0, 2)]
