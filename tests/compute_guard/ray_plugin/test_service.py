"""The guard's rounds in the dashboard head, without a cluster: what one look concludes."""

from __future__ import annotations

import asyncio

from compute_guard.gateway import Admitted, Gateway
from compute_guard.ledger import Ledger, Reservation
from compute_guard.ray_plugin.service import Service
from compute_guard.reconcile import Step, Submission
from compute_guard.workload import WorkloadState


class Empty:
    """A Ray that knows nothing yet."""

    def drivers(self):
        return []

    def submission_ids(self):
        return []

    def submissions(self, ids):
        return {}


class Racing:
    """Ray as it is seen while, behind the reader's back, a waiting job is admitted and started."""

    def __init__(self, admit) -> None:
        self._admit = admit

    def drivers(self):
        return []

    def submission_ids(self):
        self._admit()
        return ["job-1"]

    def submissions(self, ids):
        return {name: Submission("RUNNING") for name in ids}


def test_a_job_admitted_while_the_guard_looks_is_not_taken_for_an_intruder(still_home, waiting_job):
    gateway = Gateway(still_home)
    job = waiting_job()
    ledger = Ledger(still_home.storage, still_home.clock)
    service = Service("127.0.0.1:1", lambda: "token")

    def admit() -> None:
        assert ledger.reserve(job, gateway.quotas()) is Reservation.RESERVED

    service._gcs = Racing(admit)
    service._origins.judged = lambda drivers: drivers
    assert [(one.step, one.target) for one in service._corrections(gateway)] == [(Step.RUN, job)]


def test_a_cluster_of_one_tenants_own_hands_over_its_jobs_and_no_others(still_home, waiting_job, monkeypatch):
    monkeypatch.setenv("COMPUTE_GUARD_TENANT", "acme")
    gateway, ledger = Gateway(still_home), Ledger(still_home.storage, still_home.clock)
    for job, tenant in (("own", "acme"), ("others", "beta")):
        ledger.reserve(waiting_job(job, tenant), gateway.quotas())
    service = Service("127.0.0.1:1", lambda: "token")
    service._gcs = Empty()
    service._origins.judged = lambda drivers: drivers
    assert [(one.step, one.target) for one in service._corrections(gateway)] == [(Step.SUBMIT, "own")]
    bodies = [Admitted("own", {"metadata": {"trainguard_tenant": "acme"}}), Admitted("others", {})]
    assert [one.id for one in service.last_mile._here(bodies)] == ["own"]


def test_of_two_that_hand_a_job_over_at_once_the_one_that_ray_refuses_ends_nothing(still_home, waiting_job):
    gateway, ledger = Gateway(still_home), Ledger(still_home.storage, still_home.clock)
    job = waiting_job()
    ledger.reserve(job, gateway.quotas())
    service = Service("127.0.0.1:1", lambda: "token")
    known: dict[str, Submission] = {}

    class Ray(Empty):
        def submissions(self, ids):
            return known

    class Api:
        async def post(self, path, body):
            known[job] = Submission("RUNNING")  # the other one was first
            return 400, f"Job with submission_id {job} already exists"

    service.last_mile._gcs, service.last_mile._job_api = Ray(), Api()
    asyncio.run(service.last_mile.hand_over(gateway, Admitted(job, {})))
    assert ledger.get(job).state is WorkloadState.ADMITTED
    known.clear()
    Api.post = refusing
    asyncio.run(service.last_mile.hand_over(gateway, Admitted(job, {})))
    assert ledger.get(job).state is WorkloadState.EVICTED


async def refusing(self, path, body):
    return 400, "the runtime_env is not valid"


def test_heads_of_two_tenants_clusters_lead_beside_each_other(still_home, monkeypatch):
    gateway = Gateway(still_home)
    for tenant in ("acme", "beta"):
        monkeypatch.setenv("COMPUTE_GUARD_TENANT", tenant)
        assert Service("127.0.0.1:1", lambda: "token")._leads(gateway)
    assert not Service("127.0.0.1:1", lambda: "token")._leads(gateway)
