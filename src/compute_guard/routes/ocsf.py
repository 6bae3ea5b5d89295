"""OCSF 1.5 Detection Finding (class 2004), as security data lakes take it (schema.ocsf.io)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from compute_guard.incidents.incident import MITRE
from compute_guard.incidents.notices import KINDS
from compute_guard.routes import Letter, Route
from guard_core.version import __version__

CONTENT_TYPE = "application/json"
CLASS: Final = 2004
ACTIVITY: Final = {"opened": (1, "Create"), "resolved": (3, "Close")}
SEVERITY: Final = {"info": (1, "Informational"), "warning": (3, "Medium"), "incident": (4, "High")}
STATUS: Final = {
    "open": (1, "New"),
    "acknowledged": (2, "In Progress"),
    "contained": (2, "In Progress"),
    "resolved": (4, "Resolved"),
}


def render(letter: Letter, route: Route) -> bytes:
    """The finding."""
    return json.dumps(finding(letter, route.language), ensure_ascii=False).encode()


def finding(letter: Letter, language: str = "en") -> dict[str, Any]:
    """The finding as an object. Times are milliseconds since the epoch."""
    incident = letter.incident
    activity, activity_name = ACTIVITY.get(letter.what, (2, "Update"))
    severity, severity_name = SEVERITY[letter.severity]
    status, status_name = STATUS[incident.state.value]
    messages = [str(channel["message"]) for channel in incident.evidence["channels"].values()]
    return {
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS,
        "class_name": "Detection Finding",
        "type_uid": CLASS * 100 + activity,
        "time": _ms(letter.at),
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "message": KINDS.get(incident.kind, {}).get(language, incident.kind),
        "is_alert": letter.severity == "incident" and not incident.synthetic,
        "metadata": {
            "version": "1.5.0",
            "uid": letter.id,
            "product": {"name": "TrainGuard", "vendor_name": "TrainGuard", "version": __version__},
            "labels": ["exercise"] if incident.synthetic else [],
        },
        "finding_info": {
            "uid": incident.id,
            "title": KINDS.get(incident.kind, {}).get(language, incident.kind),
            "desc": "; ".join(messages),
            "types": list(incident.evidence.get("rule_ids", [])),
            "created_time": _ms(incident.opened_at),
            "first_seen_time": _ms(datetime.fromisoformat(incident.evidence["first_seen"])),
            "last_seen_time": _ms(datetime.fromisoformat(incident.evidence["last_seen"])),
            "attacks": [{"technique": {"uid": uid}, "version": "17"} for uid in MITRE.get(incident.kind, ())],
        },
        "resources": [
            {"type": "tenant", "name": incident.tenant},
            {"type": "job", "name": incident.job},
            *({"type": "accelerator", "name": device} for device in incident.evidence["devices"]),
        ],
    }


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
