"""Rounds on immutable snapshots: fair share, flavors, reclaim, and what must hold after any history."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.admission.assessment import assess
from compute_guard.admission.round import decide_round
from compute_guard.admission.snapshot import Holder, Meter, Snapshot
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import (
    Amounts,
    Budget,
    Cohort,
    FairShare,
    Flavor,
    Preemption,
    Queue,
    Quotas,
    ResourceQuota,
)

HOUR = 3_600_000
WEEK = 168 * HOUR


def job(name: str, queue: str = "a", gpus: int = 1, *, age: int = 0, **more: object) -> Workload:
    return Workload(
        id=name,
        tenant=queue,
        user="u",
        queue=queue,
        requests=Amounts({"jobs": 1, "gpu_milli": gpus * 1000}),
        entrypoint="x",
        created_ns=(100 - age) * 1_000_000,
        **more,
    )


def queue(name: str, gpus: int, cohort: str | None = "all", **more: object) -> Queue:
    limits = {"jobs": ResourceQuota(1000), "gpu_milli": ResourceQuota(gpus * 1000)}
    return Queue(name, name, cohort, limits, **more)


def quotas(*queues: Queue, cohorts: dict[str, Cohort] | None = None, **more: object) -> Quotas:
    return Quotas({q.name: q for q in queues}, cohorts or {"all": Cohort("all")}, **more)


def running(*workloads: Workload, since_ms: int = 0) -> tuple[Holder, ...]:
    return tuple(Holder(w, w.requests, "", since_ms) for w in workloads)


def state(
    tree: Quotas, pending: tuple[Workload, ...] = (), holders: tuple[Holder, ...] = (), **more
) -> Snapshot:
    usage: dict[str, Amounts] = {}
    for holder in holders:
        usage[holder.workload.queue] = usage.get(holder.workload.queue, Amounts()) + holder.amounts
    return Snapshot(tree, usage=usage, pending=pending, holders=holders, **more)


def picked(snapshot: Snapshot) -> list[str]:
    return [pick.workload.id for pick in decide_round(snapshot).picks]


def displaced(snapshot: Snapshot) -> list[str]:
    return [one.holder.workload.id for one in decide_round(snapshot).displaced]


# --- fair share ------------------------------------------------------------------------------------


def test_of_two_borrowers_the_one_that_had_less_goes_first():
    tree = quotas(queue("a", 0), queue("b", 0), queue("lender", 1))
    used = {"a": Meter(10**12, 0, 0), "b": Meter(10**9, 0, 0)}
    both = (job("of-a", "a", age=9), job("of-b", "b"))
    assert picked(state(tree, both, used=used)) == ["of-b"]


def test_weight_buys_more_before_the_other_goes_first():
    heavy = replace(queue("a", 0), weight=5000)
    tree = quotas(heavy, queue("b", 0), queue("lender", 1))
    used = {"a": Meter(10**12, 0, 0), "b": Meter(10**9, 0, 0)}
    assert picked(state(tree, (job("of-a", "a"), job("of-b", "b", age=9)), used=used)) == ["of-a"]


def test_what_a_queue_holds_now_counts_before_it_has_used_anything():
    tree = quotas(queue("a", 0), queue("b", 0), queue("lender", 4))
    line = tuple(job(f"a{i}", "a", age=50 - i) for i in range(4)) + tuple(job(f"b{i}", "b") for i in range(4))
    assert picked(state(tree, line, now_ms=WEEK)) == ["a0", "b0", "a1", "b1"]


def test_use_is_half_forgotten_after_the_half_life():
    meter = Meter(2**40, 0, 0)
    assert meter.shown(WEEK, WEEK) == pytest.approx(2**39, rel=1e-3)
    assert meter.shown(1000 * WEEK, WEEK) == 0


def test_a_meter_shows_the_same_however_often_it_is_looked_at():
    at_once = Meter(2**40, 7000, 0).shown(3 * WEEK + 12345, WEEK)
    looked, step = Meter(2**40, 7000, 0), 977_777
    for moment in range(step, 3 * WEEK + 12345, step):
        looked = looked.changed(0, moment, WEEK)
    assert looked.shown(3 * WEEK + 12345, WEEK) == at_once


def test_a_clock_that_goes_back_counts_nothing():
    assert Meter(500, 7, 1000).changed(3, 10, WEEK) == Meter(500, 10, 1000)


def test_a_round_says_when_there_is_more_behind_what_it_looked_at():
    tree = quotas(queue("a", 6, None))
    waiting = tuple(job(f"j{n}", "a", age=20 - n) for n in range(9))
    first = decide_round(state(tree, waiting), depth=4)
    assert ([pick.workload.id for pick in first.picks], first.deeper) == (["j0", "j1", "j2", "j3"], True)
    held = state(tree, waiting[4:], running(*waiting[:4]))
    second = decide_round(held, depth=4)
    assert ([pick.workload.id for pick in second.picks], second.deeper) == (["j4", "j5"], False)


def test_owners_go_before_borrowers_whatever_they_had():
    tree = quotas(queue("a", 1), queue("b", 0))
    used = {"a": Meter(10**15, 0, 0)}
    assert picked(state(tree, (job("owner", "a"), job("borrower", "b", age=9)), used=used)) == ["owner"]


# --- flavors ---------------------------------------------------------------------------------------

FLAVORED = Quotas(
    {
        "a": Queue(
            "a",
            "a",
            None,
            {
                "jobs": ResourceQuota(9),
                "gpu_milli@h100": ResourceQuota(1000),
                "gpu_milli@a100": ResourceQuota(2000),
            },
            flavors=("h100", "a100"),
        )
    },
    flavors={name: Flavor(name, {"accelerator": name}, name) for name in ("h100", "a100")},
)


def test_flavors_are_tried_in_their_order():
    first = decide_round(Snapshot(FLAVORED, pending=(job("x"), job("y"), job("z"), job("late")))).picks
    assert [(p.workload.id, p.way.flavor) for p in first] == [("late", "h100"), ("x", "a100"), ("y", "a100")]


def test_a_job_may_ask_for_a_flavor():
    wants = decide_round(Snapshot(FLAVORED, pending=(job("x", flavors=("a100",)),))).picks
    assert wants[0].way.amounts == Amounts({"jobs": 1, "gpu_milli@a100": 1000})


def test_a_flavor_the_queue_does_not_have_never_fits():
    lost = job("x", flavors=("tpu",))
    assert picked(Snapshot(FLAVORED, pending=(lost,))) == []
    assert not assess(Snapshot(FLAVORED), lost).ever_fits


def test_a_flavor_under_maintenance_is_passed_over_and_named_when_it_is_the_only_one():
    shut = {"h100": "pool h100 is under maintenance"}
    pick = decide_round(Snapshot(FLAVORED, pending=(job("x"),), shut=shut)).picks[0]
    assert pick.way.flavor == "a100"
    only = job("y", flavors=("h100",))
    assert picked(Snapshot(FLAVORED, pending=(only,), shut=shut)) == []
    assert ("pool-maintenance", "flavor h100: pool h100 is under maintenance") in assess(
        Snapshot(FLAVORED, shut=shut), only
    ).waits_for()


def test_a_job_without_gpus_needs_no_flavor():
    assert decide_round(Snapshot(FLAVORED, pending=(job("x", gpus=0),))).picks[0].way.flavor == ""


# --- cohorts in cohorts ----------------------------------------------------------------------------


def test_quota_of_a_cohort_is_shared_by_all_below_it():
    shared = Cohort("top", None, {"gpu_milli": ResourceQuota(3000)})
    tree = quotas(queue("a", 1, "left"), queue("b", 1, "right"), cohorts={
        "top": shared, "left": Cohort("left", "top"), "right": Cohort("right", "top"),
    })  # fmt: skip
    assert tree.potential("a", "gpu_milli") == 5000
    assert tree.available("b", "gpu_milli", {"a": Amounts({"gpu_milli": 4000})}) == 1000


def test_a_cohorts_lending_limit_keeps_its_part_inside():
    left = Cohort("left", "top", {"gpu_milli": ResourceQuota(0, None, 1000)})
    tree = quotas(queue("a", 3, "left"), queue("b", 1, "right"), cohorts={
        "top": Cohort("top"), "left": left, "right": Cohort("right", "top"),
    })  # fmt: skip
    assert tree.potential("b", "gpu_milli") == 2000
    assert tree.available("a", "gpu_milli", {"b": Amounts({"gpu_milli": 2000})}) == 2000


# --- reclaim ---------------------------------------------------------------------------------------

ANY = Preemption(reclaim_within_cohort="any")


def test_an_owner_takes_back_from_the_borrower_that_had_most_and_only_what_it_needs():
    tree = quotas(queue("own", 2, preemption=ANY), queue("a", 0), queue("b", 0))
    lent = running(job("a1", "a"), job("b1", "b"))
    waiting = state(tree, (job("mine", "own"),), lent, used={"a": Meter(10**12, 0, 0)})
    assert displaced(waiting) == ["a1"]
    assert picked(waiting) == []


def test_of_one_queue_the_lower_priority_goes_and_then_the_one_that_started_last():
    tree = quotas(queue("own", 3, preemption=ANY), queue("a", 0))
    lent = (
        *running(job("low-old", "a"), since_ms=1),
        *running(job("low-new", "a"), since_ms=2),
        *running(job("high", "a", priority=5), since_ms=3),
    )
    assert displaced(state(tree, (job("mine", "own"),), lent)) == ["low-new"]


def test_who_only_uses_its_own_is_never_taken_from():
    tree = quotas(queue("own", 1, preemption=ANY), queue("a", 1))
    full = running(job("a1", "a"), job("own1", "own"))
    assert displaced(state(tree, (job("mine", "own"),), full)) == []


def test_nobody_goes_in_vain():
    tree = quotas(queue("own", 3, preemption=ANY), queue("a", 0))
    lent = running(job("a1", "a"), job("own1", "own", 2))
    assert displaced(state(tree, (job("mine", "own", 2),), lent)) == []


def test_a_borrower_reclaims_nothing():
    tree = quotas(queue("own", 1, preemption=ANY), queue("a", 0), queue("lender", 1))
    lent = running(job("a1", "a"), job("a2", "a"))
    assert displaced(state(tree, (job("big", "own", 2),), lent)) == []


def shared() -> Quotas:
    """Two borrowers, of which one may have all of the lender's four, and shares that are enforced."""
    return quotas(queue("a", 0), queue("b", 0), queue("lender", 4), fair_share=FairShare(preempt=True))


