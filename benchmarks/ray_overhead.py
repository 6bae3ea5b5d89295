"""What the gates cost: the same Ray program on plain Ray and with profile hardened, turn by turn.

Ours is a head without CPUs and one node with 4 logical CPUs, where the driver runs. So is plain Ray, without
a token, its program submitted through the Job API. `--others` also takes plain Ray with its own token
authentication, and plain Ray on a single node, which has one raylet and one agent less to feed.

All clusters are up at once and take turns; while one has its turn, the processes of all others stand still
(SIGSTOP). A machine that is slower for a minute is so for both sides: ratios are those of the turns of one
round, and the median round is reported with its quartiles. What takes milliseconds is pooled over all
rounds, so that p99 is no single event. CPU per lease is what the two gate processes used (user + system,
from /proc) in the turns of leases; CPU of a cluster is that of all its processes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compute_guard.cluster import processes
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
ELSEWHERE = "ELSEWHERE"
"""What the program says and ends with where Ray put its driver on the head."""
SETTLES = 0.5
"""Seconds until a cluster that stood still has done what fell due meanwhile."""
WORKERS = 4
WARM_UP = 10
"""Of what takes milliseconds, so many before each turn are not counted."""


def cpu_of(pid: int) -> float:
    """CPU seconds so far of a process; none of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Turn:
    """What one turn gave: the seconds of each thing done, and the CPU seconds of whom."""

    seconds: list[float]
    cpu: dict[str, float]
    wall: float


@dataclass
class Side:
    """A cluster with the program running on it."""

    name: str
    client: Any
    marker: str
    gates: dict[str, list[int]] = field(default_factory=dict)
    lines: Any = None
    told: dict[str, float] = field(default_factory=dict)
    turns: dict[str, list[Turn]] = field(default_factory=dict)

    def signal(self, number: int) -> None:
        """Stop all its processes, or let them go on."""
        for process in processes.of_cluster(self.marker):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue

    def clocks(self) -> dict[int, float]:
        """CPU seconds so far of each of its processes."""
        return {process.pid: cpu_of(process.pid) for process in processes.of_cluster(self.marker)}

    def do(self, what: str, count: Any) -> list[float]:
        """Let the program do something; the seconds of each."""
        self.lines.write(json.dumps({"do": what, "count": count}) + "\n")
        self.lines.flush()
        answer = self.lines.readline()
        if not answer:
            raise SystemExit(f"the program on {self.name} ended: it was told to do {what}")
        return list(json.loads(answer))

    def turn(self, what: str, count: Any) -> None:
        """As `do`, with the clocks read before and after."""
        before, begun = self.clocks(), time.perf_counter()
        took = self.do(what, count)
        wall, after = time.perf_counter() - begun, self.clocks()
        spent = {pid: cpu - before.get(pid, 0.0) for pid, cpu in after.items()}
        cpu = {role: sum(spent.get(pid, 0.0) for pid in pids) for role, pids in self.gates.items()}
        cpu["all"] = sum(spent.values())
        self.turns.setdefault(what, []).append(Turn(took, cpu, wall))

    def all(self, what: str) -> list[float]:
        """The seconds of everything done in all turns, in order of size."""
        return sorted(took for turn in self.turns[what] for took in turn.seconds)

    def submissions(self, times: int) -> float:
        """Median seconds from submission to RUNNING of small jobs, one after the other on a warm cluster."""
        seconds = []
        for _ in range(times):
            begun = time.perf_counter()
            job = self.client.submit_job(entrypoint="sleep 1")
            while self.client.get_job_status(job) == "PENDING":
                time.sleep(0.02)
            seconds.append(time.perf_counter() - begun)
            while self.client.get_job_status(job) == "RUNNING":
                time.sleep(0.1)
        return statistics.median(seconds)

    def start(self, folder: Path, door: socket.socket) -> None:
        """Submit the program and wait until it calls at ``door``."""
        shutil.copy(PROGRAM, folder / "program.py")
        host, port = door.getsockname()
        door.settimeout(0.05)
        for number in range(TRIES):
            begun, running = time.perf_counter(), 0.0
            job = self.client.submit_job(
                entrypoint=f"python program.py {host}:{port}", runtime_env={"working_dir": str(folder)}
            )
            while True:
                status = self.client.get_job_status(job)
                if not running and status == "RUNNING":
                    running = time.perf_counter() - begun
                if number == 0 and running:
                    self.told["first_running"] = running
                try:
                    connection, _ = door.accept()
                except TimeoutError:
                    pass
                else:
                    self.lines = connection.makefile("rw")
                    self.told |= json.loads(self.lines.readline())
                    return
                if status in ("SUCCEEDED", "FAILED", "STOPPED"):
                    break
            logs = self.client.get_job_logs(job)
            if ELSEWHERE not in logs:
                raise SystemExit(f"the program failed on {self.name}: {logs[-1500:]}")
        raise SystemExit(f"{self.name}: the driver was on the head {TRIES} times")


