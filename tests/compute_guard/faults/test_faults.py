"""What happens to admitted work when parts of the control path are away, and what the books say after."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from compute_guard.admission.held_leases import held_leases
from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Ledger
from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.testing import GuardedCluster, gate_processes, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.gated, pytest.mark.clusters, pytest.mark.timeout(540)]

AT_ONCE = 1000


def submitted(cluster: GuardedCluster, code: str, folder: Path) -> str:
    folder.mkdir()
    (folder / "job.py").write_text("import ray, time\nfrom pathlib import Path\nray.init()\n" + code)
    environment = {"working_dir": str(folder)}
    return cluster.client("acme").submit_job(entrypoint="python job.py", runtime_env=environment)


def said(cluster: GuardedCluster, job: str, word: str) -> bool:
    return word in cluster.client("acme").get_job_logs(job)


def books_are_right(cluster: GuardedCluster) -> bool:
    """What the ledger lets run is what Ray runs, and nobody else holds anything."""
    ledger = Ledger(cluster.home.storage)
    states = [WorkloadState.ADMITTED, WorkloadState.RUNNING]
    allowed = {entry.id for entry in ledger.entries(states=states)}
    gcs = Gcs(cluster.cluster.gcs_address, lambda: cluster.cluster.token)
    try:
        runs = {
            name
            for name, seen in gcs.submissions(gcs.submission_ids()).items()
            if seen.status in ("PENDING", "RUNNING")
        }
    finally:
        gcs.close()
    return runs == allowed == set(ledger.reservations())


def call(cluster: GuardedCluster, method: str, path: str, body: object = None) -> int:
    request = urllib.request.Request(
        cluster.cluster.dashboard + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {cluster.token('acme')}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def gates(cluster: GuardedCluster, role: str) -> dict[str, list[int]]:
    """Process ids of the gates' keepers and of what they keep running, by "keeper" and "gate"."""
    found: dict[str, list[int]] = {"keeper": [], "gate": []}
    for gate in gate_processes(cluster.cluster):
        if gate.role == role:
            found["keeper" if gate.keeper else "gate"].append(gate.pid)
    return found


@contextmanager
def away(cluster: GuardedCluster, role: str):
    """The gates of ``role`` are killed, and nobody starts them again until the end."""
    running = gates(cluster, role)
    for pid in running["keeper"]:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in running["gate"]:
            os.kill(pid, signal.SIGKILL)
        yield
    finally:
        for pid in running["keeper"]:
            os.kill(pid, signal.SIGCONT)


def test_a_thousand_submissions_at_once_lose_nothing_and_run_nobody_unadmitted(breakable):
    names = [f"storm-{number}" for number in range(AT_ONCE)]

    def submit(name: str) -> int:
        body = {"entrypoint": "sleep 600", "submission_id": name, "entrypoint_num_cpus": 1}
        return call(breakable, "POST", "/api/jobs/", body)

    with ThreadPoolExecutor(64) as pool:
        assert Counter(pool.map(submit, names)) == {200: AT_ONCE}
        ledger = Ledger(breakable.home.storage)
        states = Counter(entry.state for entry in ledger.entries(tenant="acme") if entry.id in set(names))
        assert sum(states.values()) == AT_ONCE
        assert states[WorkloadState.PENDING] >= AT_ONCE - 2
        wait_until(lambda: books_are_right(breakable), seconds=60)
        # The last ones first, so that the line does not move up meanwhile.
        assert set(pool.map(lambda name: call(breakable, "POST", f"/api/jobs/{name}/stop"), names[::-1])) == {
            200
        }
    wait_until(lambda: not Ledger(breakable.home.storage).reservations(), seconds=120)
    wait_until(lambda: books_are_right(breakable), seconds=5)


GOES_ON = """
@ray.remote(num_cpus=0)
class Beat:
    def beat(self):
        return time.time()
@ray.remote(num_cpus=0.5)
def step(n):
    return n
beat = Beat.remote()
ray.get(beat.beat.remote())
print("STARTED", flush=True)
done = beats = 0
while not Path(STOP).exists():
    ray.get(beat.beat.remote())
    beats += 1
    done += 1
    time.sleep(0.5)
done = sum(ray.get([step.remote(1) for _ in range(4)], timeout=200))
print("DONE", done, beats, flush=True)
"""


