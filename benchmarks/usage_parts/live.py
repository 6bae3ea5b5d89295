"""From anomaly to stopped job on a real, local Ray cluster.

A real job whose telemetry (a real HTTP exporter, made-up readings) turns into a capped miner; the clock runs
from the exporter's first anomalous answer to Ray's Job API saying STOPPED. Drills are in ``drilling``.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from compute_guard.ray_plugin.collector import LiveBook
from compute_guard.ray_plugin.jobs import RayCluster
from compute_guard.testing import GuardedCluster, exporter, exposition, guarded_cluster, wait_until
from compute_guard.usage.sources.synthetic import Load, SyntheticSource
from measure import Measure
from usage_parts import drilling

INTERVAL_S = 2.0


class Exporter:
    """A real exporter whose device ``victim`` starts to mine when told to."""

    def __init__(self, node: str, victim: int) -> None:
        honest = SyntheticSource((Load("training", index=0), Load("training", index=1)), 4_000, seed=5)
        mining = SyntheticSource(
            (Load("mining-capped", index=0), Load("mining-capped", index=1)), 4_000, seed=6
        )
        self._frames = iter(zip(honest.frames(), mining.frames(), strict=True))
        self._node, self._victim, self.mines = node, victim, False
        self.first_odd: float | None = None

    def text(self) -> bytes:
        honest, mining = next(self._frames)
        if self.mines and self.first_odd is None:
            self.first_odd = time.monotonic()
        if not self.mines:
            return exposition(honest, self._node)
        parts = (
            honest.take(np.flatnonzero(honest.device != self._victim)),
            mining.take(np.flatnonzero(mining.device == self._victim)),
        )
        return b"".join(exposition(part, self._node) for part in parts)


def stopped_after(cluster: GuardedCluster, number: int) -> tuple[float, bool]:
    """Seconds from the first anomalous answer to STOPPED, and whether the neighbour was left alone."""
    home, client, neighbour = cluster.home, cluster.client("acme"), cluster.client("beta")
    pool = f"sleep 600 # stratum+tcp://pool{number}.invalid:3333"
    job = client.submit_job(entrypoint=pool, entrypoint_num_gpus=1)
    other = neighbour.submit_job(entrypoint="sleep 600", entrypoint_num_gpus=1)
    cluster.wait(client, job, ["RUNNING"])
    cluster.wait(neighbour, other, ["RUNNING"])
    book = LiveBook(home)
    book.look()
    node, victim = next((h.node.hostname, next(iter(h.gpus))) for h in book.held if h.job == job)
    book.close()
    made_up = Exporter(node, victim)
    with exporter(made_up.text) as url:
        command = [sys.executable, "-c", "from guard_core.cli import main; raise SystemExit(main())"]
        arguments = [
            "--home",
            str(home.settings.home),
            "compute",
            "monitor",
            "--interval",
            str(INTERVAL_S),
            url,
        ]
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TRAINGUARD_POLICY_DIR": str(cluster.policies)},
        )
        try:
            time.sleep(14 * INTERVAL_S)  # it has seen honest training first
            made_up.mines = True
            wait_until(lambda: client.get_job_info(job).status == "STOPPED", seconds=180)
            took = time.monotonic() - (made_up.first_odd or time.monotonic())
            alone = neighbour.get_job_info(other).status == "RUNNING"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    RayCluster(home).stop_job(other, reason="end of measure")
    return took, alone


def measures(drills: range, *, runs: int = 3) -> Iterator[Measure]:
    """Real runs, then the drills of these seeds; none of either when its number is 0."""
    with (
        tempfile.TemporaryDirectory(prefix="tg-") as name,
        guarded_cluster(folder := Path(name), num_gpus=2) as cluster,
    ):
        yield from _runs(cluster, runs) if runs else ()
        yield from drilling.measures(cluster, folder, drills) if drills else ()


def _runs(cluster: GuardedCluster, runs: int) -> Iterator[Measure]:
    taken, alone = zip(*(stopped_after(cluster, number) for number in range(runs)), strict=True)
    print(f"  {[round(t, 1) for t in taken]} s", flush=True)
    # The miner names its pool, so three flat samples are enough; the first of them begins the clock.
    seconds, goal = statistics.median(taken), 2 * INTERVAL_S + 5
    words = f"s at {INTERVAL_S:g} s scrapes, median of {runs}"
    yield Measure(
        "anomaly to stopped job on live Ray", seconds, words, target=f"<= {goal:g}", met=seconds <= goal
    )
    yield Measure("same, the slowest", max(taken), "s")
    yield Measure("same, from the sample that completes the evidence", seconds - 2 * INTERVAL_S, "s")
    yield Measure("neighbours of those jobs left running", sum(alone), f"of {runs}")
