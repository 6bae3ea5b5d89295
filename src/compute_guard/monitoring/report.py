"""What one run of the monitor saw and did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compute_guard.incidents.incident import Incident
from compute_guard.response.actions import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorReport:
    """What a run saw and did. Times of detection are telemetry time, in nanoseconds since the epoch."""

    ticks: int
    samples: int
    devices: int
    synthetic: bool
    quality: Mapping[str, int]
    attribution: Sequence[Mapping[str, str | int]]
    device_ms: int
    incidents: Sequence[Incident]
    actions: Sequence[Action]
    first_signal_ns: Mapping[str, int]
    opened_ns: Mapping[str, int]
    acted_ns: Mapping[str, int]
    alert_budget: Mapping[str, int]
    history_failures: int

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape (docs/admin/incidents.md)."""
        return {
            "ticks": self.ticks,
            "samples": self.samples,
            "devices": self.devices,
            "synthetic": self.synthetic,
            "quality": dict(self.quality),
            "attribution": [dict(row) for row in self.attribution],
            "device_ms": self.device_ms,
            "incidents": [incident.to_json() for incident in self.incidents],
            "actions": [action.to_json() for action in self.actions],
            "alert_budget": dict(self.alert_budget),
            "history_failures": self.history_failures,
        }
