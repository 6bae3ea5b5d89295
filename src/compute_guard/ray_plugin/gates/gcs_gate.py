"""The GCS gateway: what passes between the cluster's processes and its GCS.

Ray's own processes (the system) pass, but for the calls that admit something: a driver (`AddJob`) and a
node (`RegisterNode`). For a tenant the table `RULES` is the whole of what there is; a call that is not in
it is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.ray_plugin.gates import kv, replies
from compute_guard.ray_plugin.gates.admitting import Drivers
from compute_guard.ray_plugin.gates.cordons import Cordons
from compute_guard.ray_plugin.gates.credit import Credit
from compute_guard.ray_plugin.gates.fence import HEAD_RESOURCE, fence_spec
from compute_guard.ray_plugin.gates.groups import Groups
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.kv_calls import KeyValues
from compute_guard.ray_plugin.gates.messages import denied, request_of
from compute_guard.ray_plugin.gates.namespaces import stored
from compute_guard.ray_plugin.gates.nodes import Nodes
from compute_guard.ray_plugin.gates.polls import Polls
from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.wire import Call, Passage, Refusal

logger = logging.getLogger(__name__)

_ADMITTING = frozenset({"AddJob", "RegisterNode"})
"""What Ray's own processes say that is not only handed on."""
PASS: frozenset[str] = frozenset(
    {
        "JobInfoGcsService.GetNextJobID",
        "WorkerInfoGcsService.AddWorkerInfo",
        "InternalKVGcsService.GetInternalConfig",
        "ControlPlanePubSubGcsService.GcsSubscriberCommandBatch",
        "ObservabilityPubSubService.GcsSubscriberCommandBatch",
        "NodeInfoGcsService.GetClusterId",
        "NodeInfoGcsService.CheckAlive",
    }
)
"""Calls of a tenant that hold and tell nothing of anybody else's."""

OWN: Mapping[str, str] = {
    "JobInfoGcsService.MarkJobFinished": "job_id",
    "ActorInfoGcsService.GetActorInfo": "actor_id",
    "ActorInfoGcsService.KillActorViaGcs": "actor_id",
    "ActorInfoGcsService.ReportActorOutOfScope": "actor_id",
    "ActorInfoGcsService.RestartActorForLineageReconstruction": "actor_id",
    "PlacementGroupInfoGcsService.RemovePlacementGroup": "placement_group_id",
    "PlacementGroupInfoGcsService.GetPlacementGroup": "placement_group_id",
    "PlacementGroupInfoGcsService.WaitPlacementGroupUntilReady": "placement_group_id",
}
"""Calls about one object, and the field with its id: for the tenant's own only."""

FILTER: Mapping[str, Callable[[Any, replies.View], None]] = {
    "JobInfoGcsService.GetAllJobInfo": replies.all_job_info,
    "ActorInfoGcsService.GetAllActorInfo": replies.all_actor_info,
    "ActorInfoGcsService.GetActorInfo": replies.named_actor,
    "ActorInfoGcsService.GetNamedActorInfo": replies.named_actor,
    "ActorInfoGcsService.ListNamedActors": replies.named_actors,
    "PlacementGroupInfoGcsService.GetAllPlacementGroup": replies.all_placement_groups,
    "NodeInfoGcsService.GetAllNodeInfo": replies.all_node_info,
    "NodeInfoGcsService.GetAllNodeAddressAndLiveness": replies.node_addresses,
    "NodeResourceInfoGcsService.GetAllAvailableResources": replies.resources,
    "NodeResourceInfoGcsService.GetAllTotalResources": replies.resources,
    "NodeResourceInfoGcsService.GetAllResourceUsage": replies.resource_usage,
    "NodeResourceInfoGcsService.GetDrainingNodes": replies.draining,
    "TaskInfoGcsService.GetTaskEvents": replies.task_events,
}
"""Lists, and actors by name: the tenant is shown its part of them."""