def meters(**gpus: int) -> dict[str, Meter]:
    """What these queues hold now, and nothing of earlier."""
    return {name: Meter(0, 32_000 * count, 0) for name, count in gpus.items()}


def test_where_shares_are_enforced_a_borrower_takes_its_part_from_one_that_had_more():
    tree = shared()
    holders = running(*(job(f"b{n}", "b", age=9) for n in range(4)))
    waiting = state(tree, (job("mine", "a"),), holders, used=meters(b=4))
    gone = decide_round(waiting).displaced
    assert [(one.holder.workload.queue, one.fair) for one in gone] == [("b", True)]
    assert displaced(replace(waiting, quotas=quotas(*tree.queues.values()))) == []


def test_with_equal_shares_nobody_takes_from_the_other():
    held = running(
        *(job(f"a{n}", "a", age=9) for n in range(2)), *(job(f"b{n}", "b", age=9) for n in range(2))
    )
    used = meters(a=2, b=2)
    assert displaced(state(shared(), (job("one-more", "a"),), held, used=used)) == []
    assert displaced(state(shared(), (job("one-more", "b"),), held, used=used)) == []


def test_a_borrower_takes_no_more_than_makes_the_shares_even():
    holders = running(*(job(f"b{n}", "b", age=9) for n in range(4)))
    assert len(displaced(state(shared(), (job("two", "a", 2),), holders, used=meters(b=4)))) == 2
    assert displaced(state(shared(), (job("three", "a", 3),), holders, used=meters(b=4))) == []


