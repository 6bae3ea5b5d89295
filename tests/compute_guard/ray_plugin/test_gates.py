"""Profile hardened on a real cluster (head and three nodes): ordinary programs, quota, crashes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from compute_guard.ledger.store import Ledger
from compute_guard.testing import GuardedCluster, gate_processes, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.gated]

ORDINARY = Path(__file__).parent / "gates" / "ordinary_job.py"


def job(cluster: GuardedCluster, tenant: str, code: str, folder: Path, **more) -> str:
    """Submit ``code`` as a file of a working directory, with Ray's own client."""
    folder.mkdir(exist_ok=True)
    (folder / "job.py").write_text(code)
    environment = {"working_dir": str(folder)}
    return cluster.client(tenant).submit_job(entrypoint="python job.py", runtime_env=environment, **more)


def output(cluster: GuardedCluster, tenant: str, name: str, seconds: float = 180) -> str:
    """The log of a job that has succeeded."""
    client = cluster.client(tenant)
    details = cluster.wait(client, name, seconds=seconds)
    logs = client.get_job_logs(name)
    assert details.status == "SUCCEEDED", f"{details.message} {logs[-2000:]}"
    return logs


def gates_of(cluster: GuardedCluster) -> dict[str, int]:
    """Process ids of the gates (not of what keeps them running), by the name of their folder."""
    return {gate.folder: gate.pid for gate in gate_processes(cluster.cluster) if not gate.keeper}


def test_an_ordinary_program_runs_unchanged(gated_cluster, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "hello.txt").write_text("hello")
    name = job(gated_cluster, "acme", ORDINARY.read_text(), folder)
    line = next(row for row in output(gated_cluster, "acme", name).splitlines() if row.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    assert found["working_dir"] == "hello"
    assert found["tasks"] == sum(n * n for n in range(50))
    assert found["nested"] == [14, 30]
    assert found["driver_first"], "workers leave the CPU to driver, raylet and gate, as on plain Ray"
    assert found["retry"] == "second try"
    assert found["actor"] == [1, 2, 3, 4, 5] and found["by_name"] == 6
    assert found["named"] == ["counter"]
    assert found["group"] == 49 and found["group_by_name"]
    assert found["transfer"] == [[2_000_000], 2]
    assert found["data"] == sum(2 * n for n in range(200))
    assert found["nodes"] == 2  # its own and the shared one; not beta's, not the head


SLOW = """
import ray, time
ray.init(log_to_driver=False)
@ray.remote
def step(n):
    time.sleep(0.2)
    return n
@ray.remote(num_cpus=0)
class Beat:
    def beat(self):
        return time.time()
beat = Beat.remote()
ray.get(beat.beat.remote())
print("STARTED", flush=True)
done, beats = 0, 0
for _ in range(12):
    done += sum(ray.get([step.remote(1) for _ in range(3)]))
    ray.get(beat.beat.remote())
    beats += 1
print("DONE", done, beats, flush=True)
"""


def killed(cluster: GuardedCluster, *names: str) -> None:
    """Kill -9 these gates and wait until each runs again."""
    before = gates_of(cluster)
    assert set(before) == {"head", "node-0", "node-1", "node-2"}
    for name in names:
        os.kill(before[name], signal.SIGKILL)
    wait_until(
        lambda: all(gates_of(cluster).get(name, before[name]) != before[name] for name in names), seconds=30
    )


def test_a_job_outlives_a_kill_of_the_heads_gate(gated_cluster, tmp_path):
    name = job(gated_cluster, "acme", SLOW, tmp_path / "slow")
    client = gated_cluster.client("acme")
    wait_until(lambda: "STARTED" in client.get_job_logs(name), seconds=120)
    killed(gated_cluster, "head")
    assert "DONE 36 12" in output(gated_cluster, "acme", name)


def test_every_gate_may_be_killed_and_the_next_job_runs(gated_cluster, tmp_path):
    killed(gated_cluster, "head", "node-0", "node-1", "node-2")
    name = job(gated_cluster, "acme", SLOW.replace("range(12)", "range(2)"), tmp_path / "next")
    assert "DONE 6 2" in output(gated_cluster, "acme", name)


def test_the_ledger_has_nothing_left_when_the_jobs_are_over(gated_cluster, tmp_path):
    output(
        gated_cluster,
        "acme",
        job(gated_cluster, "acme", SLOW.replace("range(12)", "range(1)"), tmp_path / "j"),
    )
    ledger = Ledger(gated_cluster.home.storage)
    jobs = [row for tenant in ("acme", "beta") for row in gated_cluster.client(tenant).list_jobs()]
    over = {row.submission_id for row in jobs if row.status.is_terminal()}
    wait_until(lambda: not over & set(ledger.reservations()), seconds=30, seen=ledger.reservations)


def test_what_the_user_reads_when_a_lease_is_refused(gated_cluster, tmp_path):
    code = """
import ray
ray.init(log_to_driver=False)
@ray.remote(num_cpus=99)
def big():
    return 1
try:
    ray.get(big.remote(), timeout=60)
except Exception as error:
    print(type(error).__name__, str(error).strip(), flush=True)
"""
    name = job(gated_cluster, "beta", code, tmp_path / "big")
    logs = output(gated_cluster, "beta", name)
    assert "TaskUnschedulableError" in logs
    assert "TrainGuard: the task asks for cpu 99" in logs
    assert "[request-over-reservation]" in logs
    assert "(decision dec" in logs


def test_a_broken_policy_holds_leases_and_a_mended_one_lets_them_go(gated_cluster, tmp_path):
    code = """
import ray, time
from pathlib import Path
ray.init(log_to_driver=False)
print("STARTED", flush=True)
time.sleep(4)
@ray.remote(num_cpus=0.25)
def f():
    return 41
begun = time.time()
print("RESULT", ray.get(f.remote(), timeout=120) + 1, "after", round(time.time() - begun, 1), flush=True)
"""
    name = job(gated_cluster, "acme", code, tmp_path / "held")
    client = gated_cluster.client("acme")
    wait_until(lambda: "STARTED" in client.get_job_logs(name), seconds=120)
    with gated_cluster.edited("runtime.rego", lambda good: good + "\nthis is no rego {\n"):
        time.sleep(8)
        assert "RESULT" not in client.get_job_logs(name)
        assert client.get_job_status(name) == "RUNNING"
    assert "RESULT 42" in output(gated_cluster, "acme", name)
