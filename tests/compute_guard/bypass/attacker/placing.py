"""Attempts through Ray's own API: where things land, how much there is of them, whose names they take."""

from __future__ import annotations

import time

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from attacker.tools import FACTS, Succeeded, attack

FOREIGN = {FACTS["victim"]["node"], FACTS["head_node"]}
SECONDS = 2.5


@ray.remote(num_cpus=0, max_retries=0)
def where() -> str:
    return ray.get_runtime_context().get_node_id()


def lands(task) -> str:
    """Where a task ran; Succeeded when that is another tenant's node. Cancelled when it waits."""
    reference = task.remote()
    ready, _ = ray.wait([reference], timeout=SECONDS)
    if not ready:
        ray.cancel(reference, force=True)
        return "it waits"
    try:
        node = ray.get(reference)
    except ray.exceptions.RayError as error:
        return type(error).__name__ + ": " + str(error).strip()[-200:]
    if node in FOREIGN:
        raise Succeeded(f"it ran on {node}")
    return "it ran on a node of its own"


@attack
def affinity_to_anothers_node() -> str:
    return lands(
        where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(FACTS["victim"]["node"], soft=False))
    )


@attack
def soft_affinity_to_anothers_node() -> str:
    return lands(
        where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(FACTS["victim"]["node"], soft=True))
    )


@attack
def affinity_to_the_head() -> str:
    return lands(
        where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(FACTS["head_node"], soft=False))
    )


@attack
def ask_for_the_resource_that_only_the_head_has() -> str:
    return lands(where.options(resources={"node:__internal_head__": 0.001}))


@attack
def select_anothers_pool_by_label() -> str:
    return lands(where.options(label_selector={"trainguard.io/pool": "beta"}))


@attack
def fall_back_to_anothers_pool() -> str:
    fallback = [{"label_selector": {"trainguard.io/pool": "beta"}}]
    return lands(where.options(label_selector={"trainguard.io/pool": "nowhere"}, fallback_strategy=fallback))


@attack
def ask_for_a_resource_of_anothers_node() -> str:
    return lands(where.options(resources={f"node:{FACTS['victim']['address']}": 0.001}))


@attack
def spread_without_cpus() -> str:
    nodes = set(ray.get([where.options(scheduling_strategy="SPREAD").remote() for _ in range(8)], timeout=60))
    if nodes & FOREIGN:
        raise Succeeded(f"some ran on {nodes & FOREIGN}")
    return f"{len(nodes)} nodes of its own"


@attack
def place_a_bundle_by_anothers_label() -> str:
    group = ray.util.placement_group([{"CPU": 0.001}], bundle_label_selector=[{"trainguard.io/pool": "beta"}])
    ready = group.wait(SECONDS)
    nodes = set(ray.util.placement_group_table(group)["bundles_to_node_id"].values())
    ray.util.remove_placement_group(group)
    if nodes & FOREIGN:
        raise Succeeded(f"a bundle is on {nodes & FOREIGN}")
    return "it was put on a node of its own" if ready else "it waits"


@attack
def a_task_beyond_the_quota() -> str:
    try:
        ray.get(where.options(num_cpus=64).remote(), timeout=15)
    except ray.exceptions.TaskUnschedulableError as error:
        assert "request-over-reservation" in str(error), error
        return str(error)
    raise Succeeded("it ran")


@attack
def an_actor_beyond_the_quota() -> str:
    @ray.remote(num_cpus=64)
    class Big:
        def up(self) -> bool:
            return True

    try:
        ray.get(Big.remote().up.remote(), timeout=15)
    except ray.exceptions.ActorUnschedulableError as error:
        return str(error)
    raise Succeeded("it ran")


@attack
def a_group_beyond_the_quota() -> str:
    try:
        group = ray.util.placement_group([{"CPU": 32}] * 2)
        ready = group.wait(SECONDS)
    except Exception as error:
        return type(error).__name__ + ": " + str(error)[:200]
    if ready:
        raise Succeeded("the group is ready")
    return "not ready"


@attack
def a_resource_nobody_granted() -> str:
    return lands(where.options(resources={"beta_only": 1}))


@ray.remote(num_cpus=1, max_retries=0, enable_task_events=False)
def hidden(seconds: float) -> tuple[float, float]:
    begun = time.time()
    time.sleep(seconds)
    return begun, time.time()


@attack
def hidden_tasks_beyond_the_quota() -> str:
    spans = ray.get([hidden.remote(0.5) for _ in range(6)], timeout=90)
    most = max(sum(a <= moment < b for a, b in spans) for moment, _ in spans)
    if most > FACTS["cpus"]:
        raise Succeeded(f"{most} CPUs at once, quota {FACTS['cpus']}")
    return f"at most {most} at once"


@attack
def more_workers_than_the_quota_without_cpus() -> str:
    @ray.remote(num_cpus=0)
    class Idle:
        def up(self) -> bool:
            return True

    actors = [Idle.remote() for _ in range(FACTS["workers"] + 3)]
    ready, _ = ray.wait([a.up.remote() for a in actors], num_returns=len(actors), timeout=25)
    for actor in actors:
        ray.kill(actor)
    if len(ready) > FACTS["workers"]:
        raise Succeeded(f"{len(ready)} actors, quota {FACTS['workers']}")
    return f"{len(ready)} started"


@attack
def anothers_actor_by_name() -> str:
    said = []
    for namespace in ("beta", "beta/prod", "prod@beta", "prod"):
        try:
            ray.get_actor("model", namespace=namespace)
        except Exception as error:
            said.append(type(error).__name__)
        else:
            raise Succeeded(f"found in namespace {namespace}")
    return ", ".join(said)


@attack
def list_named_actors_everywhere() -> str:
    names = [row["name"] for row in ray.util.list_named_actors(all_namespaces=True)]
    if "model" in names:
        raise Succeeded(f"{names}")
    return str(names)


@attack
def name_an_actor_into_anothers_namespace() -> str:
    @ray.remote(num_cpus=0)
    class Imposter:
        def up(self) -> bool:
            return True

    try:
        actor = Imposter.options(name="model2", namespace="beta/prod").remote()
        ray.get(actor.up.remote(), timeout=10)
    except Exception as error:
        return type(error).__name__ + ": " + str(error)[:200]
    raise Succeeded("it took the name")


def refused_environment(**environment) -> str:
    try:
        ray.get(where.options(runtime_env=environment).remote(), timeout=20)
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.RuntimeEnvSetupError) as error:
        assert "TrainGuard" in str(error), error
        return str(error)[-250:]
    raise Succeeded("it ran")


@attack
def build_a_package_as_the_agents_user() -> str:
    return refused_environment(pip=["/tmp/evil"])


@attack
def run_in_a_container_of_its_choice() -> str:
    return refused_environment(image_uri="evil")


@attack
def run_another_interpreter() -> str:
    return refused_environment(py_executable="/bin/true")


@attack
def preload_a_library() -> str:
    return refused_environment(env_vars={"LD_PRELOAD": "/tmp/evil.so"})


@attack
def override_rays_address() -> str:
    return refused_environment(env_vars={"RAY_ADDRESS": FACTS["raw_gcs"]})


@attack
def bring_anothers_credential_in_a_task() -> str:
    return refused_environment(env_vars={"TRAINGUARD_TOKEN": "tg_0123456789abcdef_" + "A" * 43})
