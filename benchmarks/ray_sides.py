"""Clusters that take turns: while one works, all processes of the others are stopped (SIGSTOP).

A machine may change by a third from minute to minute, so what is compared has to run in the same minute, and
two clusters that are up must not take each other's time.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compute_guard.cluster import processes
from compute_guard.cluster.connection import Cluster
from compute_guard.cluster.ray_start import RAY_START
from compute_guard.testing import gate_processes, guarded_cluster
from measure import cpu_of

APART = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
"""As of a machine of its own: a driver that sees the head's processes takes its raylet for its node's."""
STARTED = itertools.count()
"""Clusters of plain Ray: a port may be in use for a while after the last one."""
TRIES = 20
"""Ray puts a driver on any node; of two it soon finds the other."""
STORE_BYTES = 600_000_000  # enough that Ray Data spills nothing
ANSWER_SECONDS = 300
PROGRAM = Path(__file__).with_name("ray_overhead_program.py")

Clock = dict[str, float]
"""CPU seconds so far: of all processes of a cluster, and of its gates by role."""


@dataclass
class Side:
    """A cluster with the program on it, and what was measured there, by name."""

    name: str
    client: Any
    marker: str
    gates: Callable[[], Clock] = dict
    found: dict[str, list[float]] = field(default_factory=dict)
    spent: dict[str, list[Clock]] = field(default_factory=dict)
    job: str = ""
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tg-turns-")))
    asked: int = 0

    def start(self) -> None:
        """Submit the program, again where Ray put its driver on the head, until it takes questions."""
        self.folder.chmod(0o777)  # the job's Unix user answers there
        work = self.folder / "work"
        work.mkdir()
        shutil.copy(PROGRAM, work / "program.py")
        for tried in range(TRIES):
            begun = time.perf_counter()
            self.job = self.client.submit_job(
                entrypoint=f"python program.py {self.folder}", runtime_env={"working_dir": str(work)}
            )
            while self.client.get_job_status(self.job) == "PENDING":
                time.sleep(0.05)
            if tried == 0:
                self.add("first_running_s", time.perf_counter() - begun)
            started = self._answer()
            if not started["elsewhere"]:
                return self.add("first_task_s", started["first_task_s"])
            (self.folder / "0.answer").unlink()
        raise SystemExit(f"{self.name}: no driver came to the node with CPUs in {TRIES} tries")

    def ask(self, *question: object) -> Any:
        """What the program says to a question."""
        self.asked += 1
        part = self.folder / "ask.part"
        part.write_text(json.dumps(question))
        part.rename(self.folder / f"{self.asked}.ask")
        return self._answer()

    def _answer(self) -> Any:
        answer, looked = self.folder / f"{self.asked}.answer", time.monotonic()
        deadline = looked + ANSWER_SECONDS
        while not answer.exists():
            time.sleep(0.02)
            if time.monotonic() > looked + 10:
                looked = time.monotonic()
                if looked > deadline or self.client.get_job_status(self.job).is_terminal():
                    logs = self.client.get_job_logs(self.job)[-1500:]
                    raise SystemExit(f"{self.name}: the program did not answer: {logs}")
        return json.loads(answer.read_text())

    def add(self, name: str, *values: float) -> None:
        """Keep what was measured."""
        self.found.setdefault(name, []).extend(values)

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Keep what a block cost, in CPU seconds of the cluster and of its gates."""
        before = self._clock()
        yield
        after = self._clock()
        self.spent.setdefault(name, []).append({key: after[key] - before[key] for key in after})

    def cost(self, name: str, whose: str) -> float:
        """CPU seconds (or, for "at", seconds) of all blocks of this name."""
        return sum(clock.get(whose, 0.0) for clock in self.spent[name])

    def _clock(self) -> Clock:
        everything = sum(cpu_of(process.pid) for process in processes.of_cluster(self.marker))
        return {"all": everything, "at": time.time(), **self.gates()}

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run, and stop it again."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)
            self._signal(signal.SIGSTOP)  # whoever was started meanwhile

    def wake(self) -> None:
        """Let it run on, so that it can be ended."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in processes.of_cluster(self.marker):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue


def gates_of(cluster: Cluster) -> Clock:
    """CPU seconds so far of the gates, by role."""
    spent: Clock = {"head": 0.0, "node": 0.0}
    for gate in gate_processes(cluster):
        spent[gate.role] += cpu_of(gate.pid)
    return spent


@contextmanager
def hardened() -> Iterator[Side]:
    """A cluster of profile hardened: a head without CPUs and one node with four."""
    folder = Path(tempfile.mkdtemp(prefix="tg-bench-"))
    try:
        with guarded_cluster(
            folder, object_store_bytes=STORE_BYTES, profile="hardened", pools=("shared",)
        ) as it:
            quotas = it.policies / "data" / "quotas.yaml"
            quotas.write_text(quotas.read_text().replace("nominal: 2000,", "nominal: 4000,"))
            side = Side("hardened", it.client("acme"), it.cluster.marker, lambda: gates_of(it.cluster))
            yield from _taking_turns(side)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def plain(*, nodes: int = 2, token: str = "") -> Iterator[Side]:
    """Plain Ray, whose processes are ended by the marker in their environment.

    On a head without CPUs and one node, or on one node; with a ``token``, Ray authenticates its callers.
    """
    from ray.job_submission import JobSubmissionClient

    number = next(STARTED)
    folder, marker = Path(tempfile.mkdtemp(prefix="tg-plain-")), f"plain-{os.getpid()}-{number}"
    environment = {**os.environ, processes.MARKER: marker, "RAY_raylet_start_wait_time_s": "180"}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_JOB_ALLOW_DRIVER_ON_WORKER_NODES": "1"}
    if token:
        (folder / "token").write_text(token)
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    port = 20_000 + 30 * (os.getpid() % 300) + 6 * number
    dashboard = port + 1
    ray = [*RAY_START, "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    full = ["--num-cpus=4", f"--object-store-memory={STORE_BYTES}"]
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={dashboard}"]
    head += [f"--dashboard-agent-listen-port={port + 2}", f"--ray-client-server-port={port + 3}"]
    head += full if nodes == 1 else ["--num-cpus=0", "--object-store-memory=80000000"]
    further = [f"--address=127.0.0.1:{port}", f"--node-ip-address=127.0.0.{21 + number}", *full]
    further += [f"--temp-dir={folder}/node", f"--dashboard-agent-listen-port={port + 4}", "--block"]
    try:
        with (folder / "log").open("wb") as log:
            command = [*ray, *head, f"--temp-dir={folder}/head"]
            if subprocess.run(command, env=environment, stdout=log, stderr=log).returncode:
                raise SystemExit(f"plain Ray did not start: {(folder / 'log').read_text()[-1500:]}")
            if nodes == 2:
                command = [*APART, *ray, *further]
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"http://127.0.0.1:{dashboard}"
        client = _when_ready(lambda: JobSubmissionClient(url, headers=headers))
        yield from _taking_turns(Side("plain Ray", client, marker))
    finally:
        processes.end(processes.of_cluster(marker))
        shutil.rmtree(folder, ignore_errors=True)


def _when_ready(connect: Callable[[], Any]) -> Any:
    """A client of a cluster that starts, once it can run a job: its agents come up after it answers."""
    deadline = time.monotonic() + 120
    while True:
        try:
            client = connect()
            client.submit_job(entrypoint="true")
            return client
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _taking_turns(side: Side) -> Iterator[Side]:
    try:
        with side.awake():
            side.start()
        yield side
    finally:
        side.wake()
        shutil.rmtree(side.folder, ignore_errors=True)
