"""A cordon behind gates: work that asks for no CPU stays away as well, or waits, until it is undone."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from compute_guard.admission.held_leases import held_leases
from compute_guard.incidents.observations import Observation
from compute_guard.incidents.store import Incidents
from compute_guard.ray_plugin.gates.cordons import REASON
from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.ray_plugin.jobs import RayCluster
from compute_guard.response.responder import Responder
from compute_guard.testing import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.gated]

WITHOUT_CPU = """
import sys
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

def here():
    return ray.get_runtime_context().get_node_id()

class Actor:
    def where(self):
        return here()

ray.init(log_to_driver=False)
where, Actor = ray.remote(num_cpus=0)(here), ray.remote(num_cpus=0)(Actor)
affine = NodeAffinitySchedulingStrategy(sys.argv[1], soft=True)
tasks = [where.options(scheduling_strategy=s).remote() for s in ("SPREAD", "DEFAULT", affine) * 2]
actors = [Actor.options(scheduling_strategy=s).remote() for s in ("SPREAD", affine)]
group = placement_group([{"memory": 1_000_000}], strategy="SPREAD")
inside = where.options(placement_group=group, memory=1000).remote()
print("WHERE", *sorted({here(), *ray.get([*tasks, *(a.where.remote() for a in actors), inside])}))
"""


def node_ids(cluster):
    gcs = Gcs(cluster.cluster.gcs_address, lambda: cluster.cluster.token)
    try:
        return {row.labels["trainguard.io/pool"]: row.node_id for row in gcs.nodes()}
    finally:
        gcs.close()


def person(home, user):
    token = home.credentials.issue(tenant="acme", user=user, roles=("incident-approver",))
    return home.credentials.verify(token)


def cordoned(stack, cluster, node):
    """Cordon ``node`` (an id) as two people do; ``stack`` undoes it."""
    home = cluster.home
    responder = Responder(home, RayCluster(home))
    seen = Observation(
        tenant="acme", job=f"on-{node[:6]}", kind="sensor_integrity", rule_ids=("USAG014",),
        channels={"library": {"message": "not ours", "score": 950}}, devices=(f"{node}/GPU-0",),
        score=950, invariant=True, synthetic=False, at_ns=1_800_000_000_000_000_000,
    )  # fmt: skip
    step = responder.act(Incidents(home).observe(seen), 7, principal=home.principal())
    responder.approve(step.id, person(home, "grace"))
    done = responder.approve(step.id, person(home, "edsger"))
    assert (done.state, done.result["node_id"]) == ("done", node)
    stack.callback(responder.undo, step.id, home.principal())


def test_work_without_cpu_waits_while_there_is_nowhere_to_go_and_never_lands_on_a_cordoned_node(
    gated_cluster, tmp_path
):
    client, nodes = gated_cluster.client("acme"), node_ids(gated_cluster)
    (tmp_path / "job.py").write_text(WITHOUT_CPU)

    def reason(name):
        held = held_leases(gated_cluster.cluster.guard_folder).get(name)
        return held.reason if held else ""

    with ExitStack() as own:
        cordoned(own, gated_cluster, nodes["acme"])
        with ExitStack() as shared:
            cordoned(shared, gated_cluster, nodes["shared"])
            job = client.submit_job(
                entrypoint=f"python job.py {nodes['acme']}", runtime_env={"working_dir": str(tmp_path)}
            )
            wait_until(lambda: reason(job) == REASON)
        details = gated_cluster.wait(client, job)
        assert details.status == "SUCCEEDED", details.message
        assert client.get_job_logs(job).split("WHERE ")[1].split() == [nodes["shared"]]
