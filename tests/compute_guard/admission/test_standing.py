"""What a transaction may reserve is what an assessment of the same state calls fitting."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.admission.assessment import assess
from compute_guard.admission.snapshot import Holder, Snapshot
from compute_guard.admission.standing import Standing
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import Amounts, Cohort, Queue, Quotas, ResourceQuota

limit = st.one_of(st.none(), st.integers(0, 4))
sizes = st.integers(0, 6)


@st.composite
def trees(draw: st.DrawFn) -> Quotas:
    def quota() -> ResourceQuota:
        return ResourceQuota(draw(st.integers(0, 4)), draw(limit), draw(limit))

    queues = {
        name: Queue(
            name,
            name,
            "all",
            {"jobs": quota(), "gpu_milli@old": quota(), "gpu_milli@new": quota()},
            per_user=draw(st.sampled_from([{}, {"jobs": 3}, {"gpu_milli": 2}])),
            flavors=("old", "new"),
        )
        for name in ("a", "b")
    }
    return Quotas(queues, {"all": Cohort("all")})


def job(name: str, queue: str, jobs: int, gpus: int, user: str = "u") -> Workload:
    return Workload(
        id=name,
        tenant=queue,
        user=user,
        queue=queue,
        requests=Amounts({"jobs": jobs, "gpu_milli": gpus}),
        entrypoint="x",
        created_ns=0,
    )


@settings(max_examples=150, deadline=None)
@given(
    trees(),
    st.lists(st.tuples(st.sampled_from("ab"), sizes, sizes, st.sampled_from("uv")), max_size=8),
    st.sampled_from([{}, {}, {"a": "stop"}]),
    st.booleans(),
)
def test_a_transaction_reserves_what_an_assessment_calls_fitting(quotas, asked, holds, decided):
    snapshot = Snapshot(quotas, holds=holds)
    standing = Standing(quotas, {}, {}, holds)
    for number, (queue, jobs, gpus, user) in enumerate(asked):
        workload = job(f"j{number}", queue, jobs, gpus, user)
        seen = assess(snapshot, workload, ahead=())
        way = standing.way_for(workload, seen.way if decided else None)
        assert (way is not None) == (seen.fits and seen.hold is None)
        if way is not None:
            assert way == seen.way
            standing.change(queue, user, way.amounts, Amounts())
            snapshot = snapshot.with_reserved(workload, way.flavor, way.amounts)
        elif snapshot.holders:
            gone: Holder = snapshot.holders[0]
            standing.change(gone.workload.queue, gone.workload.user, Amounts(), gone.amounts)
            snapshot = snapshot.with_released(gone.workload)
        assert {q: u for q, u in standing.usage.items() if u} == {
            q: u for q, u in snapshot.usage.items() if u
        }


def test_a_queue_that_is_not_in_the_quotas_reserves_nothing():
    quotas = Quotas({"a": Queue("a", "a", None, {"jobs": ResourceQuota(1)})})
    assert Standing(quotas, {}, {}, {}).way_for(replace(job("j", "a", 1, 0), queue="gone")) is None
