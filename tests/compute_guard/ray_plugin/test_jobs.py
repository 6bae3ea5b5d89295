"""Response's hands on the real cluster: every effect is looked at afterwards."""

from __future__ import annotations

import pytest

from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Ledger
from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.ray_plugin.jobs import RayCluster
from compute_guard.testing import wait_until
from guard_core.errors import UserError

pytestmark = pytest.mark.ray

STUBBORN = """
import ray, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ray.init(logging_level="error")
@ray.remote(num_cpus=0, max_restarts=-1)
class Stays:
    def ping(self):
        return 1
stays = Stays.options(lifetime="detached", name="stays").remote()
print("up", ray.get(stays.ping.remote()), flush=True)
while True:
    time.sleep(1)
"""


@pytest.fixture
def actions(ray_cluster):
    return RayCluster(ray_cluster.home)


def test_a_job_that_ignores_sigterm_and_leaves_a_detached_actor_is_gone_afterwards(
    ray_cluster, actions, tmp_path
):
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    client = ray_cluster.client("acme")
    job = client.submit_job(entrypoint=f"python {script}", entrypoint_num_cpus=1)
    wait_until(
        lambda: "up 1" in client.get_job_logs(job),
        seen=lambda: (client.get_job_info(job), client.get_job_logs(job)),
    )
    done = actions.stop_job(job, reason="incident inc-1")
    # The reconciler may end the driver and its actor first: what counts is that nothing is left.
    assert (done.verified, done.left) == (True, 0)
    details = client.get_job_info(job)
    assert details.status == "STOPPED"
    assert "incident inc-1" in details.message
    ledger = Ledger(ray_cluster.home.storage)
    assert ledger.get(job).state is WorkloadState.EVICTED
    assert job not in ledger.reservations()
    gcs = Gcs(ray_cluster.cluster.gcs_address, lambda: ray_cluster.cluster.token)
    assert [actor for actor in gcs.actors() if actor.name == "stays"] == []
    gcs.close()
    assert actions.stop_job(job, reason="again").verified


def test_a_held_queue_admits_nothing_until_it_is_released(ray_cluster, actions):
    client = ray_cluster.client("beta")
    assert actions.hold_queue("beta", reason="incident inc-2", by="ladder") == ("beta",)
    job = client.submit_job(entrypoint="true")
    assert client.get_job_info(job).status == "PENDING"
    wait_until(lambda: "queue beta is on hold: incident inc-2" in client.get_job_info(job).message)
    assert actions.release_queue("beta") == ("beta",)
    assert actions.release_queue("beta") == ()
    assert ray_cluster.wait(client, job).status == "SUCCEEDED"


def test_a_raised_priority_lets_a_job_pass_the_one_before_it(ray_cluster, actions, gated):
    client = ray_cluster.client("beta")
    entrypoint, gate = gated()
    client.submit_job(entrypoint=entrypoint, entrypoint_num_cpus=1)
    first = client.submit_job(entrypoint="true", entrypoint_num_cpus=1)
    second = client.submit_job(entrypoint="true", entrypoint_num_cpus=1)
    assert actions.set_priority(second, 10) == 0
    wait_until(lambda: f"ahead in queue beta: {second}" in client.get_job_info(first).message)
    gate.touch()
    ray_cluster.wait(client, first)
    ledger = Ledger(ray_cluster.home.storage)
    order = [e.id for e in sorted(ledger.entries(tenant="beta"), key=lambda e: e.admitted_ms or 0)]
    assert order.index(second) < order.index(first)


@pytest.mark.parametrize("name", ["stop_job", "set_priority"])
def test_an_unknown_job_is_named(actions, name):
    arguments = {"stop_job": {"reason": "x"}, "set_priority": {"priority": 1}}[name]
    with pytest.raises(UserError, match="job nothing-like-it is not in the ledger"):
        getattr(actions, name)("nothing-like-it", **arguments)
