"""The fence around what a tenant asks for."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from ray._raylet import RAY_NODE_ID_KEY
from ray.core.generated import common_pb2, gcs_service_pb2

from compute_guard.ray_plugin.gates.fence import HEAD_RESOURCE, NOWHERE, fence_bundle, fence_spec
from compute_guard.ray_plugin.gates.replies import View, all_node_info
from compute_guard.ray_plugin.gates.tenancy import Jobs


@pytest.mark.parametrize("kind", [common_pb2.LeaseSpec, common_pb2.TaskSpec])
def test_a_wish_for_the_head_is_sent_to_the_tenants_own_and_everything_else_stays(kind):
    from ray._common.constants import HEAD_NODE_RESOURCE_NAME

    assert HEAD_RESOURCE == HEAD_NODE_RESOURCE_NAME
    spec = kind()
    spec.required_resources.update({HEAD_RESOURCE: 0.001, "CPU": 1.0})
    spec.required_placement_resources.update({HEAD_RESOURCE: 0.001})
    spec.fallback_strategy.options.add()
    fence_spec(spec, ["acme", "shared"], "ab12")
    assert dict(spec.required_resources) == {"CPU": 1.0}
    assert not spec.required_placement_resources
    wish, pools = spec.label_selector.label_constraints
    assert (wish.label_key, list(wish.label_values)) == (RAY_NODE_ID_KEY, ["ab12"])
    for constraint in (pools, spec.fallback_strategy.options[0].label_selector.label_constraints[0]):
        assert list(constraint.label_values) == ["acme", "shared"]


def test_who_does_not_wish_for_the_head_may_go_anywhere_in_its_pools():
    spec = common_pb2.LeaseSpec()
    fence_spec(spec, ["acme"], "ab12")
    assert [one.label_key for one in spec.label_selector.label_constraints] == ["trainguard.io/pool"]


def test_a_tenant_is_shown_the_node_that_stands_for_the_head(tmp_path):
    reply = gcs_service_pb2.GetAllNodeInfoReply()
    for name, pool in ((b"a", "head"), (b"b", "shared"), (b"c", "acme"), (b"d", "beta")):
        reply.node_info_list.add(node_id=name, labels={"trainguard.io/pool": pool})
    view = View("acme", Jobs(tmp_path / "jobs.jsonl"), {"acme", "shared"}, {b"b", b"c"}, b"b".hex())
    all_node_info(reply, view)
    assert [(n.node_id, HEAD_RESOURCE in n.resources_total) for n in reply.node_info_list] == [
        (b"b", True),
        (b"c", False),
    ]


def test_a_bundle_is_fenced_too_and_without_a_pool_nowhere_is_left():
    bundle = common_pb2.Bundle()
    bundle.unit_resources.update({HEAD_RESOURCE: 0.001, "GPU": 1.0})
    fence_bundle(bundle, [])
    assert dict(bundle.unit_resources) == {"GPU": 1.0}
    assert bundle.label_selector["trainguard.io/pool"] == f"in({NOWHERE})"
