"""Where work without CPU may not land, decided without a cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")

from ray.core.generated import common_pb2

from compute_guard.ray_plugin.gates.book import Lease
from compute_guard.ray_plugin.gates.cordons import REASON, Cordons
from compute_guard.ray_plugin.gates.demand import demand_of
from compute_guard.ray_plugin.gates.fence import fence_bundle, fence_spec
from compute_guard.ray_plugin.gates.nodes import NodeFact, Nodes
from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.errors import Undecidable

SMALL, LARGE = b"\x01", b"\x02"


@pytest.fixture
def cordons(tmp_path, still_home):
    nodes = Nodes(SimpleNamespace(), tmp_path / "gates.json")
    nodes._facts = {
        SMALL: NodeFact(SMALL, "small", "shared", False, {"CPU": 4, "GPU": 1}),
        LARGE: NodeFact(LARGE, "large", "shared", False, {"CPU": 4, "GPU": 8}),
    }
    return Cordons(still_home, nodes)


def closing(cordons, *nodes):
    """Put ``nodes`` under a cordon, and no others."""
    cordons._read = lambda: frozenset(node.hex() for node in nodes)


def away(cordons, needs, *, meanwhile=None):
    """Where it may not land, or who waits; of those that wait, the former once ``meanwhile`` was called."""
    amounts = demand_of(needs).amounts
    lease = Lease(id="l", workload="job", job="j", node="n", amounts=amounts)

    async def wanted():
        meanwhile()

    async def ask():
        task = asyncio.ensure_future(cordons.keep_away(lease, ["shared"], [(amounts, needs)], wanted))
        while not (task.done() or cordons.held()):
            await asyncio.sleep(0.01)
        held = cordons.held()
        if held and meanwhile is None:
            task.cancel()
            return held
        return await task

    return asyncio.run(ask())


def test_without_a_cordon_and_for_work_with_cpu_every_node_is_open(cordons):
    assert away(cordons, {"GPU": 1.0}) == (frozenset(),)
    closing(cordons, SMALL, LARGE)
    assert away(cordons, {"CPU": 1.0, "GPU": 1.0}) == (frozenset(),)


def test_work_without_cpu_goes_where_it_fits_and_waits_where_only_a_cordoned_node_could_take_it(cordons):
    closing(cordons, LARGE)
    assert away(cordons, {"GPU": 1.0}) == (frozenset({LARGE.hex()}),)
    waits = away(cordons, {"GPU": 4.0})
    assert waits == {"job": (1, demand_of({"GPU": 4.0}).amounts, REASON)}
    assert cordons.held() == {}
    assert away(cordons, {"GPU": 64.0}) == (frozenset({LARGE.hex()}),)  # no node could: Ray says so, as ever


def test_what_waits_goes_on_when_the_cordon_ends(cordons):
    closing(cordons, LARGE)
    assert away(cordons, {"GPU": 4.0}, meanwhile=lambda: closing(cordons)) == (frozenset(),)


def test_who_asks_while_cordons_are_read_gets_what_is_in_force_after_it_asked(cordons):
    order = iter([frozenset(), frozenset({SMALL.hex()})])
    reads = []

    def read():
        reads.append(1)
        return next(order)

    cordons._read = read

    async def ask():
        return await asyncio.gather(*(cordons.in_force() for _ in range(5)))

    first, *others = asyncio.run(ask())
    assert first == frozenset()
    assert set(others) <= {frozenset(), frozenset({SMALL.hex()})}
    assert len(reads) <= 2  # however many ask at once


def test_cordons_that_cannot_be_read_let_nothing_through(cordons):
    def broken():
        raise Undecidable("the database is locked")

    cordons._read = broken
    with pytest.raises(Refusal, match="the database is locked"):
        away(cordons, {"GPU": 1.0})


def test_the_head_a_tenant_sees_is_another_node_while_it_is_cordoned(cordons):
    nodes = cordons._nodes
    assert nodes.head_for(["shared"]) == SMALL.hex()
    assert nodes.head_for(["shared"], frozenset({SMALL.hex()})) == LARGE.hex()
    assert nodes.head_for(["shared"], frozenset({SMALL.hex(), LARGE.hex()})) == SMALL.hex()
    assert nodes.head_for(["shared"]) == SMALL.hex()


def test_a_closed_node_is_left_out_of_every_selector_of_a_lease_and_of_a_bundle():
    spec, bundle = common_pb2.LeaseSpec(), common_pb2.Bundle()
    spec.fallback_strategy.options.add()
    fence_spec(spec, ["shared"], "", ["02"])
    fence_bundle(bundle, ["shared"], ["02", "03"])
    for selector in (spec.label_selector, spec.fallback_strategy.options[0].label_selector):
        _, node = selector.label_constraints
        assert (node.label_key, list(node.label_values)) == ("ray.io/node-id", ["02"])
        assert node.operator == common_pb2.LabelSelectorOperator.LABEL_OPERATOR_NOT_IN
    assert bundle.label_selector["ray.io/node-id"] == "!in(02,03)"
