"""When a waiting job would start, as far as that can be said."""

from __future__ import annotations

import pytest

from compute_guard.admission.snapshot import Holder, Meter, Snapshot
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import (
    Amounts,
    Budget,
    Cohort,
    Flavor,
    Preemption,
    Queue,
    Quotas,
    ResourceQuota,
)
from compute_guard.replay.forecast import forecast

MINUTE = 60_000
TWO = {"jobs": ResourceQuota(9, 0), "gpu_milli": ResourceQuota(2000, None)}
QUOTAS = Quotas(
    {
        name: Queue(name, name, "all", TWO, preemption=Preemption(reclaim_within_cohort="any"))
        for name in ("owner", "borrower")
    },
    {"all": Cohort("all")},
)


def job(name: str, queue: str, gpus: int, **more: object) -> Workload:
    needs = Amounts({"jobs": 1, "gpu_milli": gpus * 1000})
    return Workload(
        id=name, tenant=queue, user="u", queue=queue, requests=needs, entrypoint="x", created_ns=1, **more
    )


def waits_for(borrower: Workload, *, leaving: bool) -> Snapshot:
    """At minute 10 a job of two GPUs waits for one of four that began at minute 0."""
    return Snapshot(
        quotas=QUOTAS,
        usage={"borrower": borrower.requests},
        pending=(job("mine", "owner", 2),),
        holders=(Holder(borrower, borrower.requests, "", 0, leaving),),
        now_ms=10 * MINUTE,
    )


@pytest.mark.parametrize(
    ("lasts", "stops_in", "starts_in"),
    [
        (5 * MINUTE, 8_000, 8_000),  # it has outlasted its estimate, and nobody knows better than its notice
        (60 * MINUTE, 8_000, 8_000),  # stopped long before it is done
        (12 * MINUTE, 5 * MINUTE, 2 * MINUTE),  # done before its time is up
    ],
)
def test_a_job_with_notice_is_gone_when_its_time_is_up(lasts, stops_in, starts_in):
    snapshot = waits_for(job("theirs", "borrower", 4), leaving=True)
    stops = {"theirs": snapshot.now_ms + stops_in, "somebody else's": 0}
    found = forecast(snapshot, snapshot.pending[0], {"borrower": (lasts,)}, stops)
    assert found.in_ms == starts_in
    assert "as the last 1 job of" in found.basis


def test_a_notice_is_ground_enough_where_no_job_has_ended_yet():
    snapshot = waits_for(job("theirs", "borrower", 4), leaving=True)
    assert forecast(snapshot, snapshot.pending[0], {}).in_ms is None
    found = forecast(snapshot, snapshot.pending[0], {}, {"theirs": snapshot.now_ms + 8_000})
    assert (found.in_ms, found.basis) == (8_000, "when who has notice is stopped")


@pytest.mark.parametrize("on_hold", [False, True])
def test_a_spent_budget_opens_its_queue_when_enough_is_forgotten_unless_an_incident_holds_it(on_hold):
    hours = 3_600_000
    budget = Budget(gpu_hours=4, half_life_hours=2)
    quotas = Quotas({"owner": Queue("owner", "owner", None, TWO, budget=budget)}, {})
    snapshot = Snapshot(
        quotas=quotas,
        pending=(job("mine", "owner", 2),),
        budgets={"owner": Meter(2 * budget.limit, 0, hours)},
        holds={"owner": "an incident"} if on_hold else {},
        now_ms=hours,
    )
    found = forecast(snapshot, snapshot.pending[0], {"owner": (MINUTE,)})
    assert found.in_ms == (None if on_hold else 2 * hours)
    assert ("hold" in found.basis) == on_hold


def test_the_end_of_a_maintenance_is_not_foreseen():
    limits = {"jobs": ResourceQuota(9, 0), "gpu_milli@a100": ResourceQuota(2000, None)}
    queue = Queue("owner", "owner", None, limits, flavors=("a100",))
    quotas = Quotas({"owner": queue}, {}, flavors={"a100": Flavor("a100")})
    snapshot = Snapshot(
        quotas=quotas,
        pending=(job("first", "owner", 1), job("then", "owner", 0)),
        shut={"a100": "pool a100 is under maintenance"},
    )
    for waits in snapshot.pending:
        found = forecast(snapshot, waits, {"owner": (MINUTE,)})
        assert (found.in_ms, "maintenance" in found.basis) == (None, True)
