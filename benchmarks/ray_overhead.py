"""What the gates cost: the same Ray program on plain Ray and with profile hardened, turn by turn.

Ours is a head without CPUs and one node with 4 logical CPUs, where the driver runs. So is plain Ray, without
a token, its program submitted through the Job API. All clusters are up at once and work in turn, each while
the others are stopped, so that both meet the same minutes of the machine; `--others` adds plain Ray with its
own token authentication, and plain Ray on a single node, which has one raylet and one agent less to feed. CPU
per lease is what the two gate processes used (user + system, from /proc) over the leases they decided; CPU of
a cluster is that of all its processes.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from measure import Measure, report
from ray_sides import Side, hardened, plain

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

SHAPES = 10
"""New shapes of lease a turn: policy is asked about each once, in the turn that brings them."""
GROUPS, CALLS = 40, 500
SUBMISSIONS = 5
IDLE_SECONDS = 4.0


def turn(side: Side, number: int, *, tasks: int, leases: int) -> None:
    """All of one turn but what is asked for seldom."""
    side.ask("settle")
    with side.counted("warm"):
        side.add("tasks_per_s", side.ask("warm", tasks))
    known = SHAPES * (number + 1)
    with side.counted("first"):
        side.add("lease_first_ms", *side.ask("leases", list(range(SHAPES * number, known))))
    with side.counted("leases"):
        side.add("lease_ms", *side.ask("leases", [n % known for n in range(leases)]))
    side.add("group_ms", *side.ask("groups", GROUPS))
    side.add("actor_s", side.ask("actor"))
    side.add("calls_per_s", side.ask("calls", CALLS))
    if number < SUBMISSIONS:
        side.add("to_running_s", submission(side))


def submission(side: Side) -> float:
    """Seconds from submission to RUNNING of a small job."""
    begun = time.perf_counter()
    job = side.client.submit_job(entrypoint="sleep 1")
    while side.client.get_job_status(job) == "PENDING":
        time.sleep(0.02)
    took = time.perf_counter() - begun
    while side.client.get_job_status(job) == "RUNNING":
        time.sleep(0.1)
    return took


def written(folder: Path, megabytes: int) -> str:
    """Parquet files of so many MB of incompressible numbers, which every Unix user may read."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.chmod(0o755)
    random = np.random.default_rng(7)
    for number in range(max(1, megabytes // 64)):
        columns = {name: random.random(2 << 20) for name in "xyzw"}  # 64 MB
        pq.write_table(pa.table(columns), folder / f"{number:04d}.parquet", row_group_size=1 << 19)
    return str(folder)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def compared(ours: Side, theirs: Side) -> list[Measure]:
    """The lines that say what ours adds to theirs."""

    def faster(what: str, name: str, unit: str, target: float | None) -> Measure:
        """More is better; the ratio is the median over the turns."""
        mine, other = ours.found[name], theirs.found[name]
        ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
        return Measure(
            what,
            round(statistics.median(mine), 1),
            unit,
            theirs.name,
            round(statistics.median(other), 1),
            ratio,
            "" if target is None else f">= {target}x",
            None if target is None else ratio >= target,
        )

    def added(what: str, name: str, unit: str, share: float, target: float | None) -> Measure:
        """Less is better; all turns together."""
        mine, other = quantile(ours.found[name], share), quantile(theirs.found[name], share)
        limit = "" if target is None else f"<= +{target:g} {unit}"
        met = None if target is None else mine - other <= target
        return Measure(what, round(mine, 3), unit, theirs.name, round(other, 3), mine / other, limit, met)

    def cpu_per_thousand(side: Side) -> float:
        return 1e6 * side.cost("warm", "all") / sum(side.found["tasks"])

    lines = [
        faster("tasks/s, warm leases", "tasks_per_s", "1/s", 0.95),
        added("task with a new lease, p50", "lease_ms", "ms", 0.5, 2),
        added("task with a new lease, p99", "lease_ms", "ms", 0.99, 10),
        added("task with a new lease of a shape nobody had, p50", "lease_first_ms", "ms", 0.5, None),
        added("placement group, p50", "group_ms", "ms", 0.5, 2),
        added("placement group, p99", "group_ms", "ms", 0.99, 10),
        added("actor created and called, p50", "actor_s", "s", 0.5, 0.05),
        added("first task of a job", "first_task_s", "s", 0.5, 0.2),
        added("submission to RUNNING, p50", "to_running_s", "s", 0.5, 0.1),
        added("the same, first on a new cluster, with a working_dir", "first_running_s", "s", 0.5, None),
        faster("actor calls/s", "calls_per_s", "1/s", None),
        Measure(
            "CPU of the whole cluster per 1,000 warm tasks",
            round(cpu_per_thousand(ours)),
            "ms",
            theirs.name,
            round(cpu_per_thousand(theirs)),
            cpu_per_thousand(ours) / cpu_per_thousand(theirs),
        ),
    ]
    if "data_s" in ours.found:
        mine, other = (statistics.median(side.found["data_s"]) for side in (ours, theirs))
        lines.append(
            Measure(
                "Ray Data read + map",
                mine,
                "s",
                theirs.name,
                other,
                mine / other,
                "<= 1.05x",
                mine <= 1.05 * other,
            )
        )
    return lines


def gates(ours: Side) -> list[Measure]:
    """What a lease costs the gates: as it was, and without what they use idle."""

    def per_lease(kind: str, role: str, *, idle: bool) -> float:
        rate = ours.cost("idle", role) / ours.cost("idle", "at")
        spent = rate * ours.cost(kind, "at") if idle else ours.cost(kind, role)
        return 1e3 * spent / len(ours.found["lease_ms" if kind == "leases" else "lease_first_ms"])

    roles = ("node", "head")
    all_of_it = sum(per_lease("leases", role, idle=False) for role in roles)
    without = all_of_it - sum(per_lease("leases", role, idle=True) for role in roles)
    lines = [
        Measure(
            "gates' CPU per lease, all in that time",
            all_of_it,
            "ms",
            target="<= 0.5 ms",
            met=all_of_it <= 0.5,
        ),
        Measure("- without what they use idle", without, "ms", target="<= 0.5 ms", met=without <= 0.5),
        Measure("leases/s on one core", 1e3 / without, "1/s", target=">= 2000", met=without <= 0.5),
    ]
    for kind, what in (("leases", ""), ("first", " of a shape nobody had")):
        for role in roles:
            spent, idle = (per_lease(kind, role, idle=flag) for flag in (False, True))
            lines.append(Measure(f"- of it{what}: {role}; {role} idle {idle:.2f} ms", spent, "ms"))
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path)
    options.add_argument("--turns", type=int, default=11)
    options.add_argument("--tasks", type=int, default=1000, help="warm tasks a turn")
    options.add_argument("--leases", type=int, default=40, help="leases a turn")
    options.add_argument("--data-mb", type=int, default=0, help="also read and map so many MB with Ray Data")
    options.add_argument("--others", action="store_true", help="also with Ray's token, and on a single node")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="tg-data-", dir="/tmp") as scratch, ExitStack() as up:
        folder = written(Path(scratch), chosen.data_mb) if chosen.data_mb else ""
        ours, theirs = up.enter_context(hardened()), up.enter_context(plain())
        sides = [ours, theirs]
        if chosen.others:
            sides.append(up.enter_context(plain(token=secrets.token_hex(32))))
            sides.append(up.enter_context(plain(nodes=1)))
        for number in range(chosen.turns):
            for side in sides if number % 2 else reversed(sides):
                with side.awake():
                    turn(side, number, tasks=chosen.tasks, leases=chosen.leases)
                    side.add("tasks", chosen.tasks)
                    if folder and number < 3:
                        side.add("data_s", side.ask("data", folder))
        with ours.awake():
            ours.ask("settle")
            with ours.counted("idle"):
                ours.ask("sleep", IDLE_SECONDS)
        lines = [*compared(ours, theirs), *gates(ours)]
        for side, what in zip(sides[2:], ("its own token", "a single node"), strict=False):
            for name in ("tasks_per_s", "calls_per_s"):
                ratios = [a / b for a, b in zip(side.found[name], theirs.found[name], strict=True)]
                value = statistics.median(side.found[name])
                lines.append(
                    Measure(
                        f"plain Ray with {what}: {name}",
                        value,
                        "1/s",
                        theirs.name,
                        None,
                        statistics.median(ratios),
                    )
                )
    report(lines, chosen.json)


if __name__ == "__main__":
    main()