def test_twice_the_weight_is_twice_the_part():
    tree = quotas(
        queue("a", 0, weight=3), queue("b", 0), queue("lender", 4), fair_share=FairShare(preempt=True)
    )
    holders = running(*(job(f"b{n}", "b", age=9) for n in range(4)))
    assert len(displaced(state(tree, (job("three", "a", 3),), holders, used=meters(b=4)))) == 3


def test_who_is_on_the_way_out_counts_as_gone():
    tree = quotas(queue("own", 2, preemption=ANY), queue("a", 0))
    lent = running(job("a1", "a"), job("a2", "a"))
    leaving = (replace(lent[0], evicting=True), lent[1])
    assert displaced(state(tree, (job("mine", "own"),), leaving)) == []


def test_lower_priority_mode_leaves_equal_priorities_alone():
    lower = Preemption(reclaim_within_cohort="lower_priority")
    tree = quotas(queue("own", 1, preemption=lower), queue("a", 0))
    lent = running(job("a1", "a"))
    assert displaced(state(tree, (job("mine", "own"),), lent)) == []
    assert displaced(state(tree, (job("mine", "own", priority=1),), lent)) == ["a1"]


def test_a_higher_priority_ends_a_lower_one_in_its_own_queue():
    tree = quotas(queue("a", 1, None, preemption=Preemption(within_queue="lower_priority")))
    assert displaced(state(tree, (job("urgent", priority=1),), running(job("batch")))) == ["batch"]
    assert displaced(state(tree, (job("same"),), running(job("batch")))) == []


