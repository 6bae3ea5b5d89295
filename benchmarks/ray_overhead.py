"""What the gates cost: the same Ray program on plain Ray and with profile hardened, in the same run.

Ours is a head without CPUs and one node with 4 logical CPUs, where the driver runs. So is plain Ray, without
a token, its program submitted through the Job API. `--others` also takes plain Ray with its own token
authentication, and plain Ray on a single node, which has one raylet and one agent less to feed. CPU per lease
is what the two gate processes used (user + system, from /proc) over the leases they decided; CPU of a cluster
is that of all its processes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compute_guard.cluster import processes
from compute_guard.cluster.connection import Cluster
from compute_guard.testing import gate_processes, guarded_cluster
from measure import Measure, report

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

APART = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
"""As of a machine of its own: a driver that sees the head's processes takes its raylet for its node's."""
STARTED = itertools.count()
"""Clusters of plain Ray: a port may be in use for a while after the last one."""
TRIES = 20
"""Ray puts a driver on any node; of two it soon finds the other."""
STORE_BYTES = 600_000_000  # enough that Ray Data spills nothing
PROGRAM = Path(__file__).with_name("ray_overhead_program.py")


MARKS = ("warm", "warmed", "idle", "first", "leases", "leased")
ELSEWHERE = "ELSEWHERE"
"""What the program says and ends with where Ray put its driver on the head."""
Clock = dict[str, float]


def run(client, folder: Path, arguments: str, watch=dict) -> dict[str, Any]:
    """Submit the program; what it found, the seconds to RUNNING, and what ``watch`` gave at its marks."""
    shutil.copy(PROGRAM, folder / "program.py")
    first = 0.0
    for _ in range(TRIES):
        running, logs, seen = once(client, folder, arguments, watch)
        first = first or running
        if ELSEWHERE not in logs:
            break
    lines = [line for line in logs.splitlines() if line.startswith("FOUND ")]
    if not lines:
        raise SystemExit(f"the program failed: {logs[-1500:]}")
    found = json.loads(lines[-1].removeprefix("FOUND "))
    return {**found, "first_running_s": first, "to_running_s": submissions(client), "clocks": seen}


def once(client, folder: Path, arguments: str, watch) -> tuple[float, str, dict[str, Clock]]:
    """Seconds to RUNNING, the whole log, and the clocks at the marks."""
    begun = time.perf_counter()
    job = client.submit_job(
        entrypoint=f"python program.py {arguments}", runtime_env={"working_dir": str(folder)}
    )
    running, seen = 0.0, {}
    while True:
        status, logs = client.get_job_status(job), client.get_job_logs(job)
        running = running or (time.perf_counter() - begun if status == "RUNNING" else 0.0)
        for mark in MARKS:
            if f"MARK {mark}\n" in logs and mark not in seen:
                seen[mark] = watch()
        if status in ("SUCCEEDED", "FAILED", "STOPPED"):
            return running, logs, seen
        time.sleep(0.3 if running else 0.05)  # looking costs CPU, and on the guarded side more of it


def submissions(client, times: int = 5) -> float:
    """Median seconds from submission to RUNNING of small jobs, one after the other on a warm cluster."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        job = client.submit_job(entrypoint="sleep 1")
        while client.get_job_status(job) == "PENDING":
            time.sleep(0.02)
        seconds.append(time.perf_counter() - begun)
        while client.get_job_status(job) == "RUNNING":
            time.sleep(0.1)
    return statistics.median(seconds)


