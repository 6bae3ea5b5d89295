"""A decision as an audit record: OPA's decision-log event, plus what TrainGuard adds.

OPA's members (``v1/plugins/logs/plugin.go``, EventV1): labels, decision_id, bundles, path, input, result,
error, erased, requested_by, timestamp, metrics. Ours: kind, engine, enforcement, subject. The full input is
kept, because a decision must be replayable; what looks like a secret is taken out and named in ``erased``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from guard_core.audit.masking import without_secrets
from guard_core.clock import rfc3339
from guard_core.identity import masked_tokens
from guard_core.policy.decision import Decision
from guard_core.version import __version__


def decision_event(
    decision: Decision, *, question: Mapping[str, Any], requested_by: str, subject: str, moment: datetime
) -> dict[str, Any]:
    """The record's body. What looks like a secret is removed; its JSON pointers are in ``erased``."""
    erased: list[str] = []
    event: dict[str, Any] = {
        "kind": "decision",
        "labels": {"app": "trainguard", "version": __version__},
        "decision_id": decision.decision_id,
        "path": decision.path,
        "input": without_secrets(question, "/input", erased),
        "bundles": {"guard": {"revision": decision.revision}},
        "requested_by": requested_by,
        "timestamp": rfc3339(moment),
        "metrics": {"timer_rego_query_eval_ns": decision.eval_ns},
        "engine": decision.engine,
        "enforcement": decision.enforcement.value,
        "subject": subject,
    }
    if decision.defined:
        event["result"] = without_secrets(decision.value, "/result", erased)
    if decision.error is not None:
        event["error"] = {"message": masked_tokens(decision.error)}
    if erased:
        event["erased"] = erased
    return event
