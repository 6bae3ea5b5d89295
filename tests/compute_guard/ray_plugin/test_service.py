"""The guard's rounds in the dashboard head, without a cluster: what one look concludes."""

from __future__ import annotations

import asyncio
import threading

from compute_guard.admission.gateway import Admitted, Gateway
from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.reconcile import Correction, Step, Submission
from compute_guard.ledger.store import Ledger, Reservation
from compute_guard.ray_plugin.inbox import Inbox
from compute_guard.ray_plugin.service import Service


class Empty:
    """A Ray that knows nothing yet."""

    def drivers(self, *, living=False):
        return []

    def submission_ids(self):
        return []

    def submissions(self, ids):
        return {}


class Racing:
    """Ray as it is seen while, behind the reader's back, a waiting job is admitted and started."""

    def __init__(self, admit) -> None:
        self._admit = admit

    def drivers(self, *, living=False):
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


def test_a_job_that_is_just_being_handed_over_is_stopped_wherever_it_arrives(still_home, waiting_job):
    gateway, ledger = Gateway(still_home), Ledger(still_home.storage, still_home.clock)
    service = Service("127.0.0.1:1", lambda: "token")
    last_mile, known = service.last_mile, {}

    class Ray(Empty):
        def submissions(self, ids):
            return {one: known[one] for one in ids if one in known}

    class Api:
        async def post(self, path, body):
            await going.wait()
            if takes:
                known[body["submission_id"]] = Submission("PENDING")
                return 200, ""
            return 500, "the agent is starting"

    last_mile._gcs, last_mile._job_api = Ray(), Api()
    going, takes = asyncio.Event(), True

    async def stopped(job):
        ledger.reserve(job, gateway.quotas())
        handing = asyncio.ensure_future(last_mile.hand_over(gateway, Admitted(job, {"submission_id": job})))
        while job not in last_mile.underway:
            await asyncio.sleep(0)
        stopping = asyncio.ensure_future(last_mile.stop(gateway, job, "by ada"))
        await asyncio.sleep(0)
        assert ledger.get(job).state is WorkloadState.ADMITTED  # not before it is known where it is
        going.set()
        await handing
        return await stopping

    assert asyncio.run(stopped(waiting_job("arrives"))) is None  # Ray has it, so Ray is to stop it
    going, takes = asyncio.Event(), False
    assert asyncio.run(stopped(waiting_job("tried-again"))) is True
    assert ledger.get("tried-again").state is WorkloadState.EVICTED
    assert asyncio.run(last_mile.stop(gateway, "tried-again", "by ada")) is False


def test_a_job_is_on_its_way_until_the_last_of_two_that_hand_it_over_is_done():
    last_mile = Service("127.0.0.1:1", lambda: "token").last_mile
    with last_mile.on_its_way("job"):
        with last_mile.on_its_way("job"):
            pass
        assert "job" in last_mile.underway
    assert "job" not in last_mile.underway


def test_a_job_whose_client_goes_away_as_it_is_admitted_is_not_on_its_way_for_ever(still_home):
    async def story() -> None:
        service = Service("127.0.0.1:1", lambda: "token")

        class Admits:
            def submit_many(self, asked):
                return [Admitted("job", {}) for _ in asked], []

        async def gateway():
            return Admits()

        async def decide(work):
            return work()

        inbox = Inbox(gateway, decide, service.last_mile)
        asking = asyncio.ensure_future(inbox.submit(None, {}))
        while "job" not in service.last_mile.underway:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert service.last_mile.underway == set()

    asyncio.run(story())


def test_a_job_that_is_just_being_admitted_is_not_taken_for_a_lost_one(still_home, waiting_job):
    gateway, posted = Gateway(still_home), []
    committed, written, job = threading.Event(), threading.Event(), waiting_job()

    def submit_many(asked):
        gateway.ledger.reserve(job, gateway.quotas())
        committed.set()
        assert written.wait(30)  # its decision is written to the audit log after it is in the ledger
        return [Admitted(job, {}) for _ in asked], []

    class Api:
        async def post(self, path, body):
            posted.append(path)
            return 200, ""

    async def story() -> None:
        service = Service("127.0.0.1:1", lambda: "token")
        service._gateway, gateway.submit_many = gateway, submit_many
        service.last_mile._gcs, service.last_mile._job_api = Empty(), Api()
        asking = asyncio.ensure_future(service.inbox.submit(None, {}))
        assert await asyncio.to_thread(committed.wait, 30)
        looking = asyncio.ensure_future(service._apply(gateway, Correction(Step.SUBMIT, job)))
        await asyncio.sleep(0.2)  # more than it takes to look at the ledger and at Ray
        written.set()
        await asyncio.gather(asking, looking)
        assert posted == []
        service.last_mile.underway.clear()
        await service._apply(gateway, Correction(Step.SUBMIT, job))
        assert posted == ["/api/jobs/"]

    asyncio.run(story())


async def refusing(self, path, body):
    return 400, "the runtime_env is not valid"


def test_heads_of_two_tenants_clusters_lead_beside_each_other(still_home, monkeypatch):
    gateway = Gateway(still_home)
    for tenant in ("acme", "beta"):
        monkeypatch.setenv("COMPUTE_GUARD_TENANT", tenant)
        assert Service("127.0.0.1:1", lambda: "token")._leads(gateway)
    assert not Service("127.0.0.1:1", lambda: "token")._leads(gateway)
