"""How long scheduling pauses when a gate is killed, on a real cluster: one job leases without any pause.

Each gate (a node's, then the head's) is ended with SIGKILL several times; what keeps it starts it again. The
pause is the longest time in which no task with a new lease came back, around the kill. With ``--outage 60``
the gate of the head, then those of the nodes, stay away for so many seconds. No task is tried again
(``max_retries=0``), so a failed lease is a failed task. Plain Ray has no such process: there is no peer.

Usage: python benchmarks/gate_outage.py [--kills 3] [--outage 60] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.testing import GuardedCluster, gate_processes, guarded_cluster, wait_until
from measure import Measure, machine, median, report

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
PAUSE_TARGET, OUTAGE_TARGET = 2.0, 60
SETTLES = 4.0
"""Seconds between kills: a gate that ends sooner than one second is started again later, on purpose."""

PROGRAM = """
import json, sys, time
from pathlib import Path
import ray
ray.init(log_to_driver=False)

@ray.remote(max_retries=0)
def noop():
    return None

@ray.remote(num_cpus=0)
class Beat:
    def beat(self):
        return None

beat = Beat.remote()
ray.get([beat.beat.remote(), noop.remote()])
gaps, steps, failed, beats, late = [], [], [], 0, 0.0
print("STARTED", flush=True)
before, number = time.time(), 0
while not Path(sys.argv[1]).exists():
    number += 1
    task = noop.options(num_cpus=0.01 + 0.0001 * (number % 90)).remote()
    while not ray.wait([task], timeout=0.25)[0]:
        began = time.time()
        ray.get(beat.beat.remote())
        beats, late = beats + 1, max(late, time.time() - began)
    try:
        ray.get(task)
    except Exception as error:
        failed.append(repr(error))
    now = time.time()
    steps.append(now - before)
    if now - before > 0.05:
        gaps.append((before, now - before))
    before = now
