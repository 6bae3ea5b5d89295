"""What response may do to jobs and queues of the guarded cluster, each with a checked result.

:class:`ClusterActions` is the protocol response is written against; :class:`RayCluster` is the real one. The
ledger is told first and Ray second: if this process dies in between, the reconciler finishes the work.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from compute_guard.admission.gateway import Gateway
from compute_guard.admission.workload import MAX_PRIORITY, WorkloadState
from compute_guard.cluster.connection import Cluster, load_cluster
from compute_guard.ledger.reconcile import ENDED
from guard_core.errors import Undecidable, UserError

if TYPE_CHECKING:
    from compute_guard.ray_plugin.gcs import Gcs
    from guard_core.home import Home

STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What a stop did. ``verified``: looked at afterwards, nothing of the job exists in Ray any more."""

    submission_id: str
    verified: bool
    was: str
    status: str
    drivers: int
    actors: int
    placement_groups: int
    left: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


class ClusterActions(Protocol):
    """Effects on one cluster, idempotent. They raise UserError (unknown name) or Undecidable (trouble)."""

    def stop_job(self, submission_id: str, *, reason: str) -> Stopped:
        """End a job, running or waiting, with its actors and placement groups."""

    def hold_queue(self, tenant: str, *, reason: str, by: str) -> tuple[str, ...]:
        """Admit nothing more from the tenant's queues. Their names."""

    def release_queue(self, tenant: str) -> tuple[str, ...]:
        """Undo `hold_queue`. The queues that were on hold."""

    def set_priority(self, submission_id: str, priority: int) -> int:
        """Change a waiting job's place in its line. The priority it had."""

    def cordon_node(self, node: str) -> dict[str, Any]:
        """Let nothing more that asks for CPU begin on the node; what runs there goes on."""

    def uncordon_node(self, node: str) -> dict[str, Any]:
        """Undo `cordon_node`."""


class RayCluster:
    """:class:`ClusterActions` on the Ray cluster of a home. Holds no connection between calls."""

    def __init__(self, home: Home, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._gateway = Gateway(home)
        self._home = home
        self._pause = pause

    def stop_job(self, submission_id: str, *, reason: str) -> Stopped:
        """End a job and look until nothing of it is left, for up to 20 s."""
        entry = self._gateway.ledger.get(submission_id)
        if entry is None:
            raise UserError(f"job {submission_id} is not in the ledger; see: trainguard compute status")
        begun = time.monotonic()
        was = entry.state
        self._gateway.finish(entry.id, WorkloadState.EVICTED, reason)
        cluster = load_cluster(self._home.path("ray"))
        if cluster is None:
            if was.holds_quota:
                raise Undecidable("the cluster of this home is not running, so the stop cannot be verified")
            return _stopped(entry.id, was, "", 0, {}, 0, begun)
        from compute_guard.ray_plugin.gcs import Gcs

        gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
        try:
            return self._stop(gcs, cluster, entry.id, was, begun)
        finally:
            gcs.close()

    def _stop(
        self, gcs: Gcs, cluster: Cluster, submission_id: str, was: WorkloadState, begun: float
    ) -> Stopped:
        seen = gcs.submissions([submission_id]).get(submission_id)
        if seen is not None and seen.status not in ENDED:
            _post_stop(cluster, submission_id)
        jobs = [driver for driver in gcs.drivers() if driver.submission_id == submission_id]
        living = [driver for driver in jobs if not driver.is_dead]
        counts = {"actors": 0, "placement_groups": 0}
        for driver in jobs:
            # Dead drivers too: their detached actors and placement groups outlive them.
            if driver in living or gcs.left_of(driver.job_id):
                ended = gcs.end_driver(driver.job_id)
                counts = {name: counts[name] + ended[name] for name in counts}
        while True:
            seen = gcs.submissions([submission_id]).get(submission_id)
            left = sum(gcs.left_of(driver.job_id) for driver in jobs)
            done = left == 0 and (seen is None or seen.status in ENDED)
            if done or time.monotonic() - begun > STOP_SECONDS:
                status = seen.status if seen is not None else ""
                return _stopped(
                    submission_id, was, status, len(living), counts, left if done else left + 1, begun
                )
            self._pause(0.1)

    def hold_queue(self, tenant: str, *, reason: str, by: str) -> tuple[str, ...]:
        """Put every queue of ``tenant`` on hold."""
        queues = self._queues(tenant)
        for queue in queues:
            self._gateway.ledger.hold(queue, reason=reason, by=by)
        return queues

    def release_queue(self, tenant: str) -> tuple[str, ...]:
        """Let the tenant's queues admit again; the admission loop goes on by itself."""
        return tuple(queue for queue in self._queues(tenant) if self._gateway.ledger.unhold(queue))

    def set_priority(self, submission_id: str, priority: int) -> int:
        """Set a waiting job's priority, 0 to 1,000,000."""
        if not 0 <= priority <= MAX_PRIORITY:
            raise UserError(f"priority must be an integer from 0 to {MAX_PRIORITY}, got {priority}")
        entry = self._gateway.ledger.get(submission_id)
        if entry is None:
            raise UserError(f"job {submission_id} is not in the ledger; see: trainguard compute status")
        self._gateway.ledger.note(entry.id, priority=priority)
        return entry.workload.priority

    def cordon_node(self, node: str) -> dict[str, Any]:
        """Set what the node's raylet lends out to what is in use, and see that nothing is free."""
        from compute_guard.ray_plugin.cordon import cordon

        return cordon(self._running(), node, pause=self._pause).to_json()

    def uncordon_node(self, node: str) -> dict[str, Any]:
        """Lend again all that the node registered with."""
        from compute_guard.ray_plugin.cordon import uncordon

        return uncordon(self._running(), node, pause=self._pause).to_json()

    def _running(self) -> Cluster:
        cluster = load_cluster(self._home.path("ray"))
        if cluster is None:
            raise Undecidable("there is no cluster of this home; start one: trainguard compute up")
        return cluster

    def _queues(self, tenant: str) -> tuple[str, ...]:
        quotas = self._gateway.quotas()
        quotas.queue_of(tenant)  # raises for a tenant without queues
        return tuple(sorted(queue.name for queue in quotas.queues.values() if queue.tenant == tenant))


def _stopped(
    submission_id: str,
    was: WorkloadState,
    status: str,
    drivers: int,
    counts: dict[str, int],
    left: int,
    begun: float,
) -> Stopped:
    return Stopped(
        submission_id=submission_id,
        verified=left == 0,
        was=was.value,
        status=status,
        drivers=drivers,
        actors=counts.get("actors", 0),
        placement_groups=counts.get("placement_groups", 0),
        left=left,
        seconds=round(time.monotonic() - begun, 3),
    )


def _post_stop(cluster: Cluster, submission_id: str) -> None:
    request = urllib.request.Request(  # noqa: S310 - our own http address
        f"{cluster.dashboard}/api/jobs/{submission_id}/stop",
        method="POST",
        headers={"Authorization": f"Bearer {cluster.token}"},
    )
    try:
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - our own http address
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise Undecidable(f"Ray did not stop {submission_id}: {error.read().decode()[:200]}") from error
    except OSError as error:
        raise Undecidable(f"the dashboard {cluster.dashboard} cannot be reached: {error}") from error
