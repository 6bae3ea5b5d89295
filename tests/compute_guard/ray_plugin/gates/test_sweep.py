"""What outlived its workload is ended, and the GCS is only asked when there may be such a thing."""

import asyncio

import pytest
from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.ray_plugin.gates.sweep import ANYWAY_SECONDS, LINGERS_SECONDS, Sweep
from compute_guard.ray_plugin.gates.tenancy import Job, Jobs

JOB = "01000000"
GROUP = b"\7" * 14 + bytes.fromhex(JOB)


class _Gcs:
    """Its tables, with one placement group once ``left`` is set, and what it was asked."""

    def __init__(self):
        self.left = False
        self.asked = []

    async def call(self, method, request, timeout):
        name = method.rpartition("/")[2]
        self.asked.append(name)
        reply = getattr(pb, name + "Reply")()
        if name == "GetAllPlacementGroup" and self.left:
            row = reply.placement_group_table_data.add()
            row.placement_group_id, row.creator_job_id = GROUP, bytes.fromhex(JOB)
        if name == "RemovePlacementGroup":
            assert pb.RemovePlacementGroupRequest.FromString(request).placement_group_id == GROUP
            self.left = False
        return reply.SerializeToString()


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(tmp_path / "jobs.jsonl")
    jobs.add(Job(id=JOB, tenant="acme", user="ada", workload="w", namespace="x@acme"))
    return jobs


def test_while_every_workload_lives_the_gcs_is_left_alone(jobs):
    gcs, now = _Gcs(), [0.0]
    sweep = Sweep(gcs, jobs, lambda: now[0])
    asyncio.run(sweep.round({"w"}))  # the first look: who knows what was before
    gcs.asked.clear()
    for now[0] in (0.5, 1.0, ANYWAY_SECONDS - 1):
        assert asyncio.run(sweep.round({"w"})) == ()
    assert gcs.asked == []
    now[0] = ANYWAY_SECONDS
    asyncio.run(sweep.round({"w"}))
    assert "GetAllPlacementGroup" in gcs.asked


def test_what_a_workload_leaves_behind_is_ended_even_if_it_comes_late(jobs):
    gcs, now = _Gcs(), [0.0]
    sweep = Sweep(gcs, jobs, lambda: now[0])
    asyncio.run(sweep.round({"w"}))
    now[0] = 1.0
    assert asyncio.run(sweep.round(())) == ()
    gcs.left, now[0] = True, 1.0 + LINGERS_SECONDS  # a call that was under way
    assert asyncio.run(sweep.round(())) == (f"placement group {GROUP.hex()}",)
    now[0] += 1
    assert asyncio.run(sweep.round(())) == ()  # the last look: it is clean
    gcs.asked.clear()
    now[0] += 1
    assert asyncio.run(sweep.round(())) == ()
    assert gcs.asked == []


def test_a_workload_that_runs_again_is_looked_at_again_when_it_ends(jobs):
    gcs, now = _Gcs(), [0.0]
    sweep = Sweep(gcs, jobs, lambda: now[0])
    asyncio.run(sweep.round(()))
    now[0] = LINGERS_SECONDS
    asyncio.run(sweep.round(()))
    jobs.add(Job(id="02000000", tenant="acme", user="ada", workload="w", namespace="x@acme"))
    asyncio.run(sweep.round({"w"}))
    gcs.asked.clear()
    asyncio.run(sweep.round(()))
    assert "GetAllPlacementGroup" in gcs.asked
