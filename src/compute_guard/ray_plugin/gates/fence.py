"""Label constraints that a tenant cannot take off: where its leases, actors and bundles may land.

Every node carries its pool as a label; the gates add "pool is one of these" to every request. Constraints
are a conjunction in Ray, so whatever else a task selects, or falls back to, stays inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compute_guard.ray_body import POOL_LABEL

_IN = 1  # ray.rpc.LabelSelectorOperator.LABEL_OPERATOR_IN
NOWHERE = "none"
"""A pool that no node has, for a tenant that policy lets run nowhere."""


HEAD_RESOURCE = "node:__internal_head__"  # ray._common.constants.HEAD_NODE_RESOURCE_NAME


def fence_spec(spec: Any, pools: Sequence[str]) -> None:
    """Confine a LeaseSpec or TaskSpec, its fallback options included, to ``pools``.

    A wish for the head is dropped: Train and Serve put their singletons there, and would wait for ever, since
    the head is Ray's own here.
    """
    spec.required_resources.pop(HEAD_RESOURCE, None)
    spec.required_placement_resources.pop(HEAD_RESOURCE, None)
    _add(spec.label_selector, pools)
    for option in spec.fallback_strategy.options:
        _add(option.label_selector, pools)


def _add(selector: Any, pools: Sequence[str]) -> None:
    constraint = selector.label_constraints.add()
    constraint.label_key = POOL_LABEL
    constraint.operator = _IN
    constraint.label_values.extend(pools or [NOWHERE])


def fence_bundle(bundle: Any, pools: Sequence[str]) -> None:
    """Confine a placement group's bundle, whose selector is a map of key to expression."""
    bundle.unit_resources.pop(HEAD_RESOURCE, None)
    bundle.label_selector[POOL_LABEL] = "in(" + ",".join(pools or [NOWHERE]) + ")"
