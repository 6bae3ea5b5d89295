"""The head is killed while an incident is open and starts again on its ports: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from compute_guard.admission.workload import WorkloadState
from compute_guard.cluster import local_cluster, processes
from compute_guard.cluster.ray_start import start_node
from compute_guard.incidents.incident import State
from compute_guard.incidents.store import Incidents
from compute_guard.ledger.store import Ledger
from compute_guard.monitoring.live import read_status
from compute_guard.ray_plugin.collector import LiveBook
from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.response.actions import Actions
from compute_guard.testing import GuardedCluster, exporter, exposition, guarded_cluster, wait_until
from compute_guard.usage.sources.synthetic import Load, SyntheticSource

pytestmark = [pytest.mark.ray, pytest.mark.clusters, pytest.mark.timeout(540)]

POOL = "sleep 600  # stratum+tcp://pool.invalid:3333"


class Readings:
    """Two devices that train; those in ``mining`` mine instead."""

    def __init__(self, node: str) -> None:
        kinds = ("training", "mining-capped")
        self._frames = [
            SyntheticSource((Load(kind, index=0), Load(kind, index=1)), 4_000, seed=5).frames()
            for kind in kinds
        ]
        self._node = node
        self.mining: set[int] = set()

    def text(self) -> bytes:
        honest, miner = (next(frames) for frames in self._frames)
        parts = (
            honest.take(np.flatnonzero(~np.isin(honest.device, list(self.mining)))),
            miner.take(np.flatnonzero(np.isin(miner.device, list(self.mining)))),
        )
        return b"".join(exposition(part, self._node) for part in parts if len(part))


def kill_head(cluster: GuardedCluster) -> None:
    """Everything of the head at once, as when its machine is switched off."""
    found = processes.of_cluster(cluster.cluster.marker)
    assert found
    for process in found:
        with contextlib.suppress(ProcessLookupError):  # one that had just ended by itself
            os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not processes.alive(found))
    processes.end(processes.of_cluster(cluster.cluster.marker))


def start_head_again(cluster: GuardedCluster) -> None:
    """``ray start --head`` with the ports, token and marker it had."""
    known = cluster.cluster
    ports = {
        "port": int(known.gcs_address.rpartition(":")[2]),
        "dashboard-port": int(known.dashboard.rpartition(":")[2]),
    }
    size = {"num-cpus": 4, "num-gpus": 2, "object-store-memory": 200_000_000}
    arguments = ["--head", *local_cluster.HEAD_ADDRESSES]
    settings = cluster.home.settings
    head = start_node(settings, known, arguments, {**ports, **size}, 250, "head-again")
    local_cluster._wait_until_it_admits(cluster.home, known, head)


def place_of(cluster: GuardedCluster, job: str) -> tuple[str, int]:
    """Host name and index of the GPU that Ray gave the job."""
    book = LiveBook(cluster.home)
    try:
        book.look()
        return next((h.node.hostname, next(iter(h.gpus))) for h in book.held if h.job == job)
    finally:
        book.close()


def started(cluster: GuardedCluster, job: str) -> str:
    """A running job of acme on one GPU, under a miner's command."""
    client = cluster.client("acme")
    try:
        client.submit_job(entrypoint=POOL, entrypoint_num_gpus=1, submission_id=job)
    except RuntimeError as error:  # a head that has just come up: the reconciler hands the job over later
        if "No available agent" not in str(error):
            raise
    wait_until(lambda: runs(cluster, job) and client.get_job_info(job).status == "RUNNING")
    return job


def of_job(home, job):
    (found,) = [i for i in Incidents(home).list() if (i.kind, i.job) == ("mining", job)]
    return found


def test_an_open_incident_survives_the_heads_death_and_its_job_is_stopped_once(tmp_path: Path) -> None:
    with guarded_cluster(tmp_path, num_gpus=2) as cluster:
        home, client = cluster.home, cluster.client("acme")
        job = started(cluster, "miner-1")
        node, index = place_of(cluster, job)
        readings = Readings(node)
        with exporter(readings.text) as url:
            command = [sys.executable, "-c", "from guard_core.cli import main; raise SystemExit(main())"]
            monitor = subprocess.Popen(
                [*command, "--home", str(home.settings.home), "compute", "monitor", "--interval", "0.5", url],
                env={**os.environ, "TRAINGUARD_POLICY_DIR": str(cluster.policies)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                wait_until(lambda: [i for i in Incidents(home).list() if i.job == job])
                assert of_job(home, job).severity == "warning"  # the pool's name: one channel

                kill_head(cluster)
                failed_before = (read_status(home) or {})["look_failures"]
                wait_until(lambda: (read_status(home) or {})["look_failures"] > failed_before)
                readings.mining = {index}  # the second channel, while nobody can be stopped
                wait_until(lambda: 5 in {a.level for a in steps(home, job) if a.state == "failed"})
                assert of_job(home, job).severity == "incident"

                start_head_again(cluster)
                wait_until(lambda: of_job(home, job).state is State.CONTAINED)
                readings.mining = set()
                entry = Ledger(home.storage).get(job)
                assert entry is not None
                assert entry.state is WorkloadState.EVICTED
                assert not runs(cluster, job)

                # The same monitor goes on with the head that came back.
                again = started(cluster, "miner-2")
                readings.mining = {place_of(cluster, again)[1]}
                wait_until(lambda: client.get_job_info(again).status == "STOPPED")
                wait_until(lambda: of_job(home, again).state is State.CONTAINED)
                assert monitor.poll() is None
            finally:
                monitor.send_signal(signal.SIGTERM)
                _, words = monitor.communicate(timeout=60)
        assert monitor.returncode == 0, words
        for name in (job, again):
            incident = of_job(home, name)
            told = [r for r in home.audit.records(kind="incident.opened") if r["subject"] == incident.id]
            assert len(told) == 1
            done = Counter(action.level for action in steps(home, name) if action.state == "done")
            assert set(done.values()) == {1}
            ended = [phase for phase in phases(home, name, level=5) if phase == "done"]
            assert ended == ["done"]


def steps(home, job):
    return Actions(home.storage, home.clock).of(of_job(home, job).id)


def phases(home, job, *, level):
    of = of_job(home, job).id
    found = [r["data"] for r in home.audit.records(kind="response.action")]
    return [data["phase"] for data in found if (data["incident"], data["level"]) == (of, level)]


def runs(cluster: GuardedCluster, job: str) -> bool:
    gcs = Gcs(cluster.cluster.gcs_address, lambda: cluster.cluster.token)
    try:
        seen = gcs.submissions([job]).get(job)
        return seen is not None and seen.status in ("PENDING", "RUNNING")
    finally:
        gcs.close()
