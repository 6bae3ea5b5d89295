"""A tree of cohorts is passed over only where a round has nothing to do in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.admission.quiet_trees import LOOK_AGAIN_MS, QuietTrees
from compute_guard.admission.round import decide_round
from compute_guard.admission.snapshot import Holder, Snapshot
from compute_guard.admission.workload import Workload
from compute_guard.ledger.mirror import Mirror
from compute_guard.quota.limits import Amounts, Preemption, Queue, Quotas, ResourceQuota

RULES = Preemption("any", "lower_priority")
QUOTAS = Quotas(
    {
        name: Queue(name, name, name[0], {"jobs": ResourceQuota(2)}, preemption=RULES)
        for name in ("a1", "a2", "b1")
    }
)
A, B = (QUOTAS.tree.root[QUOTAS.nodes[name]] for name in ("a1", "b1"))


def job(name: str, queue: str, size: int = 1, priority: int = 0) -> Workload:
    return Workload(
        id=name,
        tenant=queue,
        user="u",
        queue=queue,
        requests=Amounts({"jobs": size}),
        entrypoint="x",
        created_ns=0,
        priority=priority,
    )


def seen(mirror: Mirror, now_ms: int = 0) -> Snapshot:
    return mirror.snapshot(QUOTAS, now_ms=now_ms, shut={})


@pytest.fixture
def full() -> Mirror:
    """Both trees full, and a job waiting in each."""
    mirror = Mirror(0, Snapshot(QUOTAS))
    for name in ("a1", "a2", "b1"):
        mirror.reserved(Holder(job(f"runs-{name}", name, 2), Amounts({"jobs": 2})))
    mirror.joined(job("wait-a", "a1"))
    mirror.joined(job("wait-b", "b1"))
    return mirror


@pytest.fixture
def quiet(full) -> QuietTrees:
    trees = QuietTrees()
    assert trees.others(seen(full), "r1") == {A, B}
    trees.note(seen(full), {A, B})
    assert trees.others(seen(full), "r1") == set()
    return trees


def test_a_tree_is_looked_at_again_when_a_job_in_it_has_ended(full, quiet):
    full.given_back("runs-a2")
    assert quiet.others(seen(full), "r1") == {A}


def test_a_tree_is_looked_at_again_when_a_job_has_joined_a_line_of_it(full, quiet):
    full.joined(job("new", "b1"))
    assert quiet.others(seen(full), "r1") == {B}


def test_a_tree_is_looked_at_again_when_a_priority_was_changed(full, quiet):
    full.prioritised("wait-a", 9)
    assert quiet.others(seen(full), "r1") == {A}


@pytest.mark.parametrize(
    "change",
    [
        lambda s: (s, "r2"),
        lambda s: (replace(s, quotas=Quotas(QUOTAS.queues)), "r1"),
        lambda s: (replace(s, shut={"h100": "maintenance"}), "r1"),
        lambda s: (replace(s, holds={"a1": "stop"}), "r1"),
        lambda s: (replace(s, now_ms=LOOK_AGAIN_MS), "r1"),
        lambda s: (replace(s, now_ms=-1), "r1"),
    ],
    ids=["policies", "quotas", "maintenance", "hold", "time", "clock that went back"],
)
def test_all_are_looked_at_again_when_something_else_has_changed(full, quiet, change):
    assert quiet.others(*change(seen(full))) == {A, B}


steps = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "finish", "idle"]),
        st.sampled_from(sorted(QUOTAS.queues)),
        st.integers(1, 3),
        st.integers(0, 2),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_no_round_passes_over_anybody_it_would_let_in_or_take_out(history):
    mirror, quiet = Mirror(0, Snapshot(QUOTAS)), QuietTrees()
    for number, (what, queue, size, priority) in enumerate(history):
        if what == "submit":
            mirror.joined(job(f"j{number:02}", queue, size, priority))
        elif what == "finish" and mirror.holders:
            leaving = [name for name, holder in mirror.holders.items() if holder.evicting]
            mirror.given_back([*leaving, *mirror.holders][0])
        snapshot = seen(mirror)
        trees = quiet.others(snapshot, "r")
        round_ = decide_round(snapshot, only=trees)
        assert replace(round_, deeper=False) == replace(decide_round(snapshot), deeper=False)
        quiet.note(snapshot, trees - round_.stirred)
        for pick in round_.picks:
            mirror.reserved(Holder(pick.workload, pick.way.amounts, pick.way.flavor))
        for one in round_.displaced:
            mirror.noticed(one.holder.workload.id)
        if not round_.displaced and not round_.deeper:
            quiet.note(seen(mirror), trees)  # as a round does whose picks were all let in
