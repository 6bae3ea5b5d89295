"""Admission under Kueue's own baseline load, and what-if replays of public traces.

Load: kubernetes-sigs/kueue, test/performance/scheduler/configs/baseline (5 cohorts x 6 queues x 500
workloads, three classes with their creation intervals, run times and priorities, reclaim and preemption on).
As there, workloads run nowhere: a timer ends them. Every submission goes through Gateway.submit_many, the
shipped Rego, the audit log with its syncs and the SQLite ledger, and every end through Gateway.finish_many.
Kueue's figure is the one it publishes for its scheduler against a live API server; it is not run here.

Traces: TRAINGUARD_BENCH_DATA (philly, openb), replayed by the code behind ``trainguard compute simulate``.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from compute_guard.admission.gateway import Admitted, Gateway, Held
from compute_guard.admission.workload import WorkloadState
from compute_guard.quota.limits import GPU, Quotas
from compute_guard.ray_plugin.service import LOOK_SECONDS
from compute_guard.replay.simulate import Stage, simulate
from compute_guard.replay.traces import Trace, read_trace
from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.identity import Principal
from guard_core.policy.bundle import shipped_policies
from measure import Measure, cpu_seconds, report

KUEUE_WALL_S = 351.1
KUEUE_WAIT_S = {"small": 215.5, "medium": 76.8, "large": 6.67}
BATCH = 256


@dataclass(frozen=True)
class Class:
    """One class of workloads, as in Kueue's generator."""

    name: str
    count: int
    every_s: float
    runs_s: float
    priority: int
    cpus: int


CLASSES = (
    Class("small", 350, 0.1, 0.2, 50, 1),
    Class("medium", 100, 0.5, 0.5, 100, 5),
    Class("large", 50, 1.2, 1.0, 200, 20),
)


def policies_for(folder: Path, cohorts: int, queues: int) -> Path:
    """The shipped policies with Kueue's queues: 20 CPUs nominal, borrowing limit 100, preemption on."""
    shutil.copytree(shipped_policies(), folder)
    names = [(f"cohort-{c}", f"queue-{c}-{q}") for c in range(cohorts) for q in range(queues)]
    plenty = {"nominal": 10**9, "borrowing_limit": 0, "lending_limit": 0}
    quotas = {
        "cohorts": {f"cohort-{c}": {"title": "as in Kueue's baseline"} for c in range(cohorts)},
        "queues": {
            queue: {
                "tenant": queue,
                "cohort": cohort,
                "weight": 1,
                "preemption": {
                    "reclaim_within_cohort": "any",
                    "within_queue": "lower_priority",
                    "grace_seconds": 0,
                    "then": "requeue",
                },
                "resources": {
                    "jobs": plenty,
                    "memory_bytes": plenty,
                    "gpu_milli": {"nominal": 0, "borrowing_limit": 0, "lending_limit": 0},
                    "cpu_milli": {"nominal": 20_000, "borrowing_limit": 100_000, "lending_limit": None},
                },
            }
            for cohort, queue in names
        },
    }
    tenants = {queue: {"title": queue, "tier": "basic", "state": "active"} for _, queue in names}
    (folder / "data" / "quotas.yaml").write_text(json.dumps(quotas, indent=1))
    existing = yaml.safe_load((folder / "data" / "tenants.yaml").read_text())
    (folder / "data" / "tenants.yaml").write_text(yaml.safe_dump({**existing, **tenants}))
    return folder


@dataclass
class Run:
    """What happened in a live run."""

    created: dict[str, float] = field(default_factory=dict)
    admitted: dict[str, float] = field(default_factory=dict)
    class_of: dict[str, Class] = field(default_factory=dict)
    busy: float = 0.0  # CPU-seconds of quota, over all queues
    wall: float = 0.0
    cpu: float = 0.0
    rounds: int = 0
    taken_out: int = 0
    refused: int = 0


def live(cohorts: int, queues: int, share: float) -> Run:
    """The load in real time through a real gateway. ``share`` of the published counts."""
    run = Run()
    with tempfile.TemporaryDirectory() as scratch:
        folder = policies_for(Path(scratch) / "policies", cohorts, queues)
        settings = load_settings(home=Path(scratch) / "home", policy={"dir": folder})
        with Home.open(settings) as home:
            gateway = Gateway(home)
            gateway.look_every(LOOK_SECONDS)
            arrivals = _arrivals(cohorts, queues, share)
            principals = {
                queue: home.credentials.verify(home.credentials.issue(tenant=queue, user="bench"))
                for queue in sorted({queue for _, queue, _, _ in arrivals})
            }
            _warm(gateway, principals)
            cpu = cpu_seconds()
            _drive(gateway, arrivals, principals, run)
        run.cpu = cpu_seconds() - cpu  # the process that answers policy has ended with the home, and counts
    return run


