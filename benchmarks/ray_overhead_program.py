"""The program of ray_overhead.py: plain Ray code, submitted as a job. Does what it is asked, turn by turn.

Questions and answers are files in the folder it is given: ``N.ask`` holds a name of `COMMANDS` and its
arguments, ``N.answer`` what that came to (milliseconds or seconds by the clock).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

begun = time.time()
import ray  # noqa: E402 - its import belongs to the job's start

FOLDER = Path(sys.argv[1])
WORKERS = 4


@ray.remote
def noop() -> None:
    return None


@ray.remote(num_cpus=0)
class Actor:
    def hi(self) -> int:
        return 1


@ray.remote
def whose() -> int:
    time.sleep(0.02)
    return os.getpid()


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def settle() -> None:
    """Return once all workers take tasks: starting them is measured elsewhere."""
    time.sleep(0.5)
    deadline = time.time() + 30
    while (
        len(set(ray.get([whose.remote() for _ in range(8 * WORKERS)]))) < WORKERS and time.time() < deadline
    ):
        pass
    ray.get([noop.remote() for _ in range(300)])


def warm(tasks: int) -> float:
    """Tasks a second that need no new lease."""
    return tasks / seconds(lambda: ray.get([noop.remote() for _ in range(tasks)]))


def leases(numbers: list[int]) -> list[float]:
    """A task of each shape, one after the other: a shape of its own needs a lease of its own, on a worker
    that is there. Policy is asked about a shape once.
    """
    shapes = [noop.options(num_cpus=0.01 + 0.0001 * number) for number in numbers]
    return [1e3 * seconds(lambda task=task: ray.get(task.remote())) for task in shapes]


def groups(count: int) -> list[float]:
    """Placement groups, one after the other, until each is there; its removal is not in the time."""

    def one() -> float:
        start = time.perf_counter()
        group = ray.util.placement_group([{"CPU": 0.01}])
        group.wait(30)
        took = time.perf_counter() - start
        ray.util.remove_placement_group(group)
        return 1e3 * took

    return [one() for _ in range(count)]


def actor() -> float:
    """Seconds until a new actor has answered."""
    start = time.perf_counter()
    made = Actor.remote()
    ray.get(made.hi.remote())
    took = time.perf_counter() - start
    ray.kill(made)
    return took


def calls(count: int) -> float:
    """Calls of an actor a second."""
    made = Actor.remote()
    ray.get(made.hi.remote())
    rate = count / seconds(lambda: ray.get([made.hi.remote() for _ in range(count)]))
    ray.kill(made)
    return rate


def data(folder: str) -> float:
    """Seconds to read and map the Parquet files with Ray Data, its workers and imports being there."""
    import pyarrow.compute as pc

    def doubled(batch):
        return batch.set_column(0, "x", pc.multiply(batch["x"], 2))

    def read_and_map() -> None:
        rows = 0
        for batch in (
            ray.data.read_parquet(folder)
            .map_batches(doubled, batch_format="pyarrow", batch_size=None)
            .iter_batches(batch_format="pyarrow", batch_size=None)
        ):
            rows += batch.num_rows
        if rows == 0:
            raise SystemExit("no data was read")

    read_and_map()
    return seconds(read_and_map)


COMMANDS = {
    "settle": settle,
    "warm": warm,
    "leases": leases,
    "groups": groups,
    "actor": actor,
    "calls": calls,
    "data": data,
    "sleep": time.sleep,
}


def answer(number: int, what: object) -> None:
    """Leave an answer, whole or not at all."""
    (FOLDER / f"{number}.part").write_text(json.dumps(what))
    (FOLDER / f"{number}.part").rename(FOLDER / f"{number}.answer")


def main() -> None:
    ray.init(log_to_driver=False)
    here = ray.get_runtime_context().get_node_id()
    if not any(node["NodeID"] == here and node["Resources"].get("CPU") for node in ray.nodes()):
        return answer(0, {"elsewhere": True})
    init = time.time() - begun
    answer(0, {"elsewhere": False, "init": init, "first_task_s": seconds(lambda: ray.get(noop.remote()))})
    number = 1
    while True:
        ask = FOLDER / f"{number}.ask"
        while not ask.exists():
            time.sleep(0.02)
        name, *arguments = json.loads(ask.read_text())
        answer(number, COMMANDS[name](*arguments))
        number += 1


main()
