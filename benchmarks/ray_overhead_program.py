"""The program of ray_overhead.py: plain Ray code, submitted as a job, that does what it is told on a socket.

One JSON object a line in, one out: ``{"do": "leases", "count": 90}`` is answered with the seconds of each.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import time

begun = time.time()
import ray  # noqa: E402 - its import belongs to the job's start

ray.init(log_to_driver=False)
here = ray.get_runtime_context().get_node_id()
if not any(node["NodeID"] == here and node["Resources"].get("CPU") for node in ray.nodes()):
    print("ELSEWHERE", flush=True)
    sys.exit()
SHAPES = 90


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


def wait_for_workers(count: int) -> None:
    """Return once ``count`` processes take tasks: starting workers is measured elsewhere."""
    deadline = time.time() + 30
    while len(set(ray.get([whose.remote() for _ in range(8 * count)]))) < count and time.time() < deadline:
        pass


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def shape(number: int):
    """A task of a shape of its own needs a lease of its own, on a worker that is there already."""
    return noop.options(num_cpus=0.01 + 0.0001 * number)


def group_comes_and_goes() -> float:
    start = time.perf_counter()
    group = ray.util.placement_group([{"CPU": 0.01}])
    group.wait(30)
    took = time.perf_counter() - start
    ray.util.remove_placement_group(group)
    return took


def actor_comes_and_goes() -> float:
    start = time.perf_counter()
    actor = Actor.remote()
    ray.get(actor.hi.remote())
    took = time.perf_counter() - start
    ray.kill(actor)
    return took


def read_and_map(data: str) -> None:
    import pyarrow.compute as pc

    def doubled(batch):
        return batch.set_column(0, "x", pc.multiply(batch["x"], 2))

    rows = 0
    for batch in (
        ray.data.read_parquet(data)
        .map_batches(doubled, batch_format="pyarrow", batch_size=None)
        .iter_batches(batch_format="pyarrow", batch_size=None)
    ):
        rows += batch.num_rows
    if rows == 0:
        raise SystemExit("no data was read")


def new_shapes(count: int) -> list[float]:
    """Policy is asked about each shape once."""
    tasks = [shape(next(fresh)) for _ in range(count)]
    return [seconds(lambda task=task: ray.get(task.remote())) for task in tasks]


fresh = itertools.count(SHAPES)
first_task = seconds(lambda: ray.get(noop.remote()))
wait_for_workers(4)
actor = Actor.remote()
ray.get(actor.hi.remote())
known = [shape(number) for number in range(SHAPES)]
ray.get([task.remote() for task in known])
WORK = {
    "tasks": lambda count: [seconds(lambda: ray.get([noop.remote() for _ in range(count)]))],
    "calls": lambda count: [seconds(lambda: ray.get([actor.hi.remote() for _ in range(count)]))],
    "leases": lambda count: [seconds(lambda n=n: ray.get(known[n % SHAPES].remote())) for n in range(count)],
    "new shapes": new_shapes,
    "groups": lambda count: [group_comes_and_goes() for _ in range(count)],
    "actors": lambda count: [actor_comes_and_goes() for _ in range(count)],
    "data": lambda path: [seconds(lambda: read_and_map(path))],
    "workers": lambda count: [seconds(lambda: wait_for_workers(count))],
    "idle": lambda count: [seconds(lambda: time.sleep(count))],
}
host, _, port = sys.argv[1].rpartition(":")
with socket.create_connection((host, int(port))) as connection, connection.makefile("rw") as lines:
    lines.write(json.dumps({"init": time.time() - begun, "first_task": first_task}) + "\n")
    lines.flush()
    for line in lines:
        told = json.loads(line)
        lines.write(json.dumps(WORK[told["do"]](told["count"])) + "\n")
        lines.flush()