@contextmanager
def plain(name: str, *, nodes: int = 2, token: str = "") -> Iterator[tuple[Side, Path]]:
    """Plain Ray, whose processes are ended by the marker in their environment.

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
                _join([*APART, *ray, *further], environment, folder)
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
        yield Side(name, client, marker), work
    finally:
        _end(marker)
        shutil.rmtree(folder, ignore_errors=True)


def _join(command: list[str], environment: dict[str, str], folder: Path) -> None:
    """Start the further node of a cluster of plain Ray, again when a busy machine made it give up."""
    for number in range(3):
        said = folder / f"node-{number}.log"
        with said.open("wb") as log:
            node = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        while node.poll() is None:
            if "Ray runtime started" in said.read_text(errors="replace"):
                return
            time.sleep(0.5)
    raise SystemExit(f"the node of plain Ray did not start: {said.read_text(errors='replace')[-1500:]}")


def _end(marker: str) -> None:
    """End a cluster of plain Ray, standing still or not."""
    found = processes.of_cluster(marker)
    Side("", None, marker).signal(signal.SIGCONT)
    processes.end(found)


@contextmanager
def guarded() -> Iterator[tuple[Side, Path]]:
    """A cluster of profile hardened."""
    folder = Path(tempfile.mkdtemp(prefix="tg-bench-"))
    try:
        with guarded_cluster(
            folder,
            object_store_bytes=STORE_BYTES,
            period_ms=1000,  # as `trainguard compute up` has it; tests are in more of a hurry
            profile="hardened",
            pools=("shared",),
        ) as it:
            quotas = it.policies / "data" / "quotas.yaml"
            quotas.write_text(quotas.read_text().replace("nominal: 2000,", "nominal: 4000,"))
            work = folder / "work"
            work.mkdir()
            gates: dict[str, list[int]] = {"head": [], "node": []}
            for gate in gate_processes(it.cluster):
                gates[gate.role].append(gate.pid)
            side = Side("hardened", it.client("acme"), it.cluster.marker, gates)
            try:
                yield side, work
            finally:
                side.signal(signal.SIGCONT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Stage:
    """The clusters, of which one is awake."""

    def __init__(self, sides: list[Side]) -> None:
        self.sides = sides
        self._awake: Side | None = None
        self._rounds = 0

    def wake(self, side: Side) -> None:
        """Let ``side`` alone go on."""
        if self._awake is not side:
            if self._awake is not None:
                self._awake.signal(signal.SIGSTOP)
            side.signal(signal.SIGCONT)
            self._awake = side
            time.sleep(SETTLES)

    def round(self, works: list[tuple[str, Any]], *, warm_up: bool = True) -> None:
        """Every side does all of ``works``; who begins changes from round to round."""
        self._rounds += 1
        for side in self.sides[:: 1 if self._rounds % 2 else -1]:
            self.wake(side)
            side.do("workers", WORKERS)  # while it stood still Ray may have come to think them idle for long
            for what, count in works:
                if warm_up:
                    side.do(what, WARM_UP)
                side.turn(what, count)


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


def at(share: float, ordered: list[float]) -> float:
    """The quantile of values in order of size, in milliseconds."""
    return 1e3 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def lease_cpu(side: Side, what: str) -> dict[str, float]:
    """Milliseconds of CPU a lease, by role: as they were, and without what an idle gate would have used."""
    idle, turns = side.turns["idle"], side.turns[what]
    leases = sum(len(turn.seconds) for turn in turns)
    result = {}
    for role in ("node", "head"):
        rate = sum(turn.cpu[role] for turn in idle) / sum(turn.wall for turn in idle)
        result[role] = 1e3 * sum(turn.cpu[role] for turn in turns) / leases
        result[f"{role} idle"] = 1e3 * rate * sum(turn.wall for turn in turns) / leases
    return result


def rounds(ours: Side, theirs: Side, what: str) -> list[float]:
    """How many times as fast as ``theirs`` each round was."""
    pairs = zip(ours.turns[what], theirs.turns[what], strict=True)
    return [sum(b.seconds) / sum(a.seconds) for a, b in pairs]


def line(name, value, unit, peer, target="", met=None, ratio=None):
    """One row; against plain Ray where there is a value of it."""
    if ratio is None and peer:
        ratio = value / peer
    versus = "plain Ray" if peer is not None else ""
    return Measure(name, round(value, 3), unit, versus, peer and round(peer, 3), ratio, target, met)


def added(name, value, peer, most, unit="ms"):
    """A row with a target for what ours takes longer."""
    return line(name, value, unit, peer, f"<= +{most:g} {unit}", value - peer <= most)


def speeds(ours: Side, others: list[Side], what: str, count: int, target: str, least: float) -> list[Measure]:
    """Rows of what is counted by the second: the median round, its spread, and the CPU of the cluster."""
    theirs = others[0]
    ratios = rounds(ours, theirs, what)
    low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    rate = {s.name: count / statistics.median(s.all(what)) for s in (ours, *others)}
    spent = {
        s.name: 1e6 * sum(turn.cpu["all"] for turn in s.turns[what]) / (count * len(s.turns[what]))
        for s in (ours, *others)
    }
    met = ratio >= least if target else None
    rows = [
        line(
            f"{what}/s, median round of {len(ratios)}",
            rate[ours.name],
            "1/s",
            rate[theirs.name],
            target,
            met,
            ratio,
        ),
        line("- the same, lower quartile of the rounds", low, "x", None),
        line("- the same, upper quartile of the rounds", high, "x", None),
        line(f"- CPU of the whole cluster per 1,000 {what}", spent[ours.name], "ms", spent[theirs.name]),
    ]
    for other in others[1:]:
        own = statistics.median(rounds(other, theirs, what))
        rows.append(
            line(f"- {what}/s of {other.name}", rate[other.name], "1/s", rate[theirs.name], ratio=own)
        )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--json", type=Path)
    options.add_argument("--rounds", type=int, default=11)
    options.add_argument(
        "--tasks", type=int, default=1000, help="warm tasks a turn; of actor calls twice as many"
    )
    options.add_argument("--leases", type=int, default=100, help="leases a turn, and placement groups")
    options.add_argument("--data-mb", type=int, default=0, help="also read and map so many MB with Ray Data")
    options.add_argument("--others", action="store_true", help="also with Ray's token, and on a single node")
    chosen = options.parse_args()
    with ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        clusters = [guarded(), plain("plain Ray")]
        if chosen.others:
            clusters.append(plain("plain Ray with its own token", token=secrets.token_hex(32)))
            clusters.append(plain("plain Ray on a single node", nodes=1))
        sides = []
        for cluster in clusters:
            side, work = stack.enter_context(cluster)
            side.start(work, door)
            side.signal(signal.SIGSTOP)
            sides.append(side)
        rows = measured(Stage(sides), chosen)
    report(rows, chosen.json)


def measured(stage: Stage, chosen: argparse.Namespace) -> list[Measure]:
    """All rows of the table."""
    calls = 2 * chosen.tasks
    for _ in range(chosen.rounds):
        stage.round([("tasks", chosen.tasks), ("calls", calls)])
        stage.round([("leases", chosen.leases), ("groups", chosen.leases)])
    for _ in range(3):
        stage.round([("new shapes", 30), ("idle", 2), ("actors", 3)], warm_up=False)
    running = {}
    for side in stage.sides[:2]:
        stage.wake(side)
        running[side.name] = side.submissions(5)
    ours, theirs, *_ = stage.sides
    rows = [
        *speeds(ours, stage.sides[1:], "tasks", chosen.tasks, ">= 0.95x", 0.95),
        *speeds(ours, stage.sides[1:], "calls", calls, "", 0),
    ]
    for what, name, middle in (("leases", "task with a new lease", 2), ("groups", "placement group", 2)):
        mine, peer = ours.all(what), theirs.all(what)
        rows += [
            added(f"{name}, p50 of {len(mine):,}", at(0.5, mine), at(0.5, peer), middle),
            added(f"{name}, p99", at(0.99, mine), at(0.99, peer), 10),
            line("- the same, p99.9", at(0.999, mine), "ms", at(0.999, peer)),
        ]
    again, first = lease_cpu(ours, "leases"), lease_cpu(ours, "new shapes")
    decision = sum(again[role] - again[f"{role} idle"] for role in ("node", "head"))
    rows += [
        line(
            "task with a new lease of a shape nobody had, p50",
            at(0.5, ours.all("new shapes")),
            "ms",
            at(0.5, theirs.all("new shapes")),
        ),
        added(
            "actor created and called",
            statistics.median(ours.all("actors")),
            statistics.median(theirs.all("actors")),
            0.05,
            "s",
        ),
        added("first task of a job", ours.told["first_task"], theirs.told["first_task"], 0.2, "s"),
        added("submission to RUNNING, median of 5", running[ours.name], running[theirs.name], 0.1, "s"),
        line(
            "the same, first on a new cluster, with a working_dir",
            ours.told["first_running"],
            "s",
            theirs.told["first_running"],
        ),
        line("gates' CPU per lease, idle left out", decision, "ms", None, "<= 0.5 ms", decision <= 0.5),
        *(line(f"- of it {name}", again[name], "ms", None) for name in again),
        *(line(f"- of a shape nobody had: {name}", first[name], "ms", None) for name in first),
    ]
    if chosen.data_mb:
        with tempfile.TemporaryDirectory(prefix="tg-data-", dir="/tmp") as folder:
            path = str(written(Path(folder), chosen.data_mb))
            stage.round([("data", path)], warm_up=False)  # workers, imports, Ray Data's own actors
            for side in stage.sides:
                side.turns["data"] = []
            for _ in range(3):
                stage.round([("data", path)], warm_up=False)
        mine, peer = (statistics.median(side.all("data")) for side in (ours, theirs))
        name = f"Ray Data read + map of {chosen.data_mb} MB"
        rows.append(line(name, mine, "s", peer, "<= 1.05x", mine <= 1.05 * peer))
    return rows


if __name__ == "__main__":
    main()
