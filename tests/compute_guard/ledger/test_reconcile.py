"""Ledger against Ray's truth, as pure cases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from compute_guard.admission.workload import Workload, WorkloadState
from compute_guard.ledger.reconcile import Correction, Driver, Step, Submission, reconcile
from compute_guard.ledger.store import Entry
from compute_guard.quota.limits import Amounts


def entry(state: str, *, ray_job_id: str | None = None) -> Entry:
    workload = Workload(
        id="sub",
        tenant="acme",
        user="ada",
        queue="acme",
        requests=Amounts({"jobs": 1}),
        entrypoint="x",
        created_ns=0,
    )
    return Entry(
        workload=workload,
        state=WorkloadState(state),
        reason="",
        decision_id="",
        ray_job_id=ray_job_id,
        created_ms=0,
        finished_ms=None,
        lease_token=None,
    )


def driver(submission_id: str = "", *, namespace: str = "n", origin: bool | None = None) -> Driver:
    return Driver(
        job_id="02000000",
        submission_id=submission_id,
        namespace=namespace,
        pid=1,
        node_ip="127.0.0.1",
        entrypoint="python",
        is_dead=False,
        origin=origin,
    )


def test_a_quiet_cluster_needs_nothing():
    assert reconcile([], {}, []) == ()
    running = entry("running", ray_job_id="02000000")
    assert reconcile([running], {"sub": Submission("RUNNING")}, [driver("sub", origin=True)]) == ()


def test_an_admitted_job_that_ray_never_got_is_submitted_again():
    assert reconcile([entry("admitted")], {}, []) == (Correction(Step.SUBMIT, "sub"),)


def test_a_job_on_its_way_to_ray_is_not_submitted_twice():
    assert reconcile([entry("admitted")], {}, [], being_submitted={"sub"}) == ()


def test_a_job_that_started_is_recorded_with_rays_own_id():
    got = reconcile([entry("admitted")], {"sub": Submission("RUNNING")}, [driver("sub", origin=True)])
    assert got == (Correction(Step.RUN, "sub", "", "02000000"),)


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
@pytest.mark.parametrize("state", ["admitted", "running"])
def test_a_job_that_ray_ended_gives_its_quota_back(state, status):
    got = reconcile([entry(state)], {"sub": Submission(status, "done")}, [])
    assert [(c.step, c.reason) for c in got] == [(Step.FINISH, f"{status}: done")]


def test_a_running_job_that_ray_lost_gives_its_quota_back():
    assert [c.step for c in reconcile([entry("running")], {}, [])] == [Step.FINISH]


def test_a_submission_nobody_admitted_is_stopped():
    got = reconcile([], {"x": Submission("PENDING"), "old": Submission("SUCCEEDED")}, [])
    assert [(c.step, c.target) for c in got] == [(Step.STOP_SUBMISSION, "x")]


@pytest.mark.parametrize("state", ["evicted", "preempted", "denied", "finished", "pending"])
def test_a_submission_that_runs_against_the_ledger_is_stopped(state):
    got = reconcile([entry(state)], {"sub": Submission("RUNNING")}, [])
    assert [(c.step, c.target) for c in got] == [(Step.STOP_SUBMISSION, "sub")]


@pytest.mark.parametrize(
    "intruder",
    [
        driver(),
        driver("never-heard-of"),
        driver("sub", origin=False),
        driver(namespace="_ray_internal_dashboard", origin=False),
    ],
)
def test_a_driver_that_was_not_admitted_is_stopped(intruder):
    got = reconcile([entry("running", ray_job_id="02000000")], {"sub": Submission("RUNNING")}, [intruder])
    assert (Step.STOP_DRIVER, "02000000") in [(c.step, c.target) for c in got]


def test_rays_own_drivers_are_left_alone():
    assert reconcile([], {}, [driver(namespace="_ray_internal_dashboard", origin=True)]) == ()


def test_a_driver_of_a_job_that_ended_is_stopped():
    got = reconcile([entry("evicted")], {"sub": Submission("STOPPED")}, [driver("sub", origin=True)])
    assert [c.step for c in got] == [Step.STOP_DRIVER]


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "ours"), [(1, True), (29, True), (31, False)])
def test_a_job_that_we_ended_is_no_intruder_while_it_is_on_its_way_out(seconds, ours):
    ended = replace(
        entry("evicted", ray_job_id="02000000"), finished_ms=int(NOW.timestamp() * 1000) - 1000 * seconds
    )
    found = reconcile([ended], {"sub": Submission("RUNNING")}, [driver("sub", origin=True)], now=NOW)
    assert [(one.step, one.ours) for one in found] == [
        (Step.STOP_SUBMISSION, ours),
        (Step.STOP_DRIVER, ours),
    ]


def test_who_claims_a_job_that_we_have_just_ended_is_an_intruder_all_the_same():
    ended = replace(entry("evicted"), finished_ms=int(NOW.timestamp() * 1000))
    found = reconcile([ended], {}, [driver("sub", origin=False)], now=NOW)
    assert [(one.step, one.ours) for one in found] == [(Step.STOP_DRIVER, False)]
