"""Crashes: what was waiting still waits, what was admitted still runs, nothing runs twice."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from compute_guard.admission.gateway import Admitted, Gateway
from compute_guard.admission.workload import WorkloadState
from compute_guard.cluster import processes
from compute_guard.ledger.store import Ledger
from compute_guard.testing import GuardedCluster, wait_until

pytestmark = pytest.mark.ray


def test_a_job_admitted_just_before_a_crash_is_handed_to_ray_by_the_reconciler(ray_cluster):
    """The gateway's process dies between reservation and submission: here, it simply never submits."""
    home = ray_cluster.home
    principal = home.credentials.verify(ray_cluster.token("acme"))
    admitted = Gateway(home).submit(
        principal, {"entrypoint": "echo after the crash", "submission_id": "lost-1"}
    )
    assert isinstance(admitted, Admitted)
    client = ray_cluster.client("acme")
    assert ray_cluster.wait(client, "lost-1").status == "SUCCEEDED"
    assert client.get_job_logs("lost-1").splitlines().count("after the crash") == 1
    wait_until(lambda: Ledger(home.storage).get("lost-1").state is WorkloadState.FINISHED)


def test_what_waits_survives_kill_9_of_the_dashboard_head(ray_cluster, gated):
    client = ray_cluster.client("acme")
    entrypoint, gate = gated()
    running = client.submit_job(entrypoint=entrypoint, entrypoint_num_cpus=2)
    waiting = client.submit_job(entrypoint="echo I waited", entrypoint_num_cpus=1)
    ray_cluster.wait(client, running, ["RUNNING"])
    ledger = Ledger(ray_cluster.home.storage)
    wait_until(lambda: ledger.get(running).state is WorkloadState.RUNNING)
    head = dashboard_head(ray_cluster)
    command = Path(f"/proc/{head}/cmdline").read_bytes().split(b"\0")[:-1]
    environment = dict(
        item.partition(b"=")[::2] for item in Path(f"/proc/{head}/environ").read_bytes().split(b"\0") if item
    )
    children = [p for p in processes.of_cluster(ray_cluster.cluster.marker) if parent_of(p.pid) == head]
    os.kill(head, signal.SIGKILL)
    processes.end(children)
    assert ledger.get(waiting).state is WorkloadState.PENDING
    assert ledger.get(running).state is WorkloadState.RUNNING
    with (Path(ray_cluster.cluster.temp_dir) / "restarted.log").open("wb") as log:
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    wait_until(lambda: answers(client), seconds=90)
    assert client.get_job_status(waiting) == "PENDING"
    gate.touch()
    assert ray_cluster.wait(client, waiting).status == "SUCCEEDED"
    assert ray_cluster.wait(client, running).status == "SUCCEEDED"
    assert client.get_job_logs(waiting).splitlines().count("I waited") == 1


def dashboard_head(cluster: GuardedCluster) -> int:
    for process in processes.of_cluster(cluster.cluster.marker):
        try:
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if any(word.endswith(b"dashboard/dashboard.py") for word in words[:4]):
            return process.pid
    raise AssertionError("there is no dashboard head")


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def answers(client: object) -> bool:
    try:
        client.list_jobs()
    except Exception:
        return False
    return True
