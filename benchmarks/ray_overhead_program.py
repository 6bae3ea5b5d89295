"""The program of ray_overhead.py: plain Ray code, submitted as a job. Prints what it measured as one line."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

begun = time.time()
import ray  # noqa: E402 - its import belongs to the job's start

ray.init(log_to_driver=False)
here = ray.get_runtime_context().get_node_id()
if not any(node["NodeID"] == here and node["Resources"].get("CPU") for node in ray.nodes()):
    print("ELSEWHERE", flush=True)
    sys.exit()
TASKS, LEASES = int(sys.argv[1]), int(sys.argv[2])
DATA = sys.argv[3] if len(sys.argv) > 3 else ""
SHAPES, GROUPS = 90, 300  # of 100 groups, p99 was the very first: its policy decision and its transaction
found = {"init": time.time() - begun}


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


found["first_task_s"] = seconds(lambda: ray.get(noop.remote()))
wait_for_workers(4)
ray.get([noop.remote() for _ in range(TASKS)])


def mark(name: str) -> None:
    """Let the benchmark read its clocks: it looks three times a second."""
    print("MARK " + name, flush=True)
    time.sleep(1.0)


# Turns on one cluster differ by 20 % either way, so the median is of nine.
found["turns"] = 9
mark("warm")
runs = [seconds(lambda: ray.get([noop.remote() for _ in range(TASKS)])) for _ in range(found["turns"])]
mark("warmed")
found["tasks_per_s"] = TASKS / statistics.median(runs)


# A shape of its own needs a lease of its own, on a worker that is there already. Policy is asked about each
# shape once: those leases come first, and apart.
shapes = [noop.options(num_cpus=0.01 + 0.0001 * number) for number in range(SHAPES)]
mark("idle")
time.sleep(2.0)
mark("first")
begun = time.time()
first = sorted(seconds(lambda task=task: ray.get(task.remote())) for task in shapes)
found["first_s"] = time.time() - begun + 1.0
mark("leases")
begun = time.time()
times = sorted(seconds(lambda n=n: ray.get(shapes[n % SHAPES].remote())) for n in range(LEASES))
found["leases_s"] = time.time() - begun + 1.0
mark("leased")
found["shapes"] = SHAPES
found["lease_first_p50_ms"] = 1e3 * first[len(first) // 2]
found["lease_p50_ms"] = 1e3 * times[len(times) // 2]
found["lease_p99_ms"] = 1e3 * times[int(len(times) * 0.99)]
groups = sorted(group_comes_and_goes() for _ in range(GROUPS))
found["group_ms"] = 1e3 * groups[GROUPS // 2]
found["group_p99_ms"] = 1e3 * groups[int(GROUPS * 0.99)]
found["actor_s"] = statistics.median(actor_comes_and_goes() for _ in range(5))
actor = Actor.remote()
ray.get(actor.hi.remote())
found["calls_per_s"] = 2000 / seconds(lambda: ray.get([actor.hi.remote() for _ in range(2000)]))
if DATA:
    import pyarrow.compute as pc

    def doubled(batch):
        return batch.set_column(0, "x", pc.multiply(batch["x"], 2))

    def read_and_map() -> None:
        rows = 0
        for batch in (
            ray.data.read_parquet(DATA)
            .map_batches(doubled, batch_format="pyarrow", batch_size=None)
            .iter_batches(batch_format="pyarrow", batch_size=None)
        ):
            rows += batch.num_rows
        if rows == 0:
            raise SystemExit("no data was read")

    read_and_map()  # workers, imports, Ray Data's own actors
    found["data_s"] = statistics.median(seconds(read_and_map) for _ in range(3))
print("FOUND " + json.dumps(found), flush=True)
