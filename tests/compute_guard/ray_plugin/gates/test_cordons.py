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

SMALL, LARGE = b"\x01", b"\x02"


@pytest.fixture
def cordons(tmp_path, still_home):
    nodes = Nodes(SimpleNamespace(), tmp_path / "gates.json")
    nodes._facts = {
        SMALL: NodeFact(SMALL, "small", "shared", False, {"CPU": 4, "GPU": 1}),
        LARGE: NodeFact(LARGE, "large", "shared", False, {"CPU": 4, "GPU": 8}),
    }
    return Cordons(still_home, nodes, lambda: None)


def away(cordons, needs, *, cancel_after=None):
    """Where it may not land; None when it still waits after a while."""
    amounts = demand_of(needs).amounts
    lease = Lease(id="l", workload="job", job="j", node="n", amounts=amounts)

    async def ask():
        async def wanted():
            if cancel_after:
                cancel_after()

        asking = cordons.keep_away(lease, ["shared"], [(amounts, needs)], wanted)
        task = asyncio.ensure_future(asking)
        await asyncio.sleep(0)
        held = cordons.held()
        if not task.done() and cancel_after is None:
            task.cancel()
            return held
        return await task

    return asyncio.run(ask())


def test_without_a_cordon_and_for_work_with_cpu_every_node_is_open(cordons):
    assert away(cordons, {"GPU": 1.0}) == (frozenset(),)
    cordons._ids = frozenset({SMALL.hex(), LARGE.hex()})
    assert away(cordons, {"CPU": 1.0, "GPU": 1.0}) == (frozenset(),)


def test_work_without_cpu_goes_where_it_fits_and_waits_where_only_a_cordoned_node_could_take_it(cordons):
    cordons._ids = frozenset({LARGE.hex()})
    assert away(cordons, {"GPU": 1.0}) == (cordons._ids,)
    waits = away(cordons, {"GPU": 4.0})
    assert waits == {"job": (1, demand_of({"GPU": 4.0}).amounts, REASON)}
    assert cordons.held() == {}
    assert away(cordons, {"GPU": 64.0}) == (cordons._ids,)  # no node could: Ray says so, as ever


def test_what_waits_goes_on_when_the_cordon_ends(cordons):
    cordons._ids = frozenset({LARGE.hex()})

    def undone():
        cordons._ids = frozenset()

    assert away(cordons, {"GPU": 4.0}, cancel_after=undone) == (frozenset(),)


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
