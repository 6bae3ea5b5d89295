"""How soon what got in beside the gates is stopped, on a real cluster with the settings that ship.

A process that holds the cluster's stolen token connects to Ray's own GCS, past every gate, and runs one task
after the other (``stolen token``); the same, claiming the submission id of a job that was admitted
(``borrowed id``). Times are Ray's own: from the driver's start in the job table to its end there. When its
last task ran is the driver's word. With ``--profile hardened`` also what a job left behind (a daemon, a
detached actor): from the job's end to nothing being left. Plain Ray stops none of these: there is no peer.

Usage: python benchmarks/violations.py [--profile hardened] [--count 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.testing import GuardedCluster, guarded_cluster, intruder, wait_until
from measure import Measure, machine, median, report

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
TARGET_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
STORE_BYTES = 100_000_000

MARK = "ran at "
INTRUDER = """
import sys, time
import ray
ray.init(address=sys.argv[1], logging_level="error", log_to_driver=False)

@ray.remote(num_cpus=0.01)
def work():
    return time.time()

while True:
    print("ran at", ray.get(work.remote()), flush=True)
"""
LEAVER = """
import subprocess, sys, ray
ray.init(log_to_driver=False)

@ray.remote(num_cpus=0)
class Ghost:
    def daemon(self, seconds):
        subprocess.Popen(["setsid", "sleep", seconds])

ghost = Ghost.options(name="ghost", lifetime="detached").remote()
ray.get(ghost.daemon.remote(sys.argv[1]))
"""


def job_table(gcs: Gcs) -> dict[int, Any]:
    """Ray's rows of drivers, by process id."""
    request = gcs._messages.GetAllJobInfoRequest(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True
    )
    return {row.driver_pid: row for row in gcs._call(gcs._jobs.GetAllJobInfo, request).job_info_list}


def intrude(cluster: GuardedCluster, gcs: Gcs, claims: str = "") -> dict[str, float]:
    """Seconds from a driver's start to its end and to its last task, and how many tasks it ran."""
    forged = {"metadata": {"job_submission_id": claims}} if claims else None
    with tempfile.TemporaryFile("w+") as said:
        process = intruder(cluster, INTRUDER, claims=forged, said=said)
        try:
            wait_until(
                lambda: process.pid in (rows := job_table(gcs)) and rows[process.pid].is_dead,
                seconds=PATIENCE_SECONDS,
            )
            row = job_table(gcs)[process.pid]
            time.sleep(1)  # tasks that would still run are waited for
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        ran = [float(line.removeprefix(MARK)) for line in said if line.startswith(MARK)]
    begun = row.start_time / 1000
    last = max(0.0, ran[-1] - begun) if ran else 0.0
    return {"stopped": row.end_time / 1000 - begun, "last_task": last, "tasks": len(ran)}


def leave_behind(cluster: GuardedCluster, gcs: Gcs) -> float:
    """Seconds from a job's end until neither its daemon nor its detached actor is left."""
    folder = Path(tempfile.mkdtemp(prefix="tg-left-"))
    (folder / "program.py").write_text(LEAVER)
    client, mark = cluster.client("acme"), f"600.{time.time_ns()}"
    job = client.submit_job(entrypoint=f"python program.py {mark}", runtime_env={"working_dir": str(folder)})
    ended = cluster.wait(client, job)
    shutil.rmtree(folder)
    if ended.status.value != "SUCCEEDED":
        raise SystemExit(f"the job that leaves a daemon behind {ended.status.value}: {ended.message}")

    def left() -> list[str]:
        return [*daemons(mark), *(a.name for a in gcs.actors() if a.name.startswith("ghost"))]

    wait_until(lambda: not left(), seconds=PATIENCE_SECONDS, seen=left)
    return time.time() - ended.end_time / 1000


def daemons(mark: str) -> list[str]:
    """Command lines of living processes that are called with ``mark``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").replace("\0", " ")
            found += [line] if line == f"sleep {mark}" else []
    return found


def run(cluster: GuardedCluster, count: int, profile: str) -> list[Measure]:
    gcs = Gcs(cluster.cluster.gcs_address, lambda: cluster.cluster.token)
    client = cluster.client("acme")
    job = client.submit_job(entrypoint="sleep 3600")
    cluster.wait(client, job, ["RUNNING"])
    measures = []
    try:
        for name, claims in (("stolen token", ""), ("borrowed id", job)):
            runs = [intrude(cluster, gcs, claims) for _ in range(count)]
            stopped = [one["stopped"] for one in runs]
            for what, value in (("median", median(stopped)), (f"longest of {count}", max(stopped))):
                measures.append(
                    Measure(
                        f"{profile}, {name}: start to stopped, {what}",
                        value,
                        "s",
                        target=f"<= {TARGET_SECONDS:g} s",
                        met=value <= TARGET_SECONDS,
                    )
                )
            measures += [
                Measure(
                    f"{profile}, {name}: start to its last task, longest",
                    max(r["last_task"] for r in runs),
                    "s",
                ),
                Measure(
                    f"{profile}, {name}: tasks it ran, median", median([r["tasks"] for r in runs]), "tasks"
                ),
            ]
        client.stop_job(job)
        cluster.wait(client, job)
        if profile == "hardened":
            left = [leave_behind(cluster, gcs) for _ in range(max(1, count // 3))]
            measures += [
                Measure(f"{profile}: job's end to nothing left, {what}", value, "s")
                for what, value in (("median", median(left)), (f"longest of {len(left)}", max(left)))
            ]
    finally:
        gcs.close()
    return measures


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--profile", choices=("observe-and-stop", "gate", "hardened"), default="hardened")
    arguments.add_argument("--count", type=int, default=10)
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tg-bench-"))
    gates = {} if chosen.profile == "observe-and-stop" else {"pools": ("shared",)}
    try:
        with guarded_cluster(
            folder, object_store_bytes=STORE_BYTES, profile=chosen.profile, **gates
        ) as cluster:
            measures = run(cluster, chosen.count, chosen.profile)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(machine()))
    report(measures, chosen.json)


if __name__ == "__main__":
    main()