def _arrivals(cohorts: int, queues: int, share: float) -> list[tuple[float, str, str, Class]]:
    return sorted(
        (number * kind.every_s, f"queue-{c}-{q}", f"{kind.name}-{c}-{q}-{number}", kind)
        for c in range(cohorts)
        for q in range(queues)
        for kind in CLASSES
        for number in range(int(kind.count * share))
    )


def _warm(gateway: Gateway, principals: dict[str, Principal]) -> None:
    """Load policy engine, SQLAlchemy and statements: not what is measured."""
    queue, principal = next(iter(principals.items()))
    gateway.submit(principal, {"entrypoint": "x", "submission_id": "warm"})
    gateway.finish("warm", WorkloadState.FINISHED, queue)


def _drive(
    gateway: Gateway,
    arrivals: list[tuple[float, str, str, Class]],
    principals: dict[str, Principal],
    run: Run,
) -> None:
    running: dict[str, float] = {}
    ends: list[tuple[float, str]] = []
    ended, place = 0, 0
    begun = time.perf_counter()

    def start(items: list[Admitted]) -> None:
        now = time.perf_counter() - begun
        for item in items:
            running[item.id] = now
            run.admitted.setdefault(item.id, now)
            heapq.heappush(ends, (now + run.class_of[item.id].runs_s, item.id))

    while ended < len(arrivals) - run.refused:
        now = time.perf_counter() - begun
        due: list[tuple[Principal, dict[str, object]]] = []
        while place < len(arrivals) and arrivals[place][0] <= now and len(due) < BATCH:
            _, queue, name, kind = arrivals[place]
            place += 1
            run.created[name], run.class_of[name] = now, kind
            body = {
                "entrypoint": "train",
                "submission_id": name,
                "entrypoint_num_cpus": kind.cpus,
                "metadata": {"priority": str(kind.priority)},
            }
            due.append((principals[queue], body))
        done = []
        while ends and ends[0][0] <= now:
            end, name = heapq.heappop(ends)
            if running.get(name, -1) + run.class_of[name].runs_s == end:
                done.append((name, WorkloadState.FINISHED, "SUCCEEDED: done"))
                run.busy += (now - running.pop(name)) * run.class_of[name].cpus
        if done:
            ended += gateway.finish_many(done)
        if due:
            outcomes, others = gateway.submit_many(due)
            run.refused += sum(1 for one in outcomes if not isinstance(one, Admitted | Held))
            start([*[one for one in outcomes if isinstance(one, Admitted)], *others])
        else:
            for admitted in gateway.releases():
                start(admitted)
        out = [name for name in gateway.ledger.evictions() if name in running]
        for name in out:
            # Its time is up at once: stopped, and in its line again.
            run.busy += (time.perf_counter() - begun - running.pop(name)) * run.class_of[name].cpus
        if out:
            run.taken_out += gateway.requeue_many([(name, "taken out") for name in out])
        if not due and not done:
            time.sleep(0.005)
        run.rounds += 1
    run.wall = time.perf_counter() - begun


def kueue(cohorts: int, queues: int, share: float) -> Iterator[Measure]:
    """Measures of the live run."""
    run = live(cohorts, queues, share)
    count = len(run.admitted)
    whole = (cohorts, queues, share) == (5, 6, 1.0)
    name = f"live admission of {count:,} workloads (Kueue's baseline)"
    yield Measure(
        name,
        run.wall,
        "s",
        "Kueue, published",
        KUEUE_WALL_S if whole else None,
        KUEUE_WALL_S / run.wall if whole else None,
        "<= 80" if whole else "",
        run.wall <= 80 if whole else None,
    )
    yield Measure("CPU-time of it, per workload", 1000 * run.cpu / count, "ms")
    use = 100 * run.busy / (20 * cohorts * queues * run.wall)
    yield Measure("mean queue use", use, "%", "Kueue, published", 58.7, None, ">= 58", use >= 58)
    for kind in CLASSES:
        waits = [
            run.admitted[n] - run.created[n]
            for n, k in run.class_of.items()
            if k is kind and n in run.admitted
        ]
        yield Measure(
            f"mean time to admission, {kind.name}",
            statistics.mean(waits),
            "s",
            "Kueue, published",
            KUEUE_WAIT_S[kind.name] if whole else None,
        )
    yield Measure("taken out and queued again", run.taken_out, "workloads")
    yield Measure("refused", run.refused, "workloads", target="0", met=run.refused == 0)


