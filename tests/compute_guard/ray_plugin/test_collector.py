"""A live look at a real cluster: who holds which GPU, by Ray's own books."""

import pytest

from compute_guard.ray_plugin.collector import LiveBook, descendants
from compute_guard.testing import wait_until
from compute_guard.usage.samples import Device
from guard_core.errors import UserError

pytestmark = pytest.mark.ray


def held_by(book, job):
    book.look()
    return next((held for held in book.held if held.job == job), None)


def test_a_job_of_a_tenant_holds_what_ray_gave_its_entrypoint_and_its_hidden_tasks(
    ray_cluster, gated, tmp_path
):
    entrypoint, gate = gated()
    script = tmp_path / "hidden.py"
    script.write_text(
        "import os, time, ray\n"
        "ray.init()\n"
        "@ray.remote(num_gpus=0.5, num_cpus=0, enable_task_events=False)\n"
        "def hold(gate):\n"
        "    while not os.path.exists(gate): time.sleep(0.1)\n"
        f"ray.get(hold.remote({str(gate)!r}))\n"
    )
    client, neighbour = ray_cluster.client("acme"), ray_cluster.client("beta")
    job = client.submit_job(
        entrypoint=f"python {script}", entrypoint_num_gpus=0.25, metadata={"gpus": "1", "kind": "notebook"}
    )
    other = neighbour.submit_job(entrypoint=entrypoint, entrypoint_num_gpus=0.25)
    book = LiveBook(ray_cluster.home)
    wait_until(lambda: (h := held_by(book, job)) is not None and sum(h.gpus.values()) == 750)
    wait_until(lambda: (h := held_by(book, other)) is not None and sum(h.gpus.values()) == 250)
    mine, theirs = held_by(book, job), held_by(book, other)
    assert (mine.tenant, theirs.tenant) == ("acme", "beta")
    assert not mine.pids & theirs.pids
    assert mine.grant.gpu_milli == 1000
    devices = [Device(mine.node.address, f"index-{index}", index) for index in (0, 1)]
    book.see(devices)
    on = book(1_000).on(devices[0].key, 1_001)
    assert {lease.tenant for lease in on} >= {"acme"}
    assert {lease.kind for lease in on if lease.tenant == "acme"} == {"notebook"}
    gate.touch()
    assert ray_cluster.wait(client, job).status == "SUCCEEDED"
    wait_until(lambda: held_by(book, job) is None)
    assert book(2_000).on(devices[0].key, 2_001) == ()
    assert book.failures == 0
    book.close()


def test_when_ray_does_not_answer_the_last_book_stays_in_force(still_home):
    book = LiveBook(still_home)
    with pytest.raises(UserError, match="no cluster of this home"):
        book.look()
    assert book(5).leases == ()
    assert book.failures == 1
    assert "no cluster of this home" in book.problem


def test_a_process_that_is_gone_has_no_descendants():
    import os

    assert os.getpid() in descendants([os.getpid(), 2**22 + 5])[os.getpid()]
    assert 2**22 + 5 not in descendants([2**22 + 5])
