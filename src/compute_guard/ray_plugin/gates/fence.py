"""Label constraints that a tenant cannot take off: where its leases, actors and bundles may land.

Every node carries its pool as a label; the gates add "pool is one of these" to every request. Constraints
are a conjunction in Ray, so whatever else a task selects, or falls back to, stays inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ray.core.generated import common_pb2

from compute_guard.admission.ray_body import POOL_LABEL

_IN = 1  # ray.rpc.LabelSelectorOperator.LABEL_OPERATOR_IN
_NOT_IN = 2
NOWHERE = "none"
"""A pool that no node has, for a tenant that policy lets run nowhere."""


HEAD_RESOURCE = "node:__internal_head__"  # ray._common.constants.HEAD_NODE_RESOURCE_NAME
_NODE_ID = "ray.io/node-id"  # ray._raylet.RAY_NODE_ID_KEY


def fence_spec(spec: Any, pools: Sequence[str], head: str = "", closed: Sequence[str] = ()) -> None:
    """Confine a LeaseSpec or TaskSpec, its fallback options included, to ``pools`` without ``closed`` nodes.

    Train and Serve put their singletons on the head. The real one is Ray's own here: who wishes for the head
    is sent to node ``head`` (id in hex), which this tenant is shown as the head.
    """
    asked = (spec.required_resources, spec.required_placement_resources)
    wished = [resources.pop(HEAD_RESOURCE) for resources in asked if HEAD_RESOURCE in resources]
    if head and any(wished):
        spec.label_selector.MergeFrom(_constraint(_NODE_ID, _IN, (head,)))
    inside = _constraint(POOL_LABEL, _IN, tuple(pools) or (NOWHERE,))
    for selector in (spec.label_selector, *(o.label_selector for o in spec.fallback_strategy.options)):
        selector.MergeFrom(inside)
        if closed:
            selector.MergeFrom(_constraint(_NODE_ID, _NOT_IN, tuple(closed)))


@lru_cache(1000)
def _constraint(key: str, operator: int, values: tuple[str, ...]) -> Any:
    """A selector of one constraint: every lease of a tenant gets the same, so it is made once."""
    selector = common_pb2.LabelSelector()
    selector.label_constraints.add(label_key=key, operator=operator, label_values=values)
    return selector


def fence_bundle(bundle: Any, pools: Sequence[str], closed: Sequence[str] = ()) -> None:
    """Confine a placement group's bundle, whose selector is a map of key to expression."""
    bundle.unit_resources.pop(HEAD_RESOURCE, None)
    if closed:
        bundle.label_selector[_NODE_ID] = "!in(" + ",".join(closed) + ")"
    bundle.label_selector[POOL_LABEL] = "in(" + ",".join(pools or [NOWHERE]) + ")"