def added(samples: int) -> Iterator[Measure]:
    """What a single submission takes from the call to the admission, with nothing else going on."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = policies_for(Path(scratch) / "policies", 1, 1)
        with Home.open(load_settings(home=Path(scratch) / "home", policy={"dir": folder})) as home:
            gateway = Gateway(home)
            principal = home.credentials.verify(home.credentials.issue(tenant="queue-0-0", user="bench"))
            _warm(gateway, {"queue-0-0": principal})
            walls, cpus = [], []
            for number in range(samples):
                wall, cpu = time.perf_counter(), time.process_time()
                outcome = gateway.submit(principal, {"entrypoint": "x", "submission_id": f"one-{number}"})
                walls.append(1000 * (time.perf_counter() - wall))
                cpus.append(1000 * (time.process_time() - cpu))
                if not isinstance(outcome, Admitted):
                    raise RuntimeError(f"it was not admitted: {outcome}")
                gateway.finish(f"one-{number}", WorkloadState.FINISHED, "done")
    middle = statistics.median(walls)
    yield Measure(
        "added to one submission before Ray hears of it, p50",
        middle,
        "ms",
        target="<= 100",
        met=middle <= 100,
    )
    yield Measure("CPU-time of it, p50", statistics.median(cpus), "ms")


def _even_quotas(trace: Trace, gpus: int) -> Quotas:
    """Every queue of a trace gets an even part of ``gpus`` GPUs, and may borrow and reclaim."""
    names = sorted({job.queue for job in trace.jobs})
    part = {"nominal": gpus * 1000 // len(names)}
    return Quotas.from_config(
        {
            "cohorts": {"all": {"title": "all"}},
            "queues": {
                name: {
                    "tenant": name,
                    "cohort": "all",
                    "preemption": {"reclaim_within_cohort": "any", "grace_seconds": 60},
                    "resources": {
                        "jobs": {"nominal": 10**6},
                        "gpu_milli": part,
                        "cpu_milli": {"nominal": part["nominal"] * 32},
                        "memory_bytes": {"nominal": 1 << 50},
                    },
                }
                for name in names
            },
        }
    )


def replays(data: Path) -> Iterator[Measure]:
    """Jobs per CPU-second of the compiled loop, on a cluster with room and on one without."""
    for name, path, sizes in (
        ("Philly", data / "philly" / "seed0", (960, 360)),
        ("openb", data / "openb" / "openb_pod_list_default.csv.gz", (6212, 800)),
    ):
        if not path.exists():
            continue
        trace = read_trace(path)
        for gpus in sizes:
            quotas = _even_quotas(trace, gpus)
            Stage(trace.jobs[:1], quotas).run(fast=True)
            rates = []
            for _ in range(5):
                stage = Stage(trace.jobs, quotas)
                cpu = time.process_time()
                stage.run(fast=True)
                rates.append(len(trace.jobs) / (time.process_time() - cpu))
            rate = statistics.median(rates)
            yield Measure(
                f"what-if replay, {name}, {gpus} GPUs ({sum(stage.course.stops)} taken out)",
                rate,
                "jobs/CPU-s",
                "PAI simulator, its own log",
                390,
                rate / 390,
                ">= 40000",
                rate >= 40_000,
            )
            used = simulate(trace, quotas).use_percent[GPU]
            yield Measure(f"GPUs in use there, {name}, {gpus} GPUs", used, "%")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cohorts", type=int, default=5)
    parser.add_argument("--queues", type=int, default=6)
    parser.add_argument("--share", type=float, default=1.0, help="share of the published 500 per queue")
    parser.add_argument("--only", choices=("live", "replay"), help="one half of it")
    arguments = parser.parse_args()
    data = Path(os.environ.get("TRAINGUARD_BENCH_DATA", "../shared/data"))
    measures: list[Measure] = []
    if arguments.only != "live":
        measures += replays(data)
    if arguments.only != "replay":
        measures += added(50)
        measures += kueue(arguments.cohorts, arguments.queues, arguments.share)
    report(measures, arguments.json)


if __name__ == "__main__":
    main()