def test_room_an_owner_waits_for_is_not_given_to_borrowers():
    """Without it small borrowers would slip past an owner's large job for ever."""
    tree = quotas(queue("own", 4), queue("a", 0))
    waiting = state(tree, (job("large", "own", 4), job("small", "a")), running(job("a1", "a", 2)))
    assert picked(waiting) == []


def test_a_borrower_that_has_waited_long_keeps_room_too():
    tree = quotas(queue("a", 0), queue("b", 0), queue("lender", 4), fair_share=FairShare(patience_seconds=60))
    line = (job("large", "a", 4, age=9), job("small", "b"))
    lent = running(job("b1", "b", 1))
    assert picked(state(tree, line, lent, now_ms=1000)) == ["small"]
    assert picked(state(tree, line, lent, now_ms=61_000)) == []


def test_a_lowered_quota_ends_what_is_beyond_it_where_the_queue_says_so():
    full = running(job("one"), job("two"))
    keep = quotas(queue("a", 1, None))
    assert displaced(state(keep, (), full)) == []
    preempt = quotas(queue("a", 1, None, preemption=Preemption(lowered_quota="preempt")))
    assert displaced(state(preempt, (), full)) == ["two"]


# --- budgets ---------------------------------------------------------------------------------------


def test_a_spent_budget_starts_nothing_and_refills_by_itself():
    tree = quotas(queue("a", 4, None, budget=Budget(gpu_hours=10, half_life_hours=1)))
    spent = {"a": Meter(12 * 1000 * HOUR, 0, 0)}
    held = state(tree, (job("x"),), budgets=spent, now_ms=0)
    assert picked(held) == []
    assert assess(held, job("x")).waits_for() == (
        ("budget-spent", "queue a has used 12 of 10 GPU-hours; half of it is forgotten in 1 h"),
    )
    assert picked(replace(held, now_ms=HOUR)) == ["x"]


def test_jobs_without_gpus_pass_those_that_wait_for_a_spent_budget():
    tree = quotas(queue("a", 4, None, budget=Budget(gpu_hours=10, half_life_hours=1)))
    many = tuple(job(f"x{place}", age=50 - place) for place in range(20))  # more than a round looks at
    without = job("without", gpus=0)
    held = state(tree, (*many, without), budgets={"a": Meter(12 * 1000 * HOUR, 0, 0)})
    assert picked(held) == ["without"]
    assert assess(held, without).waits_for() == ()
    assert assess(held, many[1]).ahead == ("x0",)


def test_a_job_that_waits_for_a_spent_budget_keeps_no_room_from_other_queues():
    owner = queue("a", 4, budget=Budget(gpu_hours=1, half_life_hours=1))
    tree = quotas(owner, queue("b", 0))
    spent = state(tree, (job("x", gpus=4), job("y", "b")), budgets={"a": Meter(2 * 1000 * HOUR, 0, 0)})
    assert picked(spent) == ["y"]
    assert assess(spent, job("y", "b")).waits_for() == ()


# --- what must hold after any history --------------------------------------------------------------

limit = st.one_of(st.none(), st.integers(0, 4))
modes = st.sampled_from(["never", "lower_priority", "any"])


