"""Prometheus Alertmanager's webhook payload, version 4 (docs: "webhook_config"), as a receiver expects it.

Whoever takes Alertmanager's webhooks (chat bridges, on-call services) takes these. One alert per message;
``fingerprint`` is the incident's, so that a resolved one closes what its opening opened.
"""

from __future__ import annotations

import hashlib
import json

from compute_guard.incidents.incident import MITRE
from compute_guard.incidents.notices import KINDS
from compute_guard.routes import Letter, Route
from guard_core.clock import rfc3339

CONTENT_TYPE = "application/json"
NEVER = "0001-01-01T00:00:00Z"
"""What Alertmanager writes as the end of an alert that still fires."""


def render(letter: Letter, route: Route) -> bytes:
    """The payload."""
    incident = letter.incident
    resolved = letter.what == "resolved"
    labels = {
        "alertname": f"TrainGuard_{incident.kind}",
        "severity": "critical" if letter.severity == "incident" else letter.severity,
        "incident": incident.id,
        "tenant": incident.tenant,
        "job": incident.job,
        "kind": incident.kind,
        "exercise": "true" if incident.synthetic else "false",
    }
    annotations = {
        "summary": KINDS.get(incident.kind, {}).get(route.language, incident.kind),
        "description": "; ".join(str(c["message"]) for c in incident.evidence["channels"].values()),
        "change": letter.what,
        "mitre_techniques": ", ".join(MITRE.get(incident.kind, ())),
        "actions": ", ".join(f"{a['action']}: {a['state']}" for a in letter.actions),
    }
    status = "resolved" if resolved else "firing"
    group = f'{{}}:{{incident="{incident.id}"}}'
    alert = {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc3339(incident.opened_at),
        "endsAt": rfc3339(incident.closed_at or letter.at) if resolved else NEVER,
        "generatorURL": "",
        "fingerprint": hashlib.sha256(incident.id.encode()).hexdigest()[:16],
    }
    payload = {
        "version": "4",
        "groupKey": group,
        "truncatedAlerts": 0,
        "status": status,
        "receiver": route.name,
        "groupLabels": {"incident": incident.id},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    }
    return json.dumps(payload, ensure_ascii=False).encode()
