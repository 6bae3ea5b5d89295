"""What each level of the ladder does to the cluster, and how it is undone. The edge of response.

Every effect sets a state (held, stopped, lowered) rather than adding one, so doing it again after a crash
changes nothing more; and every effect is looked at afterwards: ``verified`` says whether it was seen to have
worked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compute_guard.incidents.incident import Incident
from compute_guard.ledger.store import Ledger
from guard_core.errors import Undecidable, UserError

if TYPE_CHECKING:
    from compute_guard.ray_plugin.jobs import ClusterActions
    from guard_core.home import Home

LOWEST_PRIORITY = 0


class Containment:
    """Carries out levels 3 to 7 on the cluster behind ``cluster``; None: there is no cluster to act on."""

    def __init__(self, home: Home, cluster: ClusterActions | None) -> None:
        self._home = home
        self._cluster = cluster

    def carry_out(self, name: str, incident: Incident, *, reason: str) -> dict[str, Any]:
        """Do it and look. ``{"verified": bool, ...}`` with what undoes it. Raises UserError, Undecidable."""
        cluster = self._available(name)
        self._guard_tenant(incident)
        if name == "throttle":
            before = cluster.set_priority(incident.job, LOWEST_PRIORITY)
            now = self._entry_priority(incident.job)
            return {"verified": now == LOWEST_PRIORITY, "priority_before": before}
        if name in ("suspend", "quarantine"):
            queues = cluster.hold_queue(incident.tenant, reason=reason, by="trainguard response")
            return {"verified": bool(queues) and self._held(queues) == set(queues), "queues": list(queues)}
        if name == "stop":
            stopped = cluster.stop_job(incident.job, reason=reason)
            return stopped.to_json()
        return cluster.cordon_node(_node_of(incident))

    def renew(self, result: Mapping[str, Any]) -> None:
        """Cordon again: what has ended on the node since must not be lent out again."""
        self._available("cordon").cordon_node(str(result["node_id"]))

    def undo(self, name: str, incident: Incident, result: Mapping[str, Any]) -> dict[str, Any]:
        """Take the effect back and look. Raises UserError for what cannot be undone."""
        if name == "stop":
            raise UserError("a stopped job cannot be continued; its owner may submit it again")
        cluster = self._available(name)
        if name == "throttle":
            cluster.set_priority(incident.job, int(result.get("priority_before", LOWEST_PRIORITY)))
            return {"verified": self._entry_priority(incident.job) == result.get("priority_before")}
        if name in ("suspend", "quarantine"):
            queues = cluster.release_queue(incident.tenant)
            held = self._held(tuple(result.get("queues", ())))
            return {"verified": not held, "queues": list(queues)}
        if name == "cordon":
            return cluster.uncordon_node(str(result["node_id"]))
        raise UserError(f"{name} changes nothing that could be undone")

    def _available(self, name: str) -> ClusterActions:
        if self._cluster is None:
            raise Undecidable(f"there is no cluster to {name} anything on; run: trainguard compute up")
        return self._cluster

    def _guard_tenant(self, incident: Incident) -> None:
        """A wrong attribution must not reach another tenant's job: the ledger has the last word."""
        entry = Ledger(self._home.storage, self._home.clock).get(incident.job)
        if entry is not None and entry.workload.tenant != incident.tenant:
            raise UserError(
                f"job {incident.job} belongs to tenant {entry.workload.tenant}, not {incident.tenant}; "
                "correct the attribution"
            )

    def _entry_priority(self, job: str) -> int | None:
        entry = Ledger(self._home.storage, self._home.clock).get(job)
        return None if entry is None else entry.workload.priority

    def _held(self, queues: tuple[str, ...]) -> set[str]:
        from sqlalchemy import select

        from guard_core.storage.tables import QueueHoldRow

        with self._home.storage.reading() as session:
            held = set(session.scalars(select(QueueHoldRow.queue)))
        return held & set(queues)


def _node_of(incident: Incident) -> str:
    """The one node on which it was seen."""
    nodes = sorted({str(d).split("/", 1)[0] for d in incident.evidence["devices"] if "/" in d})
    if len(nodes) != 1:
        raise UserError(f"incident {incident.id} was seen on {len(nodes)} nodes; a cordon is for one")
    return nodes[0]
