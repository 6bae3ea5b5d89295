"""What a node grants by itself is never more than the head counts, and nothing once its terms are gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ray")

from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.allowance import KEEP_SECONDS, LAG_SECONDS, Allowance
from compute_guard.ray_plugin.gates.book import Lease, LeaseBook
from compute_guard.ray_plugin.gates.grants import Grant, Grants
from compute_guard.ray_plugin.gates.reports import Reports

CREDIT = 8
JOB = {"tenant": "acme", "workload": "w", "job": "j"}


class Node:
    """A node's account of itself, its leases, and the messages under way from it and to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.now = 0.0
        self.allowance = Allowance(lambda: self.now)
        self.grants = Grants()
        self.out: deque[Mapping] = deque()
        self.inbox: deque[Mapping] = deque()

    def start(self, lease: str, answer: Mapping) -> None:
        self.grants.add(lease, answer)

    def uses(self) -> int:
        return sum(grant.amounts["cpu_milli"] for grant in self.grants.all())

    def end(self, lease: str, *, keep: bool) -> None:
        grant = self.grants.get(lease)
        if keep and self.allowance.keep(grant):
            self.grants.drop(lease)
            return
        self.grants.drop(lease)
        if self.allowance.ended(grant):
            self.report()
        else:
            self.out.append({"op": "release", "lease": lease})

    def report(self) -> None:
        self.allowance.trim()
        if self.allowance.active:
            self.out.append(self.allowance.report(self.grants))

    def hello(self) -> list[Lease]:
        self.out.clear()
        self.inbox.clear()
        self.allowance.clear()
        return [booked(self.name, grant.to_json()) for grant in self.grants.all()]

    def hear(self, message: Mapping) -> None:
        op = message["op"]
        if op == "answer":
            self.allowance.learn(message["question"], message, message["asked_at"])
            self.start(message["lease"], message)
        elif op == "heard":
            self.allowance.heard(message["number"], message["terms"])
        elif op == "terms":
            self.allowance.change(message["terms"])
            self.report()
        elif op == "recall":
            self.allowance.recall(message["workload"])
            self.report()


def booked(node: str, row: Mapping) -> Lease:
    return Lease(id=row["lease"], workload="w", job="j", node=node, amounts=Amounts(row["amounts"]))


