"""Every nanosecond of a device is somebody's, once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.usage.attribution import Lease, LeaseBook, Ledger, Use, attribute, divide

GPU = "node/GPU-1"


def lease(job, tenant="acme", **more):
    return Lease(GPU, tenant, job, **more)


def shares(*leases, uses=(), start=0, end=1000):
    return {s.owner.key: s.ns for s in attribute(GPU, start, end, LeaseBook.of(leases), uses)}


def test_an_exclusive_lease_gets_all_of_it_busy_or_idle():
    assert shares(lease("train")) == {("tenant", "acme", "train"): 1000}


def test_an_empty_device_is_the_platforms():
    assert shares() == {("system", "", ""): 1000}


def test_a_process_without_any_lease_is_unattributed():
    assert shares(uses=[Use(7, "xmrig")]) == {("unattributed", "", ""): 1000}


def test_the_platforms_own_processes_are_not_strangers():
    assert shares(uses=[Use(7, "dcgm-exporter")]) == {("system", "", ""): 1000}
    assert shares(
        lease("train", pids=frozenset({1})), uses=[Use(7, "nv-hostengine"), Use(1, "python", 50)]
    ) == {("tenant", "acme", "train"): 1000}


def test_a_platform_name_on_a_large_process_is_not_believed():
    assert shares(uses=[Use(7, "Xorg", memory_bytes=8 * 2**30)]) == {("unattributed", "", ""): 1000}


def test_a_lease_that_ends_within_the_interval_ends_there_to_the_nanosecond():
    assert shares(lease("one", end_ns=333), lease("two", "beta", start_ns=400)) == {
        ("tenant", "acme", "one"): 333,
        ("system", "", ""): 67,
        ("tenant", "beta", "two"): 600,
    }


def test_a_shared_device_is_divided_by_accounting_not_by_copying():
    both = (
        lease("a", gpu_milli=500, pids=frozenset({1})),
        lease("b", "beta", gpu_milli=500, pids=frozenset({2})),
    )
    divided = shares(*both, uses=[Use(1, weight=30), Use(2, weight=10)])
    assert divided == {("tenant", "acme", "a"): 750, ("tenant", "beta", "b"): 250}


def test_without_accounting_a_shared_device_is_divided_by_what_was_leased():
    assert shares(lease("a", gpu_milli=250), lease("b", "beta", gpu_milli=750)) == {
        ("tenant", "acme", "a"): 250,
        ("tenant", "beta", "b"): 750,
    }


def test_two_leases_on_the_whole_device_are_contested_until_accounting_settles_it():
    claims = (lease("a", pids=frozenset({1})), lease("b", "beta", pids=frozenset({2})))
    assert shares(*claims) == {("contested", "", ""): 1000}
    assert shares(*claims, uses=[Use(1, weight=50), Use(2, weight=0)]) == {("tenant", "acme", "a"): 1000}


def test_a_stranger_beside_a_lease_takes_its_own_share_only():
    mine = lease("train", pids=frozenset({1}))
    assert shares(mine, uses=[Use(1, weight=60), Use(99, "kdevtmpfsi", weight=40)]) == {
        ("tenant", "acme", "train"): 600,
        ("unattributed", "", ""): 400,
    }
    assert shares(mine, uses=[Use(1), Use(99, "kdevtmpfsi")])[("unattributed", "", "")] == 500


def test_a_lease_whose_processes_nobody_knows_is_not_accused_of_strangers():
    assert shares(lease("train"), uses=[Use(99, "python")]) == {("tenant", "acme", "train"): 1000}


def test_an_interval_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="ends before it starts"):
        attribute(GPU, 10, 5, LeaseBook())


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**9), min_size=1, max_size=12).filter(sum))
def test_parts_add_up_to_the_whole_and_none_is_off_by_more_than_one(total, weights):
    parts = divide(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) <= sum(weights)


def test_weights_that_say_nothing_are_refused():
    for weights in ([0, 0], [-1, 2]):
        with pytest.raises(ValueError, match="weights"):
            divide(10, weights)


times = st.integers(0, 1000)
leases = st.builds(
    lambda tenant, job, start, length, milli, pids: Lease(
        GPU, tenant, job, start, None if length is None else start + length, milli, pids=frozenset(pids)
    ),
    st.sampled_from(["acme", "beta", "canary"]),
    st.sampled_from(["j1", "j2", "j3"]),
    times,
    st.one_of(st.none(), times),
    st.sampled_from([1, 250, 333, 500, 1000]),
    st.sets(st.integers(1, 6), max_size=2),
)
uses = st.builds(
    Use,
    st.integers(1, 9),
    st.sampled_from(["python", "Xorg", "xmrig"]),
    st.one_of(st.none(), st.integers(0, 100)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(leases, max_size=6), st.lists(uses, max_size=6, unique_by=lambda u: u.pid), times, times)
def test_whatever_happens_on_a_device_its_time_is_conserved(held, seen, start, length):
    parts = attribute(GPU, start, start + length, LeaseBook.of(held), seen)
    assert sum(part.ns for part in parts) == length
    assert all(part.ns > 0 for part in parts)
    for part in parts:
        named = bool(part.owner.tenant and part.owner.job)
        assert named == (part.owner.bucket == "tenant")


@given(st.lists(leases, max_size=5), st.lists(uses, max_size=4, unique_by=lambda u: u.pid), times)
def test_cutting_an_interval_in_two_changes_nobodys_share_by_more_than_a_rounding(held, seen, cut):
    book = LeaseBook.of(held)
    whole, halves = Ledger(), Ledger()
    whole.add(attribute(GPU, 0, 1000, book, seen))
    halves.add(attribute(GPU, 0, cut, book, seen))
    halves.add(attribute(GPU, cut, 1000, book, seen))
    assert whole.device_ns == halves.device_ns == 1000
    for key in whole.ns | halves.ns:
        assert abs(whole.ns.get(key, 0) - halves.ns.get(key, 0)) <= 2 * (len(held) + 2)


def test_ledgers_of_two_nodes_merge_into_their_sum():
    one, two = Ledger(), Ledger()
    one.add(attribute(GPU, 0, 10**9, LeaseBook.of([lease("a")])))
    two.add(attribute("node/GPU-2", 0, 10**9, LeaseBook()))
    one.merge(two)
    assert one.device_ns == 2 * 10**9
    assert next(iter(one.rows())) == {"bucket": "system", "tenant": "", "job": "", "gpu_ms": 1000}