def test_sixty_seconds_without_the_heads_gate_fail_no_job_and_lose_no_node(breakable, tmp_path):
    stop = tmp_path / "stop"
    job = submitted(breakable, f"STOP = {str(stop)!r}\n" + GOES_ON, tmp_path / "job")
    wait_until(lambda: said(breakable, job, "STARTED"), seconds=200)
    with away(breakable, "head"):
        time.sleep(60)
    stop.touch()
    details = breakable.wait(breakable.client("acme"), job, seconds=240)
    logs = breakable.client("acme").get_job_logs(job)
    assert details.status == "SUCCEEDED", f"{details.message} {logs[-2000:]}"
    beats = int(logs.split("DONE 4 ")[1].split()[0])
    assert beats >= 60  # actor calls went on while the gate was away
    gcs = Gcs(breakable.cluster.gcs_address, lambda: breakable.cluster.token)
    assert len(gcs.nodes()) == 3
    gcs.close()
    wait_until(lambda: books_are_right(breakable), seconds=5)


IN_LINE = """
import os
@ray.remote(num_cpus=1, max_retries=0)
def hold(go):
    while not os.path.exists(go):
        time.sleep(0.05)
    return 1
@ray.remote(num_cpus=0)
class Beat:
    def beat(self):
        return 1
beat = Beat.remote()
ray.get(beat.beat.remote())
first = [hold.remote(GO) for _ in range(2)]
later = [hold.remote(GO) for _ in range(4)]
print("STARTED", flush=True)
beats = 0
while not Path(GO).exists():
    beats += ray.get(beat.beat.remote())
    time.sleep(0.25)
print("SUM", sum(ray.get(first + later, timeout=200)), beats, flush=True)
"""


@pytest.mark.parametrize("seconds", [0, 60])
def test_leases_that_wait_in_a_nodes_gate_outlive_it(breakable, tmp_path, seconds):
    """Two tasks run, four wait in the gates of the nodes; none may be tried again (`max_retries=0`)."""
    go = tmp_path / "go"
    job = submitted(breakable, f"GO = {str(go)!r}\n" + IN_LINE, tmp_path / "job")
    wait_until(lambda: said(breakable, job, "STARTED"), seconds=200)
    wait_until(lambda: job in held_leases(breakable.cluster.guard_folder), seconds=60)
    with away(breakable, "node"):
        time.sleep(seconds)
    wait_until(lambda: len(gates(breakable, "node")["gate"]) == 2, seconds=30)
    go.touch()
    details = breakable.wait(breakable.client("acme"), job, seconds=240)
    logs = breakable.client("acme").get_job_logs(job)
    assert details.status == "SUCCEEDED", f"{details.message} {logs[-2500:]}"
    assert int(logs.split("SUM 6 ")[1].split()[0]) >= 3 * seconds  # actors went on meanwhile
    gcs = Gcs(breakable.cluster.gcs_address, lambda: breakable.cluster.token)
    assert len(gcs.nodes()) == 3
    gcs.close()
    wait_until(lambda: books_are_right(breakable), seconds=5)


