"""CloudEvents 1.0, structured JSON (CNCF ``spec.md``, ``json-format.md``): one event per change."""

from __future__ import annotations

import json

from compute_guard.routes import Letter, Route
from guard_core.clock import rfc3339

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


def render(letter: Letter, route: Route) -> bytes:  # noqa: ARG001 - every format is asked alike
    """The event. ``source`` and ``id`` together are unique, and stay so when it is sent again."""
    event = {
        "specversion": "1.0",
        "id": letter.id,
        "source": "/trainguard/compute_guard",
        "type": f"dev.trainguard.incident.{letter.what}",
        "subject": letter.incident.id,
        "time": rfc3339(letter.at),
        "datacontenttype": "application/json",
        "data": {
            **letter.incident.to_json(),
            "severity_then": letter.severity,
            "actions": [dict(action) for action in letter.actions],
        },
    }
    return json.dumps(event, ensure_ascii=False).encode()