steps.sort()
print("FOUND " + json.dumps({"gaps": gaps, "step": steps[len(steps) // 2], "leases": number,
                             "failed": failed, "beats": beats, "late": late}), flush=True)
"""


def gates(cluster: GuardedCluster, role: str, *, keeper: bool) -> list[int]:
    """Process ids of the gates of ``role``, or of what keeps them running."""
    return [g.pid for g in gate_processes(cluster.cluster) if g.role == role and g.keeper == keeper]


def addresses(cluster: GuardedCluster, role: str) -> list[tuple[str, int]]:
    """Where the gates of ``role`` listen."""
    folders = {g.folder for g in gate_processes(cluster.cluster) if g.role == role}
    files = [Path(cluster.cluster.temp_dir) / folder / "guard" / "config.json" for folder in folders]
    configs = [json.loads(file.read_text()) for file in files]
    return [(str(c["host" if role == "head" else "address"]), int(c["port"])) for c in configs]


def kill(cluster: GuardedCluster, role: str) -> tuple[float, float]:
    """When the gates of ``role`` were ended, and how long it took until others listened in their place."""
    listeners, before = addresses(cluster, role), gates(cluster, role, keeper=False)
    at = time.time()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    while set(before) & set(gates(cluster, role, keeper=False)) or not all(
        listens(*place) for place in listeners
    ):
        if time.time() - at > 60:
            raise SystemExit(f"the gate of the {role} did not come back")
        time.sleep(0.01)
    return at, time.time() - at


def listens(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def keep_away(cluster: GuardedCluster, role: str, seconds: float) -> float:
    """When the gates of ``role`` came back, after ``seconds`` without them."""
    keepers = gates(cluster, role, keeper=True)
    for pid in keepers:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in gates(cluster, role, keeper=False):
            os.kill(pid, signal.SIGKILL)
        time.sleep(seconds)
    finally:
        for pid in keepers:
            os.kill(pid, signal.SIGCONT)
    return time.time()


def pause(gaps: list[tuple[float, float]], begun: float, until: float) -> float:
    """The longest gap that touches ``begun`` to ``until``; zero when none was longer than 50 ms."""
    return max((took for at, took in gaps if at < until and at + took > begun), default=0.0)


def run(cluster: GuardedCluster, folder: Path, kills: int, outage: float) -> dict[str, Any]:
    """The pauses by what was done, and what the job says of itself."""
    client, stop = cluster.client("acme"), folder / "stop"
    folder.chmod(0o755)
    work = folder / "work"
    work.mkdir()
    (work / "program.py").write_text(PROGRAM)
    job = client.submit_job(entrypoint=f"python program.py {stop}", runtime_env={"working_dir": str(work)})
    wait_until(lambda: "STARTED" in client.get_job_logs(job), seconds=120)
    time.sleep(SETTLES)
    killed: dict[str, list[tuple[float, float]]] = {"node": [], "head": []}
    back: dict[str, float] = {}
    for role, times in killed.items():
        for _ in range(kills):
            times.append(kill(cluster, role))
            time.sleep(SETTLES)
    for role in ("head", "node") if outage else ():
        back[role] = keep_away(cluster, role, outage)
        time.sleep(2 * SETTLES)
    stop.touch()
    details = cluster.wait(client, job, seconds=240)
    lines = [row for row in client.get_job_logs(job).splitlines() if row.startswith("FOUND ")]
    if not lines:
        raise SystemExit(f"the job said nothing: {details.message} {client.get_job_logs(job)[-2000:]}")
    found = json.loads(lines[-1].removeprefix("FOUND "))
    gcs = Gcs(cluster.cluster.gcs_address, lambda: cluster.cluster.token)
    found["nodes"] = len(gcs.nodes())
    gcs.close()
    found["pauses"] = {
        role: [pause(found["gaps"], at, at + SETTLES - 1) for at, _ in times]
        for role, times in killed.items()
    }
    found["listening"] = {role: [took for _, took in times] for role, times in killed.items()}
    # Of a long outage, what is left of the pause once the gate is there again.
    found["after"] = {
        role: max((at + took - when for at, took in found["gaps"] if at < when < at + took), default=0.0)
        for role, when in back.items()
    }
    return found


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--json", type=Path)
    options.add_argument("--kills", type=int, default=3)
    options.add_argument("--outage", type=float, default=0)
    chosen = options.parse_args()
    print(f"machine: {machine()}\n")
    folder = Path(tempfile.mkdtemp(prefix="tg-outage-"))
    try:
        with guarded_cluster(folder, profile="hardened", pools=("shared",)) as cluster:
            found = run(cluster, folder, chosen.kills, chosen.outage)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [
        Measure("task with a new lease, undisturbed, median", round(1e3 * found["step"], 2), "ms"),
        Measure("tasks with a lease of their own", found["leases"], ""),
    ]
    for role, pauses in found["pauses"].items():
        longest = max(pauses, default=0.0)
        rows += [
            Measure(f"pause, {role}'s gate killed, median of {len(pauses)}", round(median(pauses), 3), "s"),
            Measure(
                f"pause, {role}'s gate killed, longest",
                round(longest, 3),
                "s",
                target=f"<= {PAUSE_TARGET:g} s",
                met=longest <= PAUSE_TARGET,
            ),
            Measure(
                "- of it until the gate listens again, longest",
                round(max(found["listening"][role], default=0.0), 3),
                "s",
            ),
        ]
    for role, seconds in found["after"].items():
        rows.append(
            Measure(
                f"{role}'s gate away {chosen.outage:g} s: until leases go on once it is back",
                round(seconds, 3),
                "s",
                target=f"<= {PAUSE_TARGET:g} s",
                met=seconds <= PAUSE_TARGET,
            )
        )
    if found["after"]:
        rows.append(Measure("slowest actor call meanwhile", round(1e3 * found["late"], 1), "ms"))
    rows += [
        Measure("tasks failed", len(found["failed"]), "", target="0", met=not found["failed"]),
        Measure("nodes lost", 2 - found["nodes"], "", target="0", met=found["nodes"] == 2),
    ]
    report(rows, chosen.json)
    for text in found["failed"][:3]:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
