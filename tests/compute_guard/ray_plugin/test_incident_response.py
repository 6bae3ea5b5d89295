"""From a mining series to a stopped job on the real cluster, with a neighbour that goes on."""

from __future__ import annotations

import pytest

from compute_guard.cluster.connection import load_cluster
from compute_guard.drills.drill import run, submit_over_http
from compute_guard.incidents import evidence
from compute_guard.incidents.incident import State
from compute_guard.incidents.observations import Observation
from compute_guard.incidents.store import Incidents
from compute_guard.monitoring.monitor import replay
from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.ray_plugin.jobs import RayCluster
from compute_guard.response.responder import Responder
from compute_guard.testing import wait_until
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.sources.synthetic import Load, SyntheticSource

pytestmark = pytest.mark.ray

POOL = "stratum+tcp://pool.invalid:3333"


def test_a_real_job_attributed_to_a_mining_series_is_stopped_and_its_neighbour_runs_on(ray_cluster, gated):
    home, client, neighbour = ray_cluster.home, ray_cluster.client("acme"), ray_cluster.client("beta")
    entrypoint, gate = gated()
    job = client.submit_job(entrypoint=f"{entrypoint} # {POOL}")
    other = neighbour.submit_job(entrypoint=entrypoint)
    ray_cluster.wait(client, job, ["RUNNING"])
    ray_cluster.wait(neighbour, other, ["RUNNING"])
    miner = Load("idle-hold", node="n1", after="mining-capped", onset=10)
    trainer = Load("training", node="n2")
    book = LeaseBook.of(
        [
            Lease(miner.device.key, "acme", job, entrypoint=f"{entrypoint} # {POOL}"),
            Lease(trainer.device.key, "beta", other, entrypoint=entrypoint),
        ]
    )
    report = replay(
        home,
        SyntheticSource((miner, trainer), 40, seed=77),
        book,
        RayCluster(home),
        synthetic_may_act=True,
        until=lambda incident: incident.state is State.CONTAINED,
    )
    (incident,) = report.incidents
    assert incident.state is State.CONTAINED
    stop = report.actions[-1]
    assert (stop.name, stop.state, stop.result["verified"], stop.result["left"]) == ("stop", "done", True, 0)
    assert client.get_job_info(job).status == "STOPPED"
    assert neighbour.get_job_info(other).status == "RUNNING"
    assert evidence.verify(home.path("incidents", incident.id), home.signer.verifier) == []
    gate.touch()
    assert ray_cluster.wait(neighbour, other).status == "SUCCEEDED"


def test_a_drill_on_the_real_cluster_ends_its_own_harmless_job(ray_cluster):
    home = ray_cluster.home
    submit = submit_over_http(home, "canary", ray_cluster.cluster.dashboard)
    report = run(home, "mining-capped", "canary", cluster=RayCluster(home), submit=submit)
    assert report.passed, report
    assert report.contained_verified is True
    assert ray_cluster.client("canary").get_job_info(report.job).status == "STOPPED"


def person(home, user):
    return home.credentials.verify(
        home.credentials.issue(tenant="acme", user=user, roles=("incident-approver",))
    )


def free_cpus(home):
    cluster = load_cluster(home.path("ray"))
    gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
    try:
        (node,) = gcs.nodes()
        return node.hostname, gcs.available()[node.node_id].get("CPU", 0.0), node.resources["CPU"]
    finally:
        gcs.close()


def test_two_people_cordon_a_node_what_runs_there_goes_on_and_nothing_else_begins_until_it_is_undone(
    ray_cluster, gated
):
    home, client, neighbour = ray_cluster.home, ray_cluster.client("acme"), ray_cluster.client("beta")
    entrypoint, gate = gated()
    running = client.submit_job(entrypoint=entrypoint, entrypoint_num_cpus=1)
    ray_cluster.wait(client, running, ["RUNNING"])
    node, _, registered = free_cpus(home)
    seen = Observation(
        tenant="acme", job=running, kind="sensor_integrity", rule_ids=("USAG014",),
        channels={"library": {"message": "not ours", "score": 950}}, devices=(f"{node}/GPU-0",),
        score=950, invariant=True, synthetic=False, at_ns=1_800_000_000_000_000_000,
    )  # fmt: skip
    incident = Incidents(home).observe(seen)
    responder = Responder(home, RayCluster(home))
    step = responder.act(incident, 7, principal=home.principal())
    assert step.state == "waiting"
    assert responder.approve(step.id, person(home, "grace")).state == "waiting"
    try:
        done = responder.approve(step.id, person(home, "edsger"))
        assert (done.state, done.result["verified"], done.result["cpus"]) == ("done", True, 1.0)
        late = neighbour.submit_job(entrypoint="echo at last", entrypoint_num_cpus=1)
        gate.touch()
        assert ray_cluster.wait(client, running).status == "SUCCEEDED"
        responder.renew()  # what has ended is not lent again
        wait_until(lambda: free_cpus(home)[1] == 0.0)
    finally:
        undone = responder.undo(step.id, home.principal())
    assert undone.state == "undone"
    assert undone.result["undo"]["cpus"] == registered
    assert ray_cluster.wait(neighbour, late).status == "SUCCEEDED"
