"""An ordinary Ray program: nothing in it knows of TrainGuard. Prints what it found as one line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import ray

ray.init(log_to_driver=False, namespace="lab")
found: dict[str, object] = {"working_dir": Path("hello.txt").read_text()}


@ray.remote
def square(number: int) -> int:
    return number * number


@ray.remote
def nested(number: int) -> int:
    return sum(ray.get([square.remote(n) for n in range(number)]))


@ray.remote
def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@ray.remote(max_retries=2)
def flaky(folder: str) -> str:
    mark = Path(folder) / "tried"
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return "second try"


@ray.remote(num_cpus=0)
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, more: int) -> int:
        self.count += more
        return self.count


found["tasks"] = sum(ray.get([square.remote(n) for n in range(50)], timeout=120))
# Two parents fill the quota of 2 CPUs and wait for children: Ray lends their CPUs on.
found["nested"] = ray.get([nested.remote(4), nested.remote(5)], timeout=120)
found["driver_first"] = ray.get(niceness.remote(), timeout=120) > os.getpriority(os.PRIO_PROCESS, 0)
found["retry"] = ray.get(flaky.remote(str(Path.cwd())), timeout=120)
counter = Counter.options(name="counter", get_if_exists=True).remote()
found["actor"] = ray.get([counter.add.remote(1) for _ in range(5)], timeout=120)
found["by_name"] = ray.get(ray.get_actor("counter").add.remote(1), timeout=60)
found["named"] = [row["name"] for row in ray.util.list_named_actors(all_namespaces=True)]
ray.kill(counter)
group = ray.util.placement_group([{"CPU": 0.5}, {"CPU": 0.5}], strategy="SPREAD", name="pair")
ray.get(group.ready(), timeout=120)
in_group = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
found["group"] = ray.get(square.options(num_cpus=0.5, scheduling_strategy=in_group).remote(7), timeout=120)
found["group_by_name"] = ray.util.get_placement_group("pair").id == group.id
ray.util.remove_placement_group(group)
big = ray.put(bytearray(2_000_000))


@ray.remote(num_cpus=0)
def size(data: bytearray) -> tuple[int, str]:
    return len(data), ray.get_runtime_context().get_node_id()


everywhere = [
    ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    for node in ray.nodes()
    if node["Alive"]
]
sizes = ray.get([size.options(scheduling_strategy=there).remote(big) for there in everywhere], timeout=120)
found["transfer"] = [sorted({n for n, _ in sizes}), len({node for _, node in sizes})]
import ray.data  # noqa: E402

begun = time.time()
found["data"] = ray.data.range(200, override_num_blocks=2).map(lambda row: {"id": row["id"] * 2}).sum("id")
found["data_seconds"] = round(time.time() - begun, 1)
found["nodes"] = len(ray.nodes())
print("FOUND " + json.dumps(found), flush=True)
