"""Drills are real but for the telemetry, and stay on canaries."""

from __future__ import annotations

import json

import pytest

from compute_guard.admission.workload import WorkloadState
from compute_guard.drills.drill import DRILLS, run
from compute_guard.incidents.incident import State
from compute_guard.incidents.store import Incidents
from compute_guard.ledger.store import Ledger
from guard_core.errors import Denied, UserError


@pytest.mark.parametrize("name", sorted(DRILLS))
def test_each_drill_is_detected_and_notified_and_leaves_nothing_open(still_home, name):
    report = run(still_home, name, "canary", cluster=None)
    assert report.passed
    assert report.detect_seconds <= 120
    assert report.notify_seconds is not None
    assert report.contained_verified is None  # there was no cluster to contain anything on, and that is said
    assert report.notes
    assert Incidents(still_home).list(open_only=True) == []


def test_a_drill_stops_the_canarys_job_and_nobody_elses(still_home, cluster, waiting_job):
    waiting_job("acme-job")
    submitted = []

    def submit(command):
        submitted.append(command)
        return waiting_job("canary-job", tenant="canary", entrypoint=command)

    report = run(still_home, "mining-capped", "canary", cluster=cluster, submit=submit)
    assert report.passed
    assert (report.contained_verified, report.touched_others) == (True, ())
    assert report.detect_seconds <= 90
    assert report.contain_seconds >= report.detect_seconds - 15
    assert "drill.invalid" in submitted[0]
    ledger = Ledger(still_home.storage)
    assert ledger.get("canary-job").state is WorkloadState.EVICTED
    assert ledger.get("acme-job").state is WorkloadState.PENDING
    (incident,) = Incidents(still_home).list()
    assert (incident.state, incident.evidence["drill"]) == (State.RESOLVED, report.id)


def test_the_report_is_kept_and_on_record(still_home):
    report = run(still_home, "mining-full", "canary", cluster=None, seed=3)
    stored = json.loads(still_home.path("drills", f"{report.id}.json").read_text())
    assert stored["passed"] is True
    assert stored["synthetic"] is True
    kinds = [r["kind"] for r in still_home.audit.records(kind="drill.")]
    assert kinds == ["drill.started", "drill.finished"]


def test_a_tenant_that_is_no_canary_is_never_drilled(still_home, cluster):
    with pytest.raises(Denied, match="canary: true"):
        run(still_home, "mining-capped", "acme", cluster=cluster, submit=lambda _: pytest.fail("submitted"))
    assert Incidents(still_home).list() == []
    assert list(still_home.audit.records(kind="drill.")) == []


def test_drills_and_tenants_that_do_not_exist_are_named(still_home):
    with pytest.raises(UserError, match="no drill 'fire'"):
        run(still_home, "fire", "canary", cluster=None)
    with pytest.raises(UserError, match="no tenant 'ghost'"):
        run(still_home, "mining-full", "ghost", cluster=None)
