"""The fence around what a tenant asks for."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from ray.core.generated import common_pb2

from compute_guard.ray_plugin.gates.fence import HEAD_RESOURCE, NOWHERE, fence_bundle, fence_spec


@pytest.mark.parametrize("kind", [common_pb2.LeaseSpec, common_pb2.TaskSpec])
def test_a_wish_for_the_head_is_dropped_and_everything_else_stays(kind):
    from ray._common.constants import HEAD_NODE_RESOURCE_NAME

    assert HEAD_RESOURCE == HEAD_NODE_RESOURCE_NAME
    spec = kind()
    spec.required_resources.update({HEAD_RESOURCE: 0.001, "CPU": 1.0})
    spec.required_placement_resources.update({HEAD_RESOURCE: 0.001})
    spec.fallback_strategy.options.add()
    fence_spec(spec, ["acme", "shared"])
    assert dict(spec.required_resources) == {"CPU": 1.0}
    assert not spec.required_placement_resources
    for selector in (spec.label_selector, spec.fallback_strategy.options[0].label_selector):
        assert list(selector.label_constraints[0].label_values) == ["acme", "shared"]


def test_a_bundle_is_fenced_too_and_without_a_pool_nowhere_is_left():
    bundle = common_pb2.Bundle()
    bundle.unit_resources.update({HEAD_RESOURCE: 0.001, "GPU": 1.0})
    fence_bundle(bundle, [])
    assert dict(bundle.unit_resources) == {"GPU": 1.0}
    assert bundle.label_selector["trainguard.io/pool"] == f"in({NOWHERE})"
