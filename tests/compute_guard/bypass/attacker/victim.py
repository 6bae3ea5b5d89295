"""An ordinary job of tenant beta: a named actor, a placement group, a driver that works until stopped."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import ray
import ray._private.worker as worker
from ray.core.generated import common_pb2

ray.init(namespace="prod")


@ray.remote(num_cpus=0)
class Model:
    def facts(self) -> dict:
        context = ray.get_runtime_context()
        address = common_pb2.Address.FromString(
            worker.global_worker.core_worker.get_owner_address(ray.put(1))
        )
        return {
            "actor": context.get_actor_id(),
            "node": context.get_node_id(),
            "pid": os.getpid(),
            "worker": f"{address.ip_address}:{address.port}",
        }

    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


OWN = {"trainguard.io/pool": "beta"}
model = Model.options(name="model", label_selector=OWN).remote()
group = ray.util.placement_group([{"CPU": 0.1}], name="held", bundle_label_selector=[OWN])
group.wait(60)
node = worker._global_node
facts = {
    **ray.get(model.facts.remote()),
    "job": ray.get_runtime_context().get_job_id(),
    "group": group.id.hex(),
    "address": node.node_ip_address,
    "sockets": [node.plasma_store_socket_name, node.raylet_socket_name],
    "logs": [str(Path(node.get_session_dir_path()) / "logs" / "raylet.out")],
}
print("FACTS " + json.dumps(facts), flush=True)
while not Path("stop").exists():
    assert ray.get(model.total.remote([1, 2, 3])) == 6
    time.sleep(0.2)
