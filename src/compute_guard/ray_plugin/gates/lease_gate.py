"""The lease gateway of one node: every task, nested task and actor passes it at the moment it gets resources.

A refused lease becomes the user's own exception (``TaskUnschedulableError``, ``ActorUnschedulableError``)
with our words in it; a lease for which there is no room is simply not answered yet, which Ray shows as
pending.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ray.core.generated import node_manager_pb2 as pb

from compute_guard.ray_plugin.gates.environment import brought_by
from compute_guard.ray_plugin.gates.fence import fence_spec
from compute_guard.ray_plugin.gates.grants import Grants
from compute_guard.ray_plugin.gates.link import Line
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.wire import Call, Refusal

logger = logging.getLogger(__name__)

TENANT_CALLS = frozenset(
    {
        "RequestWorkerLease",
        "ReturnWorkerLease",
        "CancelWorkerLease",
        "ReportWorkerBacklog",
        "PinObjectIDs",
        "GetSystemConfig",
        "IsLocalWorkerDead",
        "RegisterMutableObject",
        "PushMutableObject",
        "GetWorkerFailureCause",
        "CancelLocalTask",
        "FreeLocalObjects",
        "KillLocalActor",
    }
)
"""All that a tenant may ask of a raylet; the rest is for Ray's own processes."""
_TELLING = frozenset({"RequestWorkerLease", "ReturnWorkerLease", "CancelWorkerLease", "PrestartWorkers"})
_UNSCHEDULABLE = pb.RequestWorkerLeaseReply.SCHEDULING_CANCELLED_UNSCHEDULABLE
_INTENDED = pb.RequestWorkerLeaseReply.SCHEDULING_CANCELLED_INTENDED


class LeaseGate:
    """Judges the calls to one raylet."""

    def __init__(
        self, upstream: Upstream, line: Line, grants: Grants, admitted: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._upstream = upstream
        self._line = line
        self._grants = grants
        self._admitted = admitted
        self._held: dict[str, asyncio.Future[Mapping[str, Any]]] = {}

    async def __call__(self, call: Call, request: bytes) -> bytes:
        """Answer one call. Raises Refusal."""
        if call.tenant is not None:
            if call.name not in TENANT_CALLS:
                raise Refusal(f"{call.name} is not open to tenants")
            self._own(call, request)
        if call.name not in _TELLING:
            return await self._forward(call, request)
        if call.name == "RequestWorkerLease":
            return await self._lease(call, request)
        if call.name == "PrestartWorkers":
            # A worker without a lease would be one without a tenant; Ray takes this as a hint only.
            return _nothing(pb.PrestartWorkersReply)
        if call.name == "CancelWorkerLease":
            lease = pb.CancelWorkerLeaseRequest.FromString(request).lease_id.hex()
            held = self._held.get(lease)
            if held is not None:
                held.cancel()
                return _nothing(pb.CancelWorkerLeaseReply)
            return await self._forward(call, request)
        reply = await self._forward(call, request)
        self._give_back(pb.ReturnWorkerLeaseRequest.FromString(request).lease_id.hex())
        return reply

    def _own(self, call: Call, request: bytes) -> None:
        """Raise Refusal for a call about another tenant's lease, actor or object."""
        tenant = call.tenant
        if call.name in ("ReturnWorkerLease", "CancelWorkerLease", "GetWorkerFailureCause"):
            message = getattr(pb, call.name + "Request").FromString(request)
            owner = self._grants.owner(message.lease_id.hex())
            if owner is not None and owner != tenant:
                raise Refusal(f"{call.name}: this lease is not one of tenant {tenant}")
        elif call.name == "KillLocalActor":
            raw = pb.KillLocalActorRequest.FromString(request).intended_actor_id
            if self._grants.tenant_of_job(raw[-4:].hex()) != tenant:
                raise Refusal(f"this actor is not one of tenant {tenant}")
        elif call.name == "CancelLocalTask":
            raw = pb.CancelLocalTaskRequest.FromString(request).intended_task_id
            if self._grants.tenant_of_job(raw[-4:].hex()) != tenant:
                raise Refusal(f"this task is not one of tenant {tenant}")
        elif call.name in ("FreeLocalObjects", "PinObjectIDs"):
            for raw in getattr(pb, call.name + "Request").FromString(request).object_ids:
                if self._grants.tenant_of_job(raw[20:24].hex()) not in (tenant, None):
                    raise Refusal(f"this object is not one of tenant {tenant}")

    async def _forward(self, call: Call, request: bytes) -> bytes:
        return await self._upstream.forward(call, request)

    async def _lease(self, call: Call, request: bytes) -> bytes:
        message = pb.RequestWorkerLeaseRequest.FromString(request)
        spec = message.lease_spec
        lease = spec.lease_id.hex()
        asking = self._line.ask(_question(call, spec))
        self._held[lease] = asking
        try:
            answer = await asyncio.shield(asking)
        except Refusal as no:
            return _refused(no.text, _UNSCHEDULABLE)
        except asyncio.CancelledError:
            if not asking.done():
                asking.cancel()
                raise
            if asking.cancelled():
                return _refused("the request was taken back", _INTENDED)
            self._give_back(lease)
            raise
        finally:
            self._held.pop(lease, None)
        return await self._granted(call, message, lease, answer)

    async def _granted(self, call: Call, message: Any, lease: str, answer: Mapping[str, Any]) -> bytes:
        if answer.get("tenant"):
            self._grants.add(lease, answer)
            self._admitted(answer)
            fence_spec(message.lease_spec, answer["pools"], answer["head"])
        try:
            raw = await self._forward(call, message.SerializeToString())
            reply = pb.RequestWorkerLeaseReply.FromString(raw)
        except BaseException:
            self._give_back(lease)
            raise
        worker = reply.worker_address.worker_id
        if worker:
            self._grants.settle(lease, worker.hex())
            self._line.tell({"op": "settle", "lease": lease, "worker": worker.hex()}, soon=False)
        else:
            # Spilled to another node, rejected, cancelled: nothing is held here.
            self._give_back(lease)
        return raw

    def _give_back(self, lease: str) -> None:
        self._grants.drop(lease)
        self._line.tell({"op": "release", "lease": lease})


def _question(call: Call, spec: Any) -> Mapping[str, Any]:
    brought = brought_by(spec.runtime_env_info.serialized_runtime_env)
    job = spec.job_id.hex()
    return {
        "op": "acquire",
        "lease": spec.lease_id.hex(),
        "job": job,
        "caller": call.tenant,
        "credential": brought.credential,
        "needs": dict(spec.required_resources),
        "fields": brought.fields,
        "actor": spec.actor_id.hex() if spec.actor_id.strip(b"\xff") else "",
    }


def _nothing(reply: Any) -> bytes:
    raw: bytes = reply().SerializeToString()
    return raw


def _refused(text: str, kind: int) -> bytes:
    reply = pb.RequestWorkerLeaseReply(
        canceled=True, failure_type=kind, scheduling_failure_message="TrainGuard: " + text
    )
    raw: bytes = reply.SerializeToString()
    return raw
