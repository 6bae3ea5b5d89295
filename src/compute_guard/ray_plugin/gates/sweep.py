"""What outlived its workload is ended: drivers, detached actors, placement groups. The head's part of it.

Ray ends a stopped job's tasks and ordinary actors; the rest survives and would hold what nobody reserves any
more. A node's own gate ends the processes (:mod:`.reaper`).

The GCS remembers every job, actor and placement group there ever was, so its tables are only looked at for a
while after a workload has ended, and now and then in any case.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.upstream import Upstream

logger = logging.getLogger(__name__)
_DEAD = 4  # ActorTableData.DEAD
_REMOVED = 3  # PlacementGroupTableData.REMOVED
_SECONDS = 5.0
LINGERS_SECONDS = 10.0
"""For so long after its end, calls of a workload that were under way may still leave something behind."""
ANYWAY_SECONDS = 60.0


class Sweep:
    """Looks at the GCS's tables with the system's token."""

    def __init__(self, upstream: Upstream, jobs: Jobs, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._jobs = jobs
        self._clock = clock
        self._jobs_known = 0
        self._clean_at: dict[str, float | None] = {}
        """Workloads that may have left something, and when they cannot any more; None while they live."""
        self._looked_at = -ANYWAY_SECONDS

    def _due(self, living: Collection[str]) -> bool:
        """Whether a workload has ended and may have left something, or nobody has looked for long."""
        self._jobs_known, new = self._jobs.since(self._jobs_known)
        self._clean_at |= {job.workload: None for job in new}
        now, due = self._clock(), False
        for workload, clean_at in self._clean_at.items():
            if workload not in living:
                due = True
                if clean_at is None:
                    self._clean_at[workload] = now + LINGERS_SECONDS
        return due or now - self._looked_at >= ANYWAY_SECONDS

    async def _ask(self, service: str, name: str, **fields: Any) -> Any:
        request = getattr(pb, name + "Request")(**fields)
        raw = await self._upstream.call(
            f"/ray.rpc.{service}/{name}", request.SerializeToString(), timeout=_SECONDS
        )
        return getattr(pb, name + "Reply").FromString(raw)

    def _outlived(self, job_id: bytes, living: Collection[str]) -> bool:
        job = self._jobs.get(job_id.hex())
        return job is not None and job.workload not in living

    async def round(self, living: Collection[str]) -> tuple[str, ...]:
        """End what belongs to workloads that are not in ``living``. What was ended, for the log."""
        if not self._due(living):
            return ()
        began = self._looked_at = self._clock()
        ended = []
        table = await self._ask(
            "JobInfoGcsService",
            "GetAllJobInfo",
            skip_submission_job_info_field=True,
            skip_is_running_tasks_field=True,
        )
        for job in table.job_info_list:
            if not job.is_dead and self._outlived(job.job_id, living):
                await self._ask("JobInfoGcsService", "MarkJobFinished", job_id=job.job_id)
                ended.append(f"driver {job.job_id.hex()}")
        actors = await self._ask("ActorInfoGcsService", "GetAllActorInfo")
        for actor in actors.actor_table_data:
            if actor.state != _DEAD and self._outlived(actor.job_id, living):
                await self._ask(
                    "ActorInfoGcsService",
                    "KillActorViaGcs",
                    actor_id=actor.actor_id,
                    force_kill=True,
                    no_restart=True,
                )
                ended.append(f"actor {actor.actor_id.hex()}")
        groups = await self._ask("PlacementGroupInfoGcsService", "GetAllPlacementGroup")
        for group in groups.placement_group_table_data:
            if group.state != _REMOVED and self._outlived(group.creator_job_id, living):
                await self._ask(
                    "PlacementGroupInfoGcsService",
                    "RemovePlacementGroup",
                    placement_group_id=group.placement_group_id,
                )
                ended.append(f"placement group {group.placement_group_id.hex()}")
        if ended:
            logger.warning("ended what outlived its workload: %s", ", ".join(ended))
        else:
            over = [w for w, clean_at in self._clean_at.items() if clean_at is not None and clean_at <= began]
            for workload in over:
                del self._clean_at[workload]
        return tuple(ended)