def cpu_of(pid: int) -> float:
    """CPU seconds so far of a process; none of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cluster_cpu(marker: str) -> Clock:
    """CPU seconds so far of all processes of the cluster ``marker``, and the time."""
    return {"all": sum(cpu_of(process.pid) for process in processes.of_cluster(marker)), "at": time.time()}


def gate_cpu(cluster: Cluster) -> Clock:
    """As `cluster_cpu`, and of the gates by role."""
    spent: Clock = {"head": 0.0, "node": 0.0, **cluster_cpu(cluster.marker)}
    for gate in gate_processes(cluster):
        spent[gate.role] += cpu_of(gate.pid)
    return spent


def between(clocks: dict[str, Clock], begin: str, end: str, name: str) -> float:
    """How far a clock went between two marks."""
    return clocks[end][name] - clocks[begin][name]


def lease_cpu(found: dict[str, Any], begin: str, end: str, leases: int) -> dict[str, float]:
    """Milliseconds of CPU a lease, by role: as they were, and without what an idle gate would have used."""
    clocks = found["clocks"]
    seconds = between(clocks, begin, end, "at")
    result = {}
    for role in ("node", "head"):
        rate = between(clocks, "idle", "first", role) / between(clocks, "idle", "first", "at")
        spent = between(clocks, begin, end, role)
        result[role] = 1e3 * spent / leases
        result[f"{role} idle"] = 1e3 * rate * seconds / leases
    return result


def plain(arguments: str, *, nodes: int = 2, token: str = "") -> dict[str, Any]:
    """The program on plain Ray, whose processes are ended by the marker in their environment.

    On a head without CPUs and one node, or on one node; with a ``token``, Ray authenticates its callers.
    """
    from ray.job_submission import JobSubmissionClient

    folder, marker = Path(tempfile.mkdtemp(prefix="tg-plain-")), f"plain-{os.getpid()}-{nodes}{token}"
    environment = {**os.environ, processes.MARKER: marker, "RAY_raylet_start_wait_time_s": "180"}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_JOB_ALLOW_DRIVER_ON_WORKER_NODES": "1"}
    if token:
        (folder / "token").write_text(token)
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    ray = [
        sys.executable,
        "-c",
        "from ray.scripts.scripts import main; main()",
        "start",
        "--disable-usage-stats",
    ]
    port = 20_000 + 10 * (os.getpid() % 500) + 3 * next(STARTED)
    dashboard, agent = port + 1, port + 2
    ray += ["--min-worker-port=0", "--max-worker-port=0"]
    full = ["--num-cpus=4", f"--object-store-memory={STORE_BYTES}"]
    head = [f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}/head"]
    head += full if nodes == 1 else ["--num-cpus=0", "--object-store-memory=80000000"]
    further = [
        f"--address=127.0.0.1:{port}",
        "--node-ip-address=127.0.0.11",
        f"--temp-dir={folder}/node",
    ]
    further += [f"--dashboard-agent-listen-port={agent}", "--block", *full]
    try:
        with (folder / "log").open("wb") as log:
            command = [*ray, "--head", "--node-ip-address=127.0.0.1", *head]
            if subprocess.run(command, env=environment, stdout=log, stderr=log).returncode:
                raise SystemExit(f"plain Ray did not start: {(folder / 'log').read_text()[-1500:]}")
            if nodes == 2:
                command = [*APART, *ray, *further]
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while True:
            try:
                client = JobSubmissionClient(f"http://127.0.0.1:{dashboard}", headers=headers)
                client.list_jobs()
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        work = folder / "work"
        work.mkdir()
        return run(client, work, arguments, lambda: cluster_cpu(marker))
    finally:
        processes.end(processes.of_cluster(marker))
        shutil.rmtree(folder, ignore_errors=True)


def guarded(arguments: str) -> dict[str, Any]:
    """The program on a cluster of profile hardened."""
    folder = Path(tempfile.mkdtemp(prefix="tg-bench-"))
    try:
        with guarded_cluster(
            folder, object_store_bytes=STORE_BYTES, profile="hardened", pools=("shared",)
        ) as it:
            quotas = it.policies / "data" / "quotas.yaml"
            quotas.write_text(quotas.read_text().replace("nominal: 2000,", "nominal: 4000,"))
            work = folder / "work"
            work.mkdir()
            return run(it.client("acme"), work, arguments, lambda: gate_cpu(it.cluster))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def written(folder: Path, megabytes: int) -> Path:
    """Parquet files of so many MB of incompressible numbers, which every Unix user may read."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.chmod(0o755)
    random = np.random.default_rng(7)
    for number in range(max(1, megabytes // 64)):
        columns = {name: random.random(2 << 20) for name in "xyzw"}  # 64 MB
        pq.write_table(pa.table(columns), folder / f"{number:04d}.parquet", row_group_size=1 << 19)
    return folder


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path)
    options.add_argument("--tasks", type=int, default=2000)
    options.add_argument("--leases", type=int, default=300)
    options.add_argument("--data-mb", type=int, default=0, help="also read and map so many MB with Ray Data")
    options.add_argument("--others", action="store_true", help="also with Ray's token, and on a single node")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="tg-data-", dir="/tmp") as data:
        arguments = f"{chosen.tasks} {chosen.leases}"
        if chosen.data_mb:
            arguments += f" {written(Path(data), chosen.data_mb)}"
        ours, theirs = guarded(arguments), plain(arguments)
        others = {}
        if chosen.others:
            others["with its own token"] = plain(arguments, token=secrets.token_hex(32))
            others["on a single node"] = plain(arguments, nodes=1)
    again = lease_cpu(ours, "leases", "leased", chosen.leases)
    first = lease_cpu(ours, "first", "leases", ours["shapes"])
    decision = again["node"] + again["head"]
    without_idle = decision - again["node idle"] - again["head idle"]
    added = {name: ours[name] - theirs[name] for name in ours if name.endswith(("_ms", "_s"))}

    def line(name, value, unit, peer, target, met):
        ratio = value / peer if peer else None
        return Measure(name, round(value, 3), unit, "plain Ray", peer and round(peer, 3), ratio, target, met)

    def cpu_per_thousand(found: dict[str, Any]) -> float:
        return 1e3 * between(found["clocks"], "warm", "warmed", "all") / (found["turns"] * chosen.tasks / 1e3)

    ratio = ours["tasks_per_s"] / theirs["tasks_per_s"]
    report(
        [
            line(
                "tasks/s, warm leases",
                ours["tasks_per_s"],
                "1/s",
                theirs["tasks_per_s"],
                ">= 0.95x",
                ratio >= 0.95,
            ),
            line(
                "task with a new lease, p50",
                ours["lease_p50_ms"],
                "ms",
                theirs["lease_p50_ms"],
                "<= +2 ms",
                added["lease_p50_ms"] <= 2,
            ),
            line(
                "task with a new lease, p99",
                ours["lease_p99_ms"],
                "ms",
                theirs["lease_p99_ms"],
                "<= +10 ms",
                added["lease_p99_ms"] <= 10,
            ),
            line(
                "task with a new lease of a shape nobody had, p50",
                ours["lease_first_p50_ms"],
                "ms",
                theirs["lease_first_p50_ms"],
                "",
                None,
            ),
            line(
                "placement group, median",
                ours["group_ms"],
                "ms",
                theirs["group_ms"],
                "<= +2 ms",
                added["group_ms"] <= 2,
            ),
            line(
                "actor created and called",
                ours["actor_s"],
                "s",
                theirs["actor_s"],
                "<= +0.05 s",
                added["actor_s"] <= 0.05,
            ),
            line(
                "first task of a job",
                ours["first_task_s"],
                "s",
                theirs["first_task_s"],
                "<= +0.2 s",
                added["first_task_s"] <= 0.2,
            ),
            line("actor calls/s", ours["calls_per_s"], "1/s", theirs["calls_per_s"], "", None),
            line(
                "CPU of the whole cluster per 1,000 warm tasks",
                cpu_per_thousand(ours),
                "ms",
                cpu_per_thousand(theirs),
                "",
                None,
            ),
            *(
                line(f"plain Ray {how}: {what}", found[name], "1/s", None, "", None)
                for how, found in others.items()
                for what, name in (("tasks/s", "tasks_per_s"), ("actor calls/s", "calls_per_s"))
            ),
            *(
                line(f"plain Ray {how}: CPU per 1,000 tasks", cpu_per_thousand(found), "ms", None, "", None)
                for how, found in others.items()
            ),
            *(
                [
                    line(
                        f"Ray Data read + map of {chosen.data_mb} MB",
                        ours["data_s"],
                        "s",
                        theirs["data_s"],
                        "<= 1.05x",
                        ours["data_s"] <= 1.05 * theirs["data_s"],
                    )
                ]
                if chosen.data_mb
                else []
            ),
            line(
                "submission to RUNNING, median of 5",
                ours["to_running_s"],
                "s",
                theirs["to_running_s"],
                "<= +0.1 s",
                added["to_running_s"] <= 0.1,
            ),
            line(
                "the same, first on a new cluster, with a working_dir",
                ours["first_running_s"],
                "s",
                theirs["first_running_s"],
                "",
                None,
            ),
            line(
                "placement group, p99",
                ours["group_p99_ms"],
                "ms",
                theirs["group_p99_ms"],
                "<= +10 ms",
                added["group_p99_ms"] <= 10,
            ),
            line(
                "gates' CPU per lease, all in that time", decision, "ms", None, "<= 0.5 ms", decision <= 0.5
            ),
            line(
                "gates' CPU per lease without what they use idle",
                without_idle,
                "ms",
                None,
                "<= 0.5 ms",
                without_idle <= 0.5,
            ),
            *(line(f"- of it {name}", again[name], "ms", None, "", None) for name in again),
            *(line(f"- of a shape nobody had: {name}", first[name], "ms", None, "", None) for name in first),
            line(
                "leases/s on one core",
                1e3 / decision if decision else 0,
                "1/s",
                None,
                ">= 2000",
                decision <= 0.5,
            ),
        ],
        chosen.json,
    )


if __name__ == "__main__":
    main()
