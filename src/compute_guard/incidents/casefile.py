"""What goes into an incident's evidence bundle, and when.

``before`` and ``after`` an action: the incident, the telemetry window, the job as submitted (without the
values of its environment), the actions so far and the decisions behind them. Then signed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from compute_guard.incidents import notices
from compute_guard.incidents.evidence import Bundle
from compute_guard.incidents.incident import Incident
from compute_guard.incidents.words import LANGUAGES
from compute_guard.ledger.store import Ledger
from compute_guard.response.actions import Actions
from compute_guard.usage.history import History
from compute_guard.usage.samples import to_table
from guard_core.audit.masking import without_secrets
from guard_core.clock import to_ns

if TYPE_CHECKING:
    from guard_core.home import Home

_MINUTE_NS: Final = 60 * 1_000_000_000
Telemetry = Callable[[Incident], pa.Table]


class CaseFile:
    """The evidence of one home's incidents. ``telemetry`` gives an incident's window, else the history."""

    def __init__(self, home: Home, *, telemetry: Telemetry | None = None) -> None:
        self._home = home
        self._telemetry = telemetry or self._from_history
        self._actions = Actions(home.storage, home.clock)

    def bundle(self, incident: Incident) -> Bundle:
        """The bundle of ``incident``; its folder is made with its first file."""
        return Bundle(self._home.path("incidents", incident.id), self._home.clock)

    def collect(self, incident: Incident, phase: str) -> None:
        """Add what is known now under ``phase`` (``before`` or ``after``), and sign."""
        bundle, made_up = self.bundle(incident), incident.synthetic
        bundle.add_json(f"{phase}/incident.json", incident.to_json(), synthetic=made_up)
        bundle.add(f"{phase}/telemetry.parquet", _parquet(self._telemetry(incident)), synthetic=made_up)
        bundle.add_json(f"{phase}/job.json", self._job(incident))
        actions = self._actions.of(incident.id)
        bundle.add_json(f"{phase}/actions.json", [action.to_json() for action in actions])
        decisions = [self._home.decision_record(a.decision_id) for a in actions if a.decision_id]
        bundle.add_json(f"{phase}/decisions.json", decisions)
        bundle.sign(self._home.signer, incident=incident.id)

    def draft_notices(self, incident: Incident) -> list[str]:
        """Render the notices in both languages into the bundle; their names.

        A warning concerns its owner; the regulator's report is drafted for an incident only.
        """
        bundle = self.bundle(incident)
        actions = [action.to_json() for action in self._actions.of(incident.id)]
        hours = {**notices.DEADLINE_HOURS, **_usage(self._home).get("notice_hours", {})}
        names = []
        for audience in notices.AUDIENCES if incident.severity == "incident" else ("customer",):
            for language in LANGUAGES:
                text = notices.render(
                    audience, language, incident, actions, deadline_hours=hours, now=self._home.clock()
                )
                name = f"notices/{audience}.{language}.md"
                names.append(bundle.add(name, text.encode(), synthetic=incident.synthetic))
        bundle.sign(self._home.signer, incident=incident.id)
        return names

    def _job(self, incident: Incident) -> dict[str, Any]:
        entry = Ledger(self._home.storage, self._home.clock).get(incident.job)
        if entry is None:
            return {"submission_id": incident.job, "tenant": incident.tenant, "in_ledger": False}
        spec = dict(entry.workload.spec)
        environment = spec.get("runtime_env", {})
        if isinstance(environment, Mapping) and isinstance(environment.get("env_vars"), Mapping):
            # Names say what was set; values may be anything, and evidence is handed to others.
            spec["runtime_env"] = {**environment, "env_vars": sorted(environment["env_vars"])}
        return {
            "submission_id": entry.id,
            "tenant": entry.workload.tenant,
            "user": entry.workload.user,
            "queue": entry.workload.queue,
            "state": entry.state.value,
            "requests": dict(entry.workload.requests),
            "datasets": list(entry.workload.declared),
            "spec": without_secrets(spec, "/spec", []),
            "in_ledger": True,
        }

    def _from_history(self, incident: Incident) -> pa.Table:
        uuids = frozenset(device.split("/", 1)[1] for device in incident.evidence["devices"] if "/" in device)
        first = to_ns(datetime.fromisoformat(incident.evidence["first_seen"])) - 10 * _MINUTE_NS
        last = to_ns(datetime.fromisoformat(incident.evidence["last_seen"])) + 5 * _MINUTE_NS
        history = History(self._home.path("telemetry"))
        return to_table(history.read(first, last, gpu_uuids=uuids))


def _usage(home: Home) -> dict[str, Any]:
    found = home.policy_data().get("usage", {})
    return dict(found) if isinstance(found, Mapping) else {}


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
