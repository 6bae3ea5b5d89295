"""The lease gateway of one node: every task, nested task and actor passes it at the moment it gets resources.

A refused lease becomes the user's own exception (``TaskUnschedulableError``, ``ActorUnschedulableError``)
with our words in it; a lease for which there is no room is simply not answered yet, which Ray shows as
pending.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError
from ray.core.generated import node_manager_pb2 as pb

from compute_guard.ray_plugin.gates.allowance import Allowance
from compute_guard.ray_plugin.gates.environment import brought_by
from compute_guard.ray_plugin.gates.fence import fence_spec
from compute_guard.ray_plugin.gates.grants import Grants
from compute_guard.ray_plugin.gates.link import Line
from compute_guard.ray_plugin.gates.upstream import Upstream, carried
from compute_guard.ray_plugin.gates.wire import Call, Passage, Refusal

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
REPORT_SECONDS = 0.05


class LeaseGate:
    """Judges the calls to one raylet."""

    def __init__(
        self,
        upstream: Upstream,
        line: Line,
        grants: Grants,
        admitted: Callable[[Mapping[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._line = line
        self._grants = grants
        self._admitted = admitted
        self._held: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._clock = clock
        self.allowance = Allowance(clock)
        self._due: asyncio.TimerHandle | None = None

    async def __call__(self, call: Call, request: bytes) -> bytes:
        """Answer one call that `passage` left open. Raises Refusal."""
        if call.name == "RequestWorkerLease":
            return await self._lease(call, request)
        if call.name == "PrestartWorkers":
            # A worker without a lease would be one without a tenant; Ray takes this as a hint only.
            return _nothing(pb.PrestartWorkersReply)
        if call.name == "CancelWorkerLease":
            lease = pb.CancelWorkerLeaseRequest.FromString(request).lease_id.hex()
            held = self._held.get(lease)
            if held is not None and self._grants.get(lease) is None:
                held.cancel()
                return _nothing(pb.CancelWorkerLeaseReply)
        return await self._upstream.forward(call, request)

    def passage(self, call: Call, request: bytes) -> Passage | None:
        """How a call is handed on about which nobody has to be asked. Raises Refusal."""
        if call.tenant is not None:
            if call.name not in TENANT_CALLS:
                raise Refusal(f"{call.name} is not open to tenants")
            self._own(call, request)
        if call.name not in _TELLING:
            return Passage(request)
        if call.name == "ReturnWorkerLease":
            lease = pb.ReturnWorkerLeaseRequest.FromString(request).lease_id.hex()
            return Passage(request, partial(self._returned, lease))
        if call.name == "RequestWorkerLease":
            message = pb.RequestWorkerLeaseRequest.FromString(request)
            lease = message.lease_spec.lease_id.hex()
            # One that is held already is asked for again by an owner that did not hear the answer.
            if self._grants.get(lease) is None:
                answer = self.allowance.grant(_question(call, message.lease_spec), lease)
                if answer is not None:
                    self._report_soon()
                    return self._granted(message, lease, answer)
        return None

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

    async def _lease(self, call: Call, request: bytes) -> bytes:
        message = pb.RequestWorkerLeaseRequest.FromString(request)
        spec = message.lease_spec
        lease = spec.lease_id.hex()
        question = _question(call, spec)
        again = self._grants.get(lease) is not None
        asked_at = self._clock()
        learn = partial(self.allowance.learn, question, asked_at=asked_at)
        asking = self._line.ask(question.message(lease), learn)
        self._held[lease] = asking
        try:
            answer = await asyncio.shield(asking)
        except Refusal as no:
            return _refused(no.text, _UNSCHEDULABLE)
        except asyncio.CancelledError:
            taken_back = asking.cancelled()
            if again:
                raise  # what was granted before is held all the same, so the head is not told otherwise
            asking.cancel()
            if self._held.get(lease) is asking:
                # The head hears that nobody asks any more; should it have answered already, it hears this.
                asyncio.get_running_loop().call_soon(self._line.tell, {"op": "release", "lease": lease})
            if taken_back:
                return _refused("the request was taken back", _INTENDED)
            raise
        finally:
            if self._held.get(lease) is asking:
                del self._held[lease]
        return await carried(self._upstream, call, self._granted(message, lease, answer))

    def _granted(self, message: Any, lease: str, answer: Mapping[str, Any]) -> Passage:
        """How a lease that the head or an allowance gave is handed on, behind its fence."""
        if answer.get("tenant"):
            self._grants.add(lease, answer)
        try:
            if answer.get("tenant"):
                self._admitted(answer)
                fence_spec(message.lease_spec, answer["pools"], answer["head"], answer["closed"])
            fenced = message.SerializeToString()
        except BaseException:
            self.give_back(lease)
            raise
        return Passage(fenced, partial(self._placed, lease))

    def _placed(self, lease: str, raw: bytes | None) -> None:
        """What became of a granted lease; None: the raylet did not answer, or nobody waits any more."""
        try:
            reply = pb.RequestWorkerLeaseReply.FromString(raw or b"")
        except DecodeError:
            self.give_back(lease)
            raise
        worker = reply.worker_address.worker_id
        if worker:
            self._grants.settle(lease, worker.hex())
            if not self.allowance.untold(lease):
                self._line.tell({"op": "settle", "lease": lease, "worker": worker.hex()}, soon=False)
        else:
            # Spilled to another node, rejected, cancelled: nothing is held here.
            self.give_back(lease)

    def _returned(self, lease: str, reply: bytes | None) -> None:
        """A lease came back; what it held stays here for the next one, if there is one soon."""
        if reply is None:
            return  # the raylet has not heard it
        grant = self._grants.get(lease)
        if grant is not None and self.allowance.keep(grant):
            self._grants.drop(lease)
            self._report_soon()
        else:
            self.give_back(lease)

    def give_back(self, lease: str) -> None:
        """A lease has ended, and what it held goes back to the head."""
        grant = self._grants.drop(lease)
        if grant is not None and self.allowance.ended(grant):
            self._report()
        else:
            self._line.tell({"op": "release", "lease": lease})

    # --- what the head and this gate tell one another

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take what the head says without being asked; what is not known is for a later version."""
        op = message.get("op")
        if op == "heard":
            self.allowance.heard(message["number"], message["terms"])
            return
        if op == "terms":
            self.allowance.change(message["terms"])
        elif op == "recall":
            self.allowance.recall(message["workload"])
        elif op == "anew":
            self.allowance.forget(workload=message["workload"])
        elif op == "over":
            self.allowance.forget(job=message["job"])
            for lease in self._grants.of_job(message["job"]):
                self.give_back(lease)
        elif op == "gone":
            for lease in self._grants.of_worker(message["worker"]):
                self.give_back(lease)
        self._report()

    def _report_soon(self) -> None:
        if self._due is None and self.allowance.active:
            self._due = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report)

    def _report(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self.allowance.trim()
        if self.allowance.active:
            self._line.tell(self.allowance.report(self._grants))
        self._report_soon()


@dataclass(frozen=True, slots=True)
class _Question:
    """What decides about a lease: two leases with the same question get the same answer."""

    job: str
    caller: str | None
    credential: str
    needs: tuple[tuple[str, float], ...]
    fields: tuple[str, ...]

    def message(self, lease: str) -> Mapping[str, Any]:
        """As it is put to the head."""
        return {
            "op": "acquire",
            "lease": lease,
            "job": self.job,
            "caller": self.caller,
            "credential": self.credential,
            "needs": dict(self.needs),
            "fields": self.fields,
        }


def _question(call: Call, spec: Any) -> _Question:
    brought = brought_by(spec.runtime_env_info.serialized_runtime_env)
    needs = tuple(sorted(spec.required_resources.items()))
    return _Question(spec.job_id.hex(), call.tenant, brought.credential, needs, brought.fields)


def _nothing(reply: Any) -> bytes:
    raw: bytes = reply().SerializeToString()
    return raw


def _refused(text: str, kind: int) -> bytes:
    reply = pb.RequestWorkerLeaseReply(
        canceled=True, failure_type=kind, scheduling_failure_message="TrainGuard: " + text
    )
    raw: bytes = reply.SerializeToString()
    return raw
