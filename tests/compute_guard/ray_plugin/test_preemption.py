"""Reclaim on the real cluster: a borrower gets notice, is stopped by Ray, waits again and runs to its end."""

from __future__ import annotations

import pytest

from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Ledger
from compute_guard.testing import wait_until

pytestmark = pytest.mark.ray

LENDING = """
cohorts:
  research: {title: x}
queues:
  acme:
    tenant: acme
    cohort: research
    weight: 1
    preemption: {reclaim_within_cohort: any}
    resources:
      jobs: {nominal: 4, borrowing_limit: 0, lending_limit: 0}
      cpu_milli: {nominal: 2000, borrowing_limit: 0, lending_limit: null}
      gpu_milli: {nominal: 0, borrowing_limit: 0, lending_limit: 0}
      memory_bytes: {nominal: 0, borrowing_limit: 0, lending_limit: 0}
  beta:
    tenant: beta
    cohort: research
    weight: 1
    preemption: {grace_seconds: 4, then: requeue}
    resources:
      jobs: {nominal: 4, borrowing_limit: 0, lending_limit: 0}
      cpu_milli: {nominal: 0, borrowing_limit: 2000, lending_limit: 0}
      gpu_milli: {nominal: 0, borrowing_limit: 0, lending_limit: 0}
      memory_bytes: {nominal: 0, borrowing_limit: 0, lending_limit: 0}
"""

CHECKPOINTS = """
import os, sys, time
from compute_guard.notice import stop_notice
state, gate = sys.argv[1:]
print("from", open(state).read() if os.path.exists(state) else "the beginning", flush=True)
while not os.path.exists(gate):
    if stop_notice() is not None and not os.path.exists(state):
        open(state, "w").write("the checkpoint")
    time.sleep(0.1)
"""


def test_a_borrower_has_notice_writes_a_checkpoint_and_goes_on_after_the_owner(ray_cluster, gated, tmp_path):
    script, state, gate = tmp_path / "train.py", tmp_path / "state", tmp_path / "go"
    script.write_text(CHECKPOINTS)
    owner, borrower = ray_cluster.client("acme"), ray_cluster.client("beta")
    ledger = Ledger(ray_cluster.home.storage)
    with ray_cluster.edited("quotas.yaml", lambda _: LENDING):
        try:
            lent = borrower.submit_job(entrypoint=f"python {script} {state} {gate}", entrypoint_num_cpus=2)
            ray_cluster.wait(borrower, lent, ("RUNNING",))
            wait_until(lambda: ledger.get(lent).state is WorkloadState.RUNNING)
            mine = owner.submit_job(entrypoint="sleep 1", entrypoint_num_cpus=2)
            wait_until(lambda: ledger.get(lent).eviction is not None)
            assert "queue acme takes back what queue beta borrowed" in borrower.get_job_info(lent).message
            assert ray_cluster.wait(owner, mine).status == "SUCCEEDED"
            assert state.read_text() == "the checkpoint"
            wait_until(lambda: ledger.get(lent).state is WorkloadState.RUNNING)
        finally:
            gate.touch()
        again = ray_cluster.wait(borrower, lent)
        assert again.status == "SUCCEEDED", again.message
        assert "from the checkpoint" in borrower.get_job_logs(lent)
        wait_until(lambda: ledger.get(lent).state is WorkloadState.FINISHED)
    records = ray_cluster.home.audit.records(kind="workload.state")
    states = [r["data"]["state"] for r in records if r["subject"] == lent]
    assert states == ["admitted", "running", "preempted", "admitted", "running", "finished"]
