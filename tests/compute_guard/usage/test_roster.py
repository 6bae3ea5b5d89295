"""Leases as columns say of every device what the book says of each."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.roster import Classes, roster

COLUMNS = {f"n/GPU-{place}": place for place in range(4)}

leases = st.builds(
    Lease,
    device=st.sampled_from([*COLUMNS, "n/GPU-nobody-speaks-of"]),
    tenant=st.sampled_from(["", "acme", "beta"]),
    job=st.sampled_from(["j1", "j2", "j3"]),
    start_ns=st.integers(0, 20),
    end_ns=st.none() | st.integers(0, 20),
    gpu_milli=st.integers(1, 1000),
    kind=st.sampled_from(["", "batch", "service"]),
    granted_milli=st.none() | st.integers(0, 2000),
)
books = st.lists(leases, max_size=8).map(LeaseBook.of)


@settings(max_examples=80, deadline=None)
@given(books, st.integers(0, 20))
def test_the_leases_that_hold_now_are_the_books(book, at_ns):
    found = roster(book, COLUMNS, len(COLUMNS))
    held = [(int(found.column[row]), found.leases[row]) for row in found.active(at_ns).tolist()]
    for key, column in COLUMNS.items():
        assert tuple(lease for place, lease in held if place == column) == book.on(key, at_ns)
    assert len(held) == sum(lease.active(at_ns) and lease.device in COLUMNS for lease in book.leases)


@settings(max_examples=80, deadline=None)
@given(books, st.integers(0, 20), st.integers(0, 20))
def test_who_had_a_device_to_itself_is_who_the_book_says(book, start, length):
    found = roster(book, COLUMNS, len(COLUMNS))
    places = np.arange(len(COLUMNS))
    whole, row = found.sole(places, np.full(4, start), np.full(4, start + length))
    for key, column in COLUMNS.items():
        owner = book.sole_owner(key, start, start + length)
        assert bool(whole[column]) == (owner is not None)
        if owner is not None:
            tenant, job = ("", "") if row[column] < 0 else found.jobs[found.job[row[column]]]
            assert (owner.tenant, owner.job) == ((tenant, job) if tenant else ("", ""))
            assert (owner.reason == "idle") == (row[column] < 0)


@settings(max_examples=80, deadline=None)
@given(books, st.integers(0, 20))
def test_a_device_with_jobs_of_several_kinds_is_shared(book, at_ns):
    found = roster(book, COLUMNS, len(COLUMNS))
    code, names = found.kinds_of(found.active(at_ns), len(COLUMNS))
    for key, column in COLUMNS.items():
        kinds = {lease.kind for lease in book.on(key, at_ns) if lease.kind}
        expected = "" if not kinds else "shared" if len(kinds) > 1 else kinds.pop()
        assert names[code[column]] == expected


def test_classes_are_told_by_device():
    given = [("batch", "H100"), ("service", "H100"), ("batch", "H100")]
    classes = Classes.of(given)
    assert [classes[device] for device in range(len(classes))] == given
    assert len(classes.names) == 2