class Head:
    """The book, its nodes, and no more credit than `CREDIT`. Stands for the desk, too."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.book = LeaseBook()
        self.nodes = {node.name: node for node in nodes}
        self.reports = Reports(self.book)
        self.reports.desk = self  # type: ignore[assignment]
        self.terms = 1
        self.distrusted: list[str] = []

    def tell(self, name: str, message: Mapping) -> None:
        self.nodes[name].inbox.append(message)

    def connected(self) -> Iterable[str]:
        return tuple(self.nodes)

    def hang_up(self, name: str) -> None:
        self.distrusted.append(name)

    def asked(self, node: Node, lease: str, cpus: int) -> None:
        amounts = Amounts({"cpu_milli": cpus})
        if not self.book.fits("w", amounts, {"cpu_milli": CREDIT}):
            self.reports.recall("w")
            return
        self.book.add(Lease(id=lease, workload="w", job="j", node=node.name, amounts=amounts))
        answer = {**JOB, "amounts": dict(amounts), "terms": str(self.terms), "keep": True}
        self.tell(
            node.name, {"op": "answer", "lease": lease, "question": cpus, "asked_at": node.now, **answer}
        )

    def takes(self, node: Node, message: Mapping) -> None:
        if message["op"] == "ask":
            self.asked(node, message["lease"], message["cpus"])
        elif message["op"] == "release":
            self.book.drop(message["lease"])
        else:
            rows = [booked(node.name, row) for row in message["granted"]]
            self.reports.take(node.name, rows, message)
            self.tell(node.name, {"op": "heard", "number": message["number"], "terms": str(self.terms)})


STEP = st.tuples(
    st.sampled_from(
        ["lease"] * 4
        + ["end"] * 3
        + ["up"] * 3
        + ["down"] * 3
        + ["report", "later", "terms", "again", "drop"]
    ),
    st.integers(0, 1),
    st.integers(1, 4),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEP, max_size=80))
def test_nodes_never_use_more_than_the_credit_whatever_is_under_way_or_lost(steps):
    nodes = [Node("n0"), Node("n1")]
    head, number = Head(nodes), 0
    for step, which, amount in steps:
        node = nodes[which]
        if step == "lease":
            number += 1
            lease = f"l{number}"
            known = node.allowance.grant(amount, lease)
            if known is not None:
                node.start(lease, known)
            else:
                node.out.append({"op": "ask", "lease": lease, "cpus": amount})
        elif step in ("end", "drop") and node.grants.all():
            node.end(node.grants.all()[0].lease, keep=step == "end")
        elif step == "up" and node.out:
            head.takes(node, node.out.popleft())
        elif step == "down" and node.inbox:
            node.hear(node.inbox.popleft())
        elif step == "report":
            node.report()
        elif step == "later":
            node.now += amount * KEEP_SECONDS / 2
        elif step == "terms":
            head.terms += 1
            head.reports.terms(str(head.terms))
        elif step == "again":  # the connection broke, or either side was killed
            head.book.replace_node(node.name, node.hello())
        assert sum(other.uses() for other in nodes) <= head.book.held("w")["cpu_milli"] <= CREDIT
    assert head.distrusted == []
    for node in nodes:
        for _ in range(4):
            node.now += KEEP_SECONDS + LAG_SECONDS
            node.report()
            while node.out or node.inbox:
                while node.out:
                    head.takes(node, node.out.popleft())
                while node.inbox:
                    node.hear(node.inbox.popleft())
    assert sum(node.uses() for node in nodes) == head.book.held("w")["cpu_milli"]


def ready() -> tuple[Node, Head]:
    """A node that has given a lease of one back, under terms the head has just confirmed."""
    node = Node("n0")
    head = Head([node])
    head.asked(node, "l1", 1)
    node.hear(node.inbox.popleft())
    node.end("l1", keep=True)
    return node, head


def test_a_lease_like_the_one_before_asks_nobody_and_the_head_hears_of_it_later():
    node, head = ready()
    assert node.allowance.grant(1, "l2")["workload"] == "w"
    node.start("l2", head.nodes["n0"].allowance._answers[1])
    assert node.allowance.grant(1, "l3") is None  # there was one
    node.grants.settle("l2", "worker")
    node.report()
    head.takes(node, node.out.popleft())
    assert [(lease.id, lease.node) for lease in head.book.leases()] == [("l2", "n0")]


def test_another_question_is_the_heads_to_answer():
    node, _ = ready()
    assert node.allowance.grant(2, "l2") is None


def test_nothing_is_granted_once_the_heads_word_is_older_than_the_lag_and_again_when_it_is_confirmed():
    node, head = ready()
    node.now += LAG_SECONDS
    assert node.allowance.grant(1, "l2") is None
    node.allowance.hear(str(head.terms), node.now)
    assert node.allowance.grant(1, "l2") is not None


def test_a_report_confirms_terms_from_when_it_was_sent():
    node, head = ready()
    node.report()
    said = node.out.popleft()
    node.now += LAG_SECONDS
    head.takes(node, said)
    node.hear(node.inbox.popleft())
    assert node.allowance.grant(1, "l2") is None


@pytest.mark.parametrize(
    "news",
    [
        {"op": "terms", "terms": "2"},
        {"op": "terms", "terms": ""},
        {"op": "recall", "workload": "w"},
    ],
)
def test_new_terms_and_a_recall_take_everything_back_at_once(news):
    node, head = ready()
    node.hear(news)
    assert node.allowance.grant(1, "l2") is None
    assert not node.allowance.keep(Grant(lease="l9", amounts={"cpu_milli": 1}, worker="", **JOB))
    head.takes(node, node.out.popleft())
    assert len(head.book) == 0


@pytest.mark.parametrize("ended", [{"workload": "w"}, {"job": "j"}])
def test_an_ended_job_gets_nothing(ended):
    node, _ = ready()
    node.allowance.forget(**ended)
    assert node.allowance.grant(1, "l2") is None


def test_an_answer_that_rests_on_no_terms_is_not_remembered():
    node = Node("n0")
    node.allowance.learn(1, {**JOB, "amounts": {"cpu_milli": 1}, "terms": "", "keep": True}, 0.0)
    assert not node.allowance.keep(Grant(lease="l1", amounts={"cpu_milli": 1}, worker="", **JOB))
    assert node.allowance.grant(1, "l2") is None


def test_what_nobody_needs_goes_back():
    node, head = ready()
    for _ in range(3):
        node.now += KEEP_SECONDS
        node.report()
    while node.out:
        head.takes(node, node.out.popleft())
    assert len(head.book) == 0
    assert not node.allowance.active


def test_a_node_that_used_more_than_is_booked_is_asked_what_it_has():
    node, head = ready()
    node.report()
    head.takes(node, node.out.popleft())
    head.book.change_idle("n0", "w", {"cpu_milli": -1})
    node.start("l2", node.allowance.grant(1, "l2"))
    node.report()
    head.takes(node, node.out.popleft())
    assert head.distrusted == ["n0"]