@st.composite
def trees(draw: st.DrawFn) -> Quotas:
    cohorts = {
        "top": Cohort("top"),
        "low": Cohort("low", "top", {"jobs": ResourceQuota(draw(st.integers(0, 2)))}),
    }
    queues = {}
    for index in range(draw(st.integers(1, 4))):
        name = f"q{index}"
        own = ResourceQuota(draw(st.integers(0, 4)), draw(limit), draw(limit))
        rules = Preemption(draw(modes), draw(st.sampled_from(["never", "lower_priority"])))
        queues[name] = Queue(
            name, name, draw(st.sampled_from(["top", "low", None])), {"jobs": own}, preemption=rules
        )
    return Quotas(queues, cohorts)


steps = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "finish", "out"]),
        st.integers(0, 3),
        st.integers(1, 3),
        st.integers(0, 2),
    ),
    max_size=25,
)


def advance(snapshot: Snapshot, doomed: set[str]) -> Snapshot:
    """One round, put into effect; victims get notice."""
    round_ = decide_round(snapshot)
    names = [pick.workload.id for pick in round_.picks]
    assert len(names) == len(set(names)), "nobody is reserved twice in a round"
    for pick in round_.picks:
        assert pick.assessment.fits
        snapshot = snapshot.with_reserved(pick.workload, pick.way.flavor, pick.way.amounts)
    doomed |= {one.holder.workload.id for one in round_.displaced}
    held = tuple(replace(h, evicting=h.workload.id in doomed) for h in snapshot.holders)
    return replace(snapshot, holders=held)


def live_through(tree: Quotas, history) -> tuple[Snapshot, set[str]]:
    snapshot, doomed = Snapshot(tree), set()
    for number, (what, index, size, priority) in enumerate(history):
        name = f"q{index % len(tree.queues)}"
        if what == "submit":
            request = Amounts({"jobs": size})
            new = Workload(
                id=f"j{number:02}",
                tenant=name,
                user="u",
                queue=name,
                requests=request,
                entrypoint="x",
                created_ns=number * 1_000_000,
                priority=priority,
            )
            if assess(snapshot, new).ever_fits:
                snapshot = replace(snapshot, pending=(*snapshot.pending, new))
        elif snapshot.holders:
            # Who has notice is gone first, as it would be; else anybody ends.
            leaving = [h for h in snapshot.holders if h.evicting]
            gone = leaving[0] if leaving else snapshot.holders[index % len(snapshot.holders)]
            snapshot = snapshot.with_released(gone.workload)
            doomed.discard(gone.workload.id)
        snapshot = advance(replace(snapshot, now_ms=number * 1000), doomed)
        for queue_name in tree.queues:
            assert tree.room(queue_name, "jobs", snapshot.dense) >= 0, "never over quota"
        held = sum(h.amounts["jobs"] for h in snapshot.holders)
        assert held == sum(used["jobs"] for used in snapshot.usage.values()), "no reservation lost"
    return snapshot, doomed


@settings(max_examples=120, deadline=None)
@given(trees(), steps)
def test_no_history_exceeds_quota_or_reserves_twice(tree, history):
    live_through(tree, history)


@settings(max_examples=120, deadline=None)
@given(trees(), steps)
def test_what_was_lent_can_always_be_taken_back(tree, history):
    """An owner's head, in a queue that reclaims from any, fits once those with notice have gone."""
    snapshot, _ = live_through(tree, history)
    for name, line in snapshot.lines.items():
        owner = tree.queues[name]
        if owner.preemption.reclaim_within_cohort != "any":
            continue
        numbers = assess(snapshot, line[0])
        if numbers.borrows or numbers.fits:
            continue
        after = snapshot
        for holder in snapshot.holders:
            if holder.evicting:
                after = after.with_released(holder.workload)
        # Owners of other queues may be before it in the same room; alone it has to fit.
        assert assess(after, line[0]).fits or any(
            not assess(snapshot, other[0]).borrows for key, other in snapshot.lines.items() if key != name
        )


@settings(max_examples=60, deadline=None)
@given(trees(), steps)
def test_everybody_gets_in_when_running_jobs_end(tree, history):
    snapshot, doomed = live_through(tree, history)
    snapshot = replace(snapshot, now_ms=10**9)  # everybody has been patient
    waiting = {w.id for w in snapshot.pending}
    for _ in range(3 * len(history) + 3):
        snapshot = advance(snapshot, doomed)
        waiting -= {h.workload.id for h in snapshot.holders}
        if snapshot.holders:
            snapshot = snapshot.with_released(snapshot.holders[0].workload)
    assert not waiting
