"""Quota arithmetic: Kueue's formulas on examples, and their invariants on anything."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.quota.limits import STORAGE_LIMIT, Amounts, Queue, Quotas, ResourceQuota
from guard_core.errors import UserError


def quotas(**limits: tuple[int, int | None, int | None]) -> Quotas:
    """Queues of one cohort with (nominal, borrowing limit, lending limit) of CPU."""
    return Quotas({n: Queue(n, n, "pool", {"cpu_milli": ResourceQuota(*v)}) for n, v in limits.items()})


def cpu(**used: int) -> dict[str, Amounts]:
    return {name: Amounts({"cpu_milli": value}) for name, value in used.items()}


def test_a_queue_without_cohort_has_its_nominal_quota_and_no_more():
    alone = Quotas({"a": Queue("a", "a", None, {"cpu_milli": ResourceQuota(2000)})})
    assert alone.available("a", "cpu_milli", {}) == 2000
    assert alone.available("a", "cpu_milli", cpu(a=500)) == 1500
    assert alone.potential("a", "cpu_milli") == 2000


def test_an_idle_neighbour_lends_all_of_its_quota_when_no_limit_is_set():
    both = quotas(a=(2000, None, None), b=(3000, None, None))
    assert both.available("a", "cpu_milli", {}) == 5000


def test_a_borrowing_limit_caps_what_a_queue_takes_from_others():
    both = quotas(a=(2000, 500, None), b=(3000, None, None))
    assert both.available("a", "cpu_milli", {}) == 2500
    assert both.potential("a", "cpu_milli") == 2500


def test_a_lending_limit_keeps_the_rest_for_the_owner():
    both = quotas(a=(2000, None, None), b=(3000, None, 1000))
    assert both.available("a", "cpu_milli", {}) == 3000
    taken = cpu(a=3000)
    assert both.available("b", "cpu_milli", taken) == 2000
    assert both.borrowed("a", "cpu_milli", taken) == 1000


def test_a_quota_lowered_below_what_runs_shows_as_negative_room():
    alone = Quotas({"a": Queue("a", "a", None, {"cpu_milli": ResourceQuota(1000)})})
    assert alone.available("a", "cpu_milli", cpu(a=1500)) == -500


def test_a_resource_the_queue_does_not_name_is_never_available():
    both = quotas(a=(2000, None, None), b=(3000, None, None))
    assert both.available("a", "gpu_milli", {}) == 0
    assert both.potential("a", "gpu_milli") == 0


@pytest.mark.parametrize("value", [1.5, True, "1", -1, STORAGE_LIMIT + 1, None])
def test_an_amount_that_is_not_a_storable_integer_is_refused(value):
    with pytest.raises(UserError, match="amount of cpu_milli"):
        Amounts({"cpu_milli": value})


def test_sums_beyond_what_the_ledger_can_store_are_refused_rather_than_wrapped():
    with pytest.raises(UserError):
        Amounts({"cpu_milli": STORAGE_LIMIT}) + Amounts({"cpu_milli": 1})


def test_amounts_are_values_that_travel_between_processes():
    one = Amounts({"jobs": 1, "cpu_milli": 0})
    assert one == pickle.loads(pickle.dumps(one)) == Amounts({"jobs": 1})
    assert hash(one) == hash(Amounts({"jobs": 1}))


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({}, "`queues` is missing"),
        ({"queues": {"a": {}}}, "queue a is malformed"),
        (
            {"queues": {"a": {"tenant": "a", "resources": {"jobs": {"nominal": -1}}}}},
            "queue a: quota nominal",
        ),
        (
            {"queues": {"a": {"tenant": "a", "cohort": "x", "resources": {}}}},
            "cohort x, which does not exist",
        ),
    ],
)
def test_a_malformed_quota_file_is_named(config, fault):
    with pytest.raises(UserError, match=fault):
        Quotas.from_config(config)


def test_a_tenant_reaches_only_its_own_queues():
    both = quotas(a=(1, None, None), b=(1, None, None))
    assert both.queue_of("a").name == "a"
    with pytest.raises(UserError, match="tenant a has no queue 'b'"):
        both.queue_of("a", "b")
    with pytest.raises(UserError, match="tenant c has no queue"):
        both.queue_of("c")


limit = st.one_of(st.none(), st.integers(0, 6))
cohort = st.lists(st.builds(ResourceQuota, st.integers(0, 6), limit, limit), min_size=1, max_size=5).map(
    lambda all_: Quotas({f"q{i}": Queue(f"q{i}", f"q{i}", "pool", {"jobs": q}) for i, q in enumerate(all_)})
)
requests = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=40)


def replay(tree: Quotas, steps: list[tuple[int, int, bool]]) -> dict[str, Amounts]:
    """Reserve what fits and sometimes give the oldest reservation of a queue back."""
    held: dict[str, list[int]] = {name: [] for name in tree.queues}
    for index, size, release in steps:
        name = f"q{index % len(tree.queues)}"
        if release and held[name]:
            held[name].pop(0)
        elif size <= tree.available(name, "jobs", totals(held)):
            held[name].append(size)
    return totals(held)


def totals(held: dict[str, list[int]]) -> dict[str, Amounts]:
    return {name: Amounts({"jobs": sum(sizes)}) for name, sizes in held.items()}


@settings(max_examples=200, deadline=None)
@given(cohort, requests)
def test_no_sequence_of_admissions_exceeds_quota_plus_borrowing_limit(tree, steps):
    usage = replay(tree, steps)
    for name, queue in tree.queues.items():
        quota = queue.quota("jobs")
        if quota.borrowing_limit is not None:
            assert usage[name]["jobs"] <= quota.nominal + quota.borrowing_limit
        assert usage[name]["jobs"] <= tree.potential(name, "jobs")


@settings(max_examples=200, deadline=None)
@given(cohort, requests)
def test_a_cohort_never_uses_more_than_its_queues_have_together(tree, steps):
    usage = replay(tree, steps)
    assert sum(u["jobs"] for u in usage.values()) <= sum(
        q.quota("jobs").nominal for q in tree.queues.values()
    )


@settings(max_examples=200, deadline=None)
@given(cohort, requests)
def test_what_a_queue_does_not_lend_is_always_left_for_it(tree, steps):
    usage = replay(tree, steps)
    for name, queue in tree.queues.items():
        kept = queue.quota("jobs").guaranteed - usage[name]["jobs"]
        assert tree.available(name, "jobs", usage) >= max(0, kept)


@settings(max_examples=100, deadline=None)
@given(cohort, requests, st.randoms())
def test_room_depends_on_what_is_reserved_and_not_on_the_order_it_came_in(tree, steps, random):
    usage = replay(tree, steps)
    names = list(usage)
    random.shuffle(names)
    shuffled = Quotas({name: tree.queues[name] for name in names})
    for name in names:
        assert tree.available(name, "jobs", usage) == shuffled.available(
            name, "jobs", {n: usage[n] for n in names}
        )
