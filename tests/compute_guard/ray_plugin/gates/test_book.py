"""The lease book: sums are right whatever the order, and nothing counts twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.book import Lease, LeaseBook

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "drop", "settle", "idle", "job", "node"]),
        st.integers(0, 5),
        st.integers(0, 2000),
    ),
    max_size=40,
)


def lease(number: int, amount: int = 1000, **more: str) -> Lease:
    values = {
        "id": f"l{number}",
        "workload": f"w{number % 2}",
        "job": f"j{number % 3}",
        "node": f"n{number % 2}",
    }
    return Lease(**{**values, **more}, amounts=Amounts({"cpu_milli": amount}))


@given(STEPS)
def test_what_a_workload_holds_is_the_sum_of_its_leases(steps):
    book = LeaseBook()
    for step, number, amount in steps:
        if step == "add":
            book.add(lease(number, amount))
        elif step == "drop":
            book.drop(f"l{number}")
        elif step == "settle":
            book.settle(f"l{number}", f"worker{number}")
        elif step == "idle":
            book.change_idle(f"n{number % 2}", f"w{number % 2}", {"cpu_milli": amount - 1000})
        elif step == "job":
            book.drop_groups(f"j{number % 3}")
        else:
            book.drop_node(f"n{number % 2}")
        for workload in ("w0", "w1"):
            own = [held.amounts["cpu_milli"] for held in book.leases() if held.workload == workload]
            assert book.held(workload)["cpu_milli"] == sum(own)


def test_a_lease_that_is_booked_twice_counts_once():
    book = LeaseBook()
    book.add(lease(1))
    book.add(lease(1))
    assert book.held("w1") == Amounts({"cpu_milli": 1000})
    assert book.drop("l1") is not None
    assert book.drop("l1") is None
    assert book.held("w1") == Amounts()


def test_a_worker_is_known_by_its_lease_as_long_as_that_is_booked():
    book = LeaseBook()
    book.add(lease(1))
    book.settle("l1", "worker")
    assert book.of_worker("another") is None
    assert book.of_worker("worker").id == "l1"
    book.drop("l1")
    assert book.of_worker("worker") is None


def test_what_a_node_keeps_counts_as_held_and_says_when_more_is_taken_than_there_is():
    book = LeaseBook()
    assert book.change_idle("n1", "w1", {"cpu_milli": 700, "workers": 1})
    assert book.idle_at("w1") == ("n1",)
    assert book.held("w1") == Amounts({"cpu_milli": 700, "workers": 1})
    assert not book.change_idle("n1", "w1", {"cpu_milli": -800, "workers": -1})
    assert (book.held("w1"), book.idle_at("w1"), len(book)) == (Amounts(), (), 0)


def test_only_a_jobs_placement_groups_are_the_heads_own_to_drop():
    book = LeaseBook()
    book.add(lease(1))
    book.add(lease(4, node=""))
    assert book.drop_groups("j1") == 1
    assert [held.id for held in book.leases()] == ["l1"]


def test_a_nodes_own_account_replaces_what_was_known_of_it():
    book = LeaseBook()
    for number in (0, 1, 2):
        book.add(lease(number))
    book.replace_node("n0", [lease(2), lease(4)])
    assert sorted(held.id for held in book.leases()) == ["l1", "l2", "l4"]


def test_only_what_is_asked_for_must_fit():
    book = LeaseBook()
    book.add(lease(1))
    more = Amounts({"cpu_milli": 500})
    assert book.fits("w1", more, {"cpu_milli": 1500})
    assert not book.fits("w1", more, {"cpu_milli": 1499})
    assert book.fits("w1", Amounts(), {})
    assert not book.fits("w1", Amounts({"gpu_milli": 1}), {"cpu_milli": 9000})
