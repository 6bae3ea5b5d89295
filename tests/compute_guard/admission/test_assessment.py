"""Queue order and assessments, on immutable snapshots."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.admission.assessment import assess
from compute_guard.admission.round import decide_round, next_admissible
from compute_guard.admission.snapshot import Snapshot
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import Amounts, Queue, Quotas, ResourceQuota

QUOTAS = Quotas(
    {
        "acme": Queue(
            "acme", "acme", "pool", {"jobs": ResourceQuota(4), "cpu_milli": ResourceQuota(2000, 500)}
        ),
        "beta": Queue(
            "beta", "beta", "pool", {"jobs": ResourceQuota(4), "cpu_milli": ResourceQuota(1000, 0, 0)}
        ),
    }
)


def job(name: str, queue: str = "acme", cpu: int = 1000, age: int = 0, priority: int = 0) -> Workload:
    return Workload(
        id=name,
        tenant=queue,
        user="u",
        queue=queue,
        requests=Amounts({"jobs": 1, "cpu_milli": cpu}),
        entrypoint="x",
        created_ns=100 - age,
        priority=priority,
    )


def test_higher_priority_goes_first_and_then_the_older():
    young, old, urgent = job("young", age=1), job("old", age=9), job("urgent", priority=5)
    line = Snapshot(QUOTAS, pending=(young, old, urgent)).waiting_in("acme")
    assert [w.id for w in line] == ["urgent", "old", "young"]


def test_a_large_job_at_the_head_is_not_passed_by_a_small_one_behind_it():
    big, small = job("big", cpu=2000, age=9), job("small", cpu=100)
    snapshot = Snapshot(QUOTAS, usage={"acme": Amounts({"cpu_milli": 1000})}, pending=(big, small))
    assert next_admissible(snapshot) is None
    assert assess(snapshot, small).ahead == ("big",)


def test_one_queue_that_waits_does_not_hold_another():
    big, other = job("big", cpu=2000, age=9), job("other", queue="beta", cpu=500)
    snapshot = Snapshot(QUOTAS, usage={"acme": Amounts({"cpu_milli": 1000})}, pending=(big, other))
    assert next_admissible(snapshot) == other


def test_a_queue_on_hold_admits_nothing_and_says_why():
    waiting = job("waiting")
    snapshot = Snapshot(QUOTAS, pending=(waiting,), holds={"acme": "incident inc-7"})
    assert next_admissible(snapshot) is None
    assert assess(snapshot, waiting).waits_for()[0] == (
        "queue-on-hold",
        "queue acme is on hold: incident inc-7",
    )


def test_who_stays_within_its_own_quota_goes_before_who_borrows():
    lenders = Quotas(
        {n: Queue(n, n, "pool", {"jobs": ResourceQuota(9), "cpu_milli": ResourceQuota(1000)}) for n in "ab"}
    )
    borrower, owner = job("borrower", queue="a", cpu=1500, age=9), job("owner", queue="b", cpu=1000)
    picks = decide_round(Snapshot(lenders, pending=(borrower, owner))).picks
    assert [pick.workload for pick in picks] == [owner]


def test_the_numbers_that_hold_a_job_are_told():
    snapshot = Snapshot(QUOTAS, usage={"acme": Amounts({"cpu_milli": 1500, "jobs": 1})})
    held = assess(snapshot, job("late", cpu=1500))
    assert not held.fits
    assert held.ever_fits
    assert held.waits_for() == (("quota-busy", "cpu: asks 1.5, queue acme has 0.5 free (1.5 of 2 in use)"),)
    assert held.to_input()["resources"]["cpu_milli"] == {
        "nominal": 2000,
        "used": 1500,
        "borrowing_limit": 500,
        "available": 500,
        "requested": 1500,
        "fits": False,
        "ever_fits": True,
        "potential": 2000,
    }


def test_a_job_that_can_never_fit_is_told_apart_from_one_that_waits():
    assert not assess(Snapshot(QUOTAS), job("huge", cpu=9000)).ever_fits


def test_a_request_of_nothing_fits_even_when_quota_was_cut_below_use():
    snapshot = Snapshot(QUOTAS, usage={"acme": Amounts({"cpu_milli": 9000})})
    assert assess(snapshot, job("tiny", cpu=0)).fits


jobs = st.lists(
    st.tuples(st.sampled_from(["acme", "beta"]), st.integers(0, 2500), st.integers(0, 5), st.integers(0, 2)),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(jobs, st.randoms())
def test_admission_does_not_depend_on_the_order_the_jobs_are_listed_in(specs, random):
    pending = [job(f"j{i}", queue, cpu, age, prio) for i, (queue, cpu, age, prio) in enumerate(specs)]
    shuffled = list(pending)
    random.shuffle(shuffled)
    assert admit_all(Snapshot(QUOTAS, pending=tuple(pending))) == admit_all(
        Snapshot(QUOTAS, pending=tuple(shuffled))
    )


@settings(max_examples=150, deadline=None)
@given(jobs)
def test_the_whole_line_runs_dry_when_reservations_are_given_back(specs):
    """No starvation: with every job able to fit alone, and each running job ending some day, all get in."""
    snapshot = Snapshot(
        QUOTAS, pending=tuple(job(f"j{i}", q, c, a, p) for i, (q, c, a, p) in enumerate(specs))
    )
    possible = {w.id for w in snapshot.pending if assess(snapshot, w).ever_fits}
    snapshot = Snapshot(QUOTAS, pending=tuple(w for w in snapshot.pending if w.id in possible))
    admitted, running = set(), []
    for _ in range(2 * len(specs) + 1):
        while (head := next_admissible(snapshot)) is not None:
            snapshot = snapshot.with_reserved(head)
            admitted.add(head.id)
            running.append(head)
        if running:
            snapshot = snapshot.with_released(running.pop(0))
    assert admitted == possible


def admit_all(snapshot: Snapshot) -> list[str]:
    order = []
    while (head := next_admissible(snapshot)) is not None:
        order.append(head.id)
        snapshot = snapshot.with_reserved(head)
    return order


CAPPED = Quotas(
    {
        "acme": Queue(
            "acme",
            "acme",
            None,
            {"jobs": ResourceQuota(9), "cpu_milli": ResourceQuota(9000)},
            per_user={"cpu_milli": 2000},
        )
    }
)


def of_user(name: str, user: str, cpu: int = 1000, age: int = 0) -> Workload:
    return replace(job(name, cpu=cpu, age=age), user=user)


def test_a_user_at_the_cap_waits_and_is_told_the_numbers():
    snapshot = Snapshot(CAPPED, user_usage={("acme", "ada"): Amounts({"cpu_milli": 2000})})
    assessment = assess(snapshot, of_user("next", "ada"))
    assert not assessment.fits
    assert assessment.ever_fits
    assert assessment.waits_for() == (
        ("user-busy", "cpu: asks 1, user ada may hold 2 in queue acme and holds 2"),
    )
    assert assessment.to_input()["resources"]["cpu_milli"]["user_fits"] is False


def test_who_waits_for_the_own_cap_keeps_nobody_else_waiting():
    mine, theirs = of_user("mine", "ada", age=9), of_user("theirs", "bob")
    snapshot = Snapshot(
        CAPPED, pending=(mine, theirs), user_usage={("acme", "ada"): Amounts({"cpu_milli": 2000})}
    )
    assert next_admissible(snapshot) == theirs
    assert assess(snapshot, theirs).ahead == ()


def test_more_than_a_user_may_ever_hold_can_never_fit_and_stays_at_the_head_to_be_refused():
    huge = of_user("huge", "ada", cpu=3000)
    snapshot = Snapshot(CAPPED, pending=(huge,))
    assert not assess(snapshot, huge).ever_fits
    behind = of_user("behind", "bob", cpu=1, age=-1)
    assert next_admissible(replace(snapshot, pending=(huge, behind))) is None


def test_a_queue_without_caps_says_nothing_of_users():
    numbers = assess(Snapshot(QUOTAS), job("plain")).to_input()["resources"]["cpu_milli"]
    assert not any(name.startswith("user_") for name in numbers)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2500), st.booleans()), min_size=1, max_size=30)
)
def test_no_user_ever_holds_more_than_the_cap_and_nobody_below_it_starves(events):
    snapshot, running = Snapshot(CAPPED), []
    for number, (user, cpu, ends) in enumerate(events):
        snapshot = replace(
            snapshot, pending=(*snapshot.pending, of_user(f"w{number:02}", user, cpu, age=-number))
        )
        if ends and running:
            snapshot = snapshot.with_released(running.pop(0))
        while (head := next_admissible(snapshot)) is not None:
            snapshot = snapshot.with_reserved(head)
            running.append(head)
        for (_, _), held in snapshot.user_usage.items():
            assert held["cpu_milli"] <= 2000
    for finished in list(running):
        snapshot = snapshot.with_released(finished)
    while (head := next_admissible(snapshot)) is not None:
        snapshot = snapshot.with_released(head) if head in running else snapshot.with_reserved(head)
        snapshot = snapshot.with_released(head)
    assert all(not assess(snapshot, left).ever_fits for left in snapshot.pending[:1])
