"""What a running job is told about leases that wait at the gates."""

from __future__ import annotations

import pytest

from compute_guard.admission.held_leases import HeldLeasesFile, held_leases
from compute_guard.admission.why import why, why_text
from compute_guard.admission.workload import WorkloadState
from compute_guard.cluster.connection import Cluster
from compute_guard.ledger.store import Ledger, Reservation
from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.views import shown

FULL = "cpu: 2 more are asked for, queue acme has 0 left"


@pytest.fixture
def running(still_home, waiting_job, tmp_path):
    """Two running jobs of acme; the gates hold leases of both, of `late` since 5 s."""
    from compute_guard.admission.gateway import Gateway

    guard = tmp_path / "guard"
    guard.mkdir()
    Cluster(
        dashboard="http://127.0.0.1:1",
        gcs_address="127.0.0.1:2",
        token_file="",
        marker="",
        temp_dir="",
        guard_folder=str(guard),
    ).save(still_home.path("ray"))
    gateway, ledger = Gateway(still_home), Ledger(still_home.storage, still_home.clock)
    for job in ("early", "late"):
        waiting_job(job)
        assert ledger.reserve(job, gateway.quotas()) is Reservation.RESERVED
        ledger.move(job, WorkloadState.RUNNING)
    now = int(still_home.clock().timestamp() * 1000)
    file = HeldLeasesFile(guard)
    file.note({"early": (1, Amounts({"cpu_milli": 1000}), FULL)}, now - 9_000)
    file.note(
        {
            "early": (1, Amounts({"cpu_milli": 1000}), FULL),
            "late": (3, Amounts({"cpu_milli": 2000}), FULL),
        },
        now - 5_000,
    )
    return guard


def test_why_says_how_many_wait_for_what_behind_whom_and_what_would_fit(still_home, running):
    story = why(still_home, "late", still_home.principal(tenant="acme"))
    held = story["held_at_gates"]
    assert (held["leases"], held["needs"], held["ahead"]) == (3, {"cpu_milli": 2000}, ["early"])
    text = "\n".join(why_text(story))
    assert f"3 leases wait at the gates since 5 s; the first asks for cpu 2: {FULL}" in text
    assert "ahead         early" in text
    assert "fits now      cpu 2" in text


def test_the_first_in_line_has_nobody_ahead(still_home, running):
    assert why(still_home, "early", still_home.principal(tenant="acme"))["held_at_gates"]["ahead"] == []


def test_the_status_message_says_the_same(still_home, running):
    entry = Ledger(still_home.storage).get("late")
    sentence = held_leases(running)["late"].sentence(int(still_home.clock().timestamp() * 1000))
    message = shown({"message": "Job is currently running."}, entry, sentence)["message"]
    assert message == f"TrainGuard: {sentence} (trainguard compute why late)"


def test_nothing_is_held_where_there_are_no_gates(tmp_path):
    assert held_leases("") == {} == held_leases(tmp_path)