def test_a_locked_ledger_holds_new_leases_and_fails_none(breakable, tmp_path):
    stop = tmp_path / "stop"
    job = submitted(breakable, f"STOP = {str(stop)!r}\n" + GOES_ON, tmp_path / "job")
    wait_until(lambda: said(breakable, job, "STARTED"), seconds=200)
    lock = sqlite3.connect(breakable.home.path("trainguard.db"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    stop.touch()  # from here on the job wants leases
    time.sleep(15)
    assert breakable.client("acme").get_job_status(job) == "RUNNING"
    lock.execute("ROLLBACK")
    lock.close()
    assert breakable.wait(breakable.client("acme"), job, seconds=240).status == "SUCCEEDED"
    wait_until(lambda: books_are_right(breakable), seconds=30)


LOSES_A_NODE = """
import numpy, os
@ray.remote(num_cpus=0.5, max_retries=5, scheduling_strategy="SPREAD")
def block(n):
    return numpy.full(200_000, n)
@ray.remote(num_cpus=0.5, max_retries=5, scheduling_strategy="SPREAD")
def slow(n):
    time.sleep(3)
    return n
blocks = [block.remote(n) for n in range(6)]
ray.wait(blocks, num_returns=6, fetch_local=False, timeout=120)
print("STARTED", flush=True)
while not Path(STOP).exists():
    time.sleep(0.2)
total = int(sum(ray.get(b, timeout=300)[0] for b in blocks))
print("SUM", total, sum(ray.get([slow.remote(1) for _ in range(2)])))
"""


def test_a_lost_node_takes_its_leases_with_it_and_lost_objects_are_made_again(losing, tmp_path):
    stop = tmp_path / "stop"
    job = submitted(losing, f"STOP = {str(stop)!r}\n" + LOSES_A_NODE, tmp_path / "job")
    client = losing.client("acme")
    wait_until(lambda: said(losing, job, "STARTED"), seconds=200)
    gcs = Gcs(losing.cluster.gcs_address, lambda: losing.cluster.token)
    own = client.get_job_info(job).driver_node_id
    lost = next(
        row for row in gcs.nodes() if row.node_id != own and row.labels["trainguard.io/pool"] != "head"
    )
    folder = f"{losing.cluster.temp_dir}/node-{int(lost.address.rsplit('.', 1)[1]) - 11}/"
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if line.startswith("/") and "raylet/raylet" in line and folder in line:
            os.kill(int(entry.name), signal.SIGKILL)
    stop.touch()
    details = losing.wait(client, job, seconds=400)
    logs = client.get_job_logs(job)
    assert details.status == "SUCCEEDED", f"{details.message} {logs[-2500:]}"
    assert "SUM 15 2" in logs
    assert len(gcs.nodes()) == 2
    gcs.close()
    wait_until(lambda: books_are_right(losing), seconds=5)


def gcs_server(temp_dir: str) -> tuple[int, list[str], dict[str, str]]:
    """Process id, command and environment of the cluster's GCS."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")[:-1]
            if words and words[0].endswith("gcs/gcs_server") and any(temp_dir in word for word in words):
                rows = (entry / "environ").read_bytes().decode().split("\0")
                return int(entry.name), words, dict(row.split("=", 1) for row in rows if "=" in row)
        except OSError:
            continue
    raise AssertionError("there is no GCS")


def test_a_gcs_that_is_killed_and_restarts_costs_no_job_and_no_node(recovering, tmp_path):
    cluster = recovering.cluster
    go = tmp_path / "go"
    job = submitted(recovering, f"GO = {str(go)!r}\n" + IN_LINE, tmp_path / "job")
    wait_until(lambda: said(recovering, job, "STARTED"), seconds=200)
    pid, command, environment = gcs_server(cluster.temp_dir)
    space = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)  # there lies the token authority's certificate
    os.kill(pid, signal.SIGKILL)
    time.sleep(5)
    log = tmp_path / "gcs.log"
    with log.open("wb") as output:
        again = subprocess.Popen(
            ["nsenter", f"--mount=/proc/self/fd/{space}", *command],
            env=environment,
            pass_fds=[space],
            stdout=output,
            stderr=output,
        )
    try:
        gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
        wait_until(lambda: answers(gcs), seconds=60, seen=log.read_text)
        path = f"/api/jobs/{job}"
        wait_until(lambda: call(recovering, "GET", path) == 200, seconds=20, seen=log.read_text)
        go.touch()
        details = recovering.wait(recovering.client("acme"), job, seconds=240)
        logs = recovering.client("acme").get_job_logs(job)
        assert details.status == "SUCCEEDED", f"{details.message} {logs[-2500:]}"
        assert "SUM 6" in logs
        assert len(gcs.nodes()) == 2
        gcs.close()
        wait_until(lambda: books_are_right(recovering), seconds=10)
        after = submitted(recovering, "print('AFTER', flush=True)\n", tmp_path / "after")
        assert recovering.wait(recovering.client("acme"), after, seconds=200).status == "SUCCEEDED"
    finally:
        again.kill()
        again.wait()
        os.close(space)


def answers(gcs: Gcs) -> bool:
    try:
        return len(gcs.nodes()) >= 1
    except Exception:
        return False
