"""Drills one after another on a live Ray cluster, beside jobs of two other tenants that must not notice.

Each drill is the shipped one: a real job of the canary, submitted through the cluster's own job API, found by
the real monitor in labelled telemetry, stopped by Ray, looked at afterwards. Only time is compressed: its 60
scrapes of 15 s are read as fast as they can be. The neighbours write a beat every second; a drill that paused
or restarted one, took its place in line or put its queue on hold shows in :func:`portrait` or in the beats.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compute_guard.drills.drill import run, submit_over_http
from compute_guard.ledger.store import Ledger
from compute_guard.quota.limits import Quotas
from compute_guard.ray_plugin.jobs import RayCluster
from compute_guard.testing import GuardedCluster
from measure import Measure

KINDS = ("mining-capped", "mining-full")
NEIGHBOURS = ("acme", "beta")


def portrait(cluster: GuardedCluster, jobs: dict[str, str]) -> dict[str, Any]:
    """What a drill must leave as it was: jobs as Ray and the ledger have them, and queues on hold."""
    ledger = Ledger(cluster.home.storage)
    seen: dict[str, Any] = {"holds": dict(ledger.snapshot(quotas(cluster)).holds)}
    for job, tenant in jobs.items():
        details, entry = cluster.client(tenant).get_job_info(job), ledger.get(job)
        assert entry is not None
        seen[job] = (details.status.value, details.start_time, entry.state, entry.workload)
    return seen


def quotas(cluster: GuardedCluster) -> Quotas:
    return Quotas.from_config(cluster.home.policy_data()["quotas"])


def neighbours(cluster: GuardedCluster, folder: Path) -> tuple[dict[str, str], list[Path]]:
    """By job its tenant: one that runs for each, and one of acme's that waits for room."""
    jobs, beats = {}, []
    for tenant in NEIGHBOURS:
        beats.append(folder / f"{tenant}.beats")
        beat = f"while sleep 1; do date +%s >> {beats[-1]}; done"
        client = cluster.client(tenant)
        jobs[client.submit_job(entrypoint=beat, entrypoint_num_cpus=1)] = tenant
    for job, tenant in jobs.items():
        cluster.wait(cluster.client(tenant), job, ["RUNNING"])
    waiting = cluster.client("acme").submit_job(
        entrypoint="true", entrypoint_num_cpus=2, metadata={"priority": "7"}
    )
    return {**jobs, waiting: "acme"}, beats


def measures(cluster: GuardedCluster, folder: Path, drills: range) -> Iterator[Measure]:
    # The blast cap (20 steps an hour) holds for drills too, and would deny the twenty-first.
    book = cluster.policies / "data" / "playbooks.yaml"
    book.write_text(book.read_text().replace("actions_per_hour: 20 ", "actions_per_hour: 9999 "))
    home = cluster.home
    jobs, beats = neighbours(cluster, folder)
    submit = submit_over_http(home, "canary", cluster.cluster.dashboard)
    before = portrait(cluster, jobs)
    reports, taken, touched = [], [], 0
    for seed in drills:
        begun = time.monotonic()
        kind = KINDS[seed % len(KINDS)]
        report = run(home, kind, "canary", cluster=RayCluster(home), submit=submit, seed=seed)
        taken.append(time.monotonic() - begun)
        reports.append(report)
        touched += bool(report.touched_others) or portrait(cluster, jobs) != before
        if not report.passed or seed % 10 == 9:
            passed = sum(r.passed for r in reports)
            print(f"  {len(reports)} drills, {passed} passed, {touched} touched others", flush=True)
            print(*([] if report.passed else [report]), sep="", end="\n" if not report.passed else "")
    for job in jobs:
        RayCluster(home).stop_job(job, reason="end of measure")
    yield Measure("drills passed", sum(r.passed for r in reports), f"of {len(drills)}")
    yield Measure(
        "drills that touched another tenant", touched, f"of {len(drills)}", target="0", met=not touched
    )
    yield Measure("longest silence of a neighbour's beat", longest_gap(beats), "s, beats every 1 s")
    yield Measure("from onset to detection, median", median_of(reports, "detect_seconds"), "s of telemetry")
    yield Measure("from onset to a stopped job, median", median_of(reports, "contain_seconds"), "s")
    yield Measure("a whole drill, median", statistics.median(taken), "s")


def median_of(reports: list[Any], field: str) -> float:
    return statistics.median(v for r in reports if (v := getattr(r, field)) is not None)


def longest_gap(beats: list[Path]) -> float:
    gaps = []
    for path in beats:
        times = [int(line) for line in path.read_text().split()]
        gaps += [b - a for a, b in itertools.pairwise(times)]
    return float(max(gaps))
