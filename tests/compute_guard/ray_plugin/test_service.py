"""The guard's rounds in the dashboard head, without a cluster: what one look concludes."""

from __future__ import annotations

from compute_guard.gateway import Gateway
from compute_guard.ledger import Ledger, Reservation
from compute_guard.ray_plugin.service import Service
from compute_guard.reconcile import Step, Submission


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