class GcsGate:
    """Judges every call. Call it from one event loop."""

    def __init__(
        self,
        upstream: Upstream,
        jobs: Jobs,
        judge: Judge,
        credit: Credit,
        nodes: Nodes,
        drivers: Drivers,
        owner_of: Callable[[str], Awaitable[str | None]],
        cordons: Cordons,
    ) -> None:
        self._upstream = upstream
        self._jobs = jobs
        self._judge = judge
        self._credit = credit
        self._nodes = nodes
        self._drivers = drivers
        self._cordons = cordons
        self._groups = Groups(upstream, jobs, judge, credit, cordons)
        polls = Polls(upstream, self._view)
        self._rules: dict[str, Callable[[Call, str, bytes], Awaitable[bytes]]] = {
            "ActorInfoGcsService.RegisterActor": self._actor,
            "ActorInfoGcsService.CreateActor": self._actor,
            "ActorInfoGcsService.GetNamedActorInfo": self._named_actor,
            "ActorInfoGcsService.ListNamedActors": self._named_actors,
            "PlacementGroupInfoGcsService.CreatePlacementGroup": self._groups.create,
            "PlacementGroupInfoGcsService.GetNamedPlacementGroup": self._named_group,
            "TaskInfoGcsService.AddTaskEventData": self._task_events,
            "ControlPlanePubSubGcsService.GcsPublish": self._publish,
            "ObservabilityPubSubService.GcsPublish": self._publish,
            "ControlPlanePubSubGcsService.GcsSubscriberPoll": polls.poll,
            "ObservabilityPubSubService.GcsSubscriberPoll": polls.poll,
            "ObservabilityPubSubService.ReportJobError": self._job_error,
            "RuntimeEnvGcsService.PinRuntimeEnvURI": self._pin,
            **KeyValues(upstream, jobs, owner_of).rules(),
        }

    async def __call__(self, call: Call, request: bytes) -> bytes:
        """Answer one call that `passage` left open. Raises Refusal."""
        if call.tenant is None:
            return await self._system(call, request)
        name = f"{call.service}.{call.name}"
        rule = self._rules.get(name)
        if rule is not None:
            return await rule(call, call.tenant, request)
        return await self._filtered(call, name, await self._upstream.forward(call, request))

    def passage(self, call: Call, request: bytes) -> Passage | None:
        """How a call is handed on about which nobody has to be asked. Raises Refusal."""
        if call.tenant is None:
            if call.name in _ADMITTING:
                return None
            return Passage(request, partial(self._system_did, call.name, request))
        name = f"{call.service}.{call.name}"
        field = OWN.get(name)
        if field is not None:
            raw = getattr(request_of(call, request), field)
            if self._jobs.owner(raw) != call.tenant:
                raise Refusal(f"{call.name}: {raw.hex()} is not an object of tenant {call.tenant}")
        if name in self._rules or name in FILTER:
            return None
        if call.name == "RemovePlacementGroup":
            return Passage(request, partial(self._group_removed, raw))
        if field is None and name not in PASS:
            raise Refusal(f"{call.name} is not open to tenants")
        return Passage(request)

    async def _shown(self, call: Call, message: Any) -> bytes:
        reply = await self._upstream.forward(call, message.SerializeToString())
        return await self._filtered(call, f"{call.service}.{call.name}", reply)

    async def _filtered(self, call: Call, name: str, reply: bytes) -> bytes:
        message = getattr(pb, call.name + "Reply").FromString(reply)
        FILTER[name](message, await self._view(call.tenant or ""))
        raw: bytes = message.SerializeToString()
        return raw

    async def _view(self, tenant: str) -> replies.View:
        pools = await self._judge.pools(tenant)
        nodes, head = self._nodes.seen_in(pools), self._nodes.head_for(pools)
        return replies.View(tenant, self._jobs, frozenset(pools), nodes, head)

    # --- the system's calls

    async def _system(self, call: Call, request: bytes) -> bytes:
        if call.name == "AddJob":
            return await self._add_job(call, request)
        return await self._upstream.forward(
            call, self._nodes.registered(pb.RegisterNodeRequest.FromString(request))
        )

    def _system_did(self, name: str, request: bytes, reply: bytes | None) -> None:
        """Note what the GCS has just been told of workers, jobs and nodes that ended."""
        if reply is None:
            return
        if name == "ReportWorkerFailure":
            worker = pb.ReportWorkerFailureRequest.FromString(request).worker_failure.worker_address.worker_id
            self._credit.reports.worker_gone(worker.hex())
        elif name == "MarkJobFinished":
            self._credit.reports.job_over(pb.MarkJobFinishedRequest.FromString(request).job_id.hex())
        elif name == "UnregisterNode":
            self._nodes.gone(pb.UnregisterNodeRequest.FromString(request).node_id)

    def _group_removed(self, group: bytes, reply: bytes | None) -> None:
        if reply is not None:
            self._groups.removed(group)

    async def _add_job(self, call: Call, request: bytes) -> bytes:
        """Let a driver in: its job credential says whose it is, whatever else it says of itself."""
        message = pb.AddJobRequest.FromString(request)
        data = message.data
        try:
            job = await self._drivers.admit(data)
        except Refusal as no:
            logger.warning("driver %s was refused: %s", data.job_id.hex(), no.text)
            return denied("AddJob", no.text)
        if job is None:
            return await self._upstream.forward(call, message.SerializeToString())
        data.config.ray_namespace = job.namespace
        data.config.metadata["trainguard_tenant"] = job.tenant
        data.config.metadata["job_submission_id"] = job.workload
        return await self._upstream.forward(call, message.SerializeToString())

    # --- actors and placement groups of tenants

    async def _actor(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        spec = message.task_spec
        if self._jobs.owner(spec.job_id) != tenant:
            raise Refusal(f"{call.name}: job {spec.job_id.hex()} is not one of tenant {tenant}")
        actor = spec.actor_creation_task_spec
        try:
            await self._judge.isolated(tenant, "use", "actor", actor.name or "anonymous", actor.ray_namespace)
            if actor.is_detached:
                await self._judge.isolated(tenant, "use", "detached-actor", actor.name, actor.ray_namespace)
            actor.ray_namespace = stored(actor.ray_namespace, tenant)
        except Refusal as no:
            return denied(call.name, no.text)
        pools = await self._judge.pools(tenant)
        closed = await self._cordons.in_force() if HEAD_RESOURCE in spec.required_resources else frozenset()
        fence_spec(spec, pools, self._nodes.head_for(pools, closed))
        return await self._upstream.forward(call, message.SerializeToString())

    async def _named_actor(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        await self._judge.isolated(tenant, "get-actor", "actor", message.name, message.ray_namespace)
        message.ray_namespace = stored(message.ray_namespace, tenant)
        return await self._shown(call, message)

    async def _named_actors(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        if not message.all_namespaces:
            await self._judge.isolated(
                tenant, "list", "namespace", message.ray_namespace, message.ray_namespace
            )
            message.ray_namespace = stored(message.ray_namespace, tenant)
        return await self._shown(call, message)

    async def _named_group(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        await self._judge.isolated(
            tenant, "get-actor", "placement-group", message.name, message.ray_namespace
        )
        message.ray_namespace = stored(message.ray_namespace, tenant)
        return await self._upstream.forward(call, message.SerializeToString())

    # --- events, errors, packages

    async def _task_events(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        events = message.data.events_by_task
        # Thousands of events are of one or two jobs.
        jobs = {event.job_id for event in events}
        own = {job for job in jobs if self._jobs.owner(job) == tenant}
        if own == jobs:
            return await self._upstream.forward(call, request)
        kept = [event for event in events if event.job_id in own]
        del events[:]
        events.extend(kept)
        return await self._upstream.forward(call, message.SerializeToString())

    async def _publish(self, call: Call, tenant: str, request: bytes) -> bytes:
        for message in request_of(call, request).pub_messages:
            own = message.WhichOneof("inner_message") == "error_info_message" and (
                self._jobs.owner(message.error_info_message.job_id) == tenant
            )
            if not own:
                raise Refusal("tenants publish errors of their own jobs only")
        return await self._upstream.forward(call, request)

    async def _job_error(self, call: Call, tenant: str, request: bytes) -> bytes:
        if self._jobs.owner(request_of(call, request).job_error.job_id) != tenant:
            raise Refusal(f"this is no job of tenant {tenant}")
        return await self._upstream.forward(call, request)

    async def _pin(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        name = message.uri.removeprefix("gcs://")
        own = kv.own_package(name, tenant) if message.uri.startswith("gcs://") else None
        if own is None:
            raise Refusal("tenants pin their own packages only")
        message.uri = "gcs://" + own
        return await self._upstream.forward(call, message.SerializeToString())
