"""Data withdrawn from a running job: a set it declared was quarantined, deleted or changed since.

The verdicts of declared sets are looked at while jobs run. Where ``guard/dataset/use`` would refuse now what
the job was admitted with, an incident is opened; what follows is the ladder's (playbooks.yaml). The verified
reader refuses the next read by itself. Label `detective`: what was read before is read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from compute_guard.admission.workload import WorkloadState
from compute_guard.incidents.incident import Incident
from compute_guard.incidents.observations import Observation
from compute_guard.incidents.store import Incidents
from compute_guard.ledger.store import Entry, Ledger
from guard_core.clock import to_ns
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home

POLICY: Final = "guard/dataset/use/decision"
KIND: Final = "dataset_withdrawn"
EVERY_NS: Final = 30 * 1_000_000_000


class DataWatch:
    """Looks at the declared sets of running jobs, at most every 30 s."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        self._home = home
        self._ledger = ledger
        self._seen: dict[str, str] = {}
        self._next_ns = 0

    def look(self) -> list[Incident]:
        """The incidents that are open because of what was found now; nothing before its time."""
        now_ns = to_ns(self._home.clock())
        if now_ns < self._next_ns:
            return []
        self._next_ns = now_ns + EVERY_NS
        holding = [state for state in WorkloadState if state.holds_quota]
        entries = [entry for entry in self._ledger.entries(states=holding) if entry.workload.declared]
        self._seen = {e.id: self._seen[e.id] for e in entries if e.id in self._seen}
        return [incident for entry in entries for incident in self._judged(entry, now_ns)]

    def _judged(self, entry: Entry, now_ns: int) -> list[Incident]:
        from compute_guard.admission.gateway import principal_of

        principal = principal_of(entry.workload)
        facts = self._home.dataset_facts(entry.workload.declared, principal=principal)
        text = json.dumps(facts, sort_keys=True, default=str)
        if self._seen.get(entry.id) == text:
            return []
        questions = [
            ({"dataset": fact, "purpose": "train", "workload": None}, principal, entry.id) for fact in facts
        ]
        decisions = self._home.decide_many(POLICY, questions, enforcement=Enforcement.DETECTIVE)
        self._seen[entry.id] = text
        channels: dict[str, dict[str, Any]] = {
            f"dataset:{fact['ref']}": {
                "message": f"{fact['ref']}: {decision.explain()}",
                "message_zh": f"策略不再允许使用数据集{fact['ref']}"
                f"（{'、'.join(reason.rule for reason in decision.reasons)}）",
                "score": 1000,
                "decision_id": decision.decision_id,
            }
            for fact, decision in zip(facts, decisions, strict=True)
            if not decision.allow and not decision.undecidable
        }
        if not channels:
            return []
        seen = Observation(
            tenant=entry.workload.tenant,
            job=entry.id,
            kind=KIND,
            rule_ids=(),
            channels=channels,
            devices=(),
            score=1000,
            invariant=True,
            synthetic=False,
            at_ns=now_ns,
        )
        return [Incidents(self._home).observe(seen)]
