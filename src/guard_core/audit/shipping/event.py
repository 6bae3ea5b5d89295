"""A record as a collector of OPA's decision logs expects it.

OPA's members only (``v1/plugins/logs/plugin.go``, EventV1), because a strict collector refuses others: what
TrainGuard adds goes under ``custom``, OPA's own place for additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPA_MEMBERS = (
    "labels", "decision_id", "bundles", "path", "input", "result", "erased", "masked", "error",
    "requested_by", "timestamp", "metrics",
)  # fmt: skip
EVENT_MEMBERS = ("labels", "timestamp", "erased", "masked")


def collector_event(record: Mapping[str, Any], instance: str) -> dict[str, Any]:
    """``record`` (masked, without its frame) in OPA's shape; ``instance`` becomes ``labels.id``.

    A record that is no decision has its event id as ``decision_id``, which collectors tell records apart by,
    and everything else (the decision it belongs to included) under ``custom``.
    """
    members = OPA_MEMBERS if record.get("kind") == "decision" else EVENT_MEMBERS
    event = {name: record[name] for name in members if name in record}
    event["labels"] = {**record.get("labels", {}), "id": instance}
    event["custom"] = {name: value for name, value in record.items() if name not in members}
    event.setdefault("decision_id", str(record.get("event_id", "")))
    return event
