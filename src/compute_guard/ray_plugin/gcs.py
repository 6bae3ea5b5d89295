"""Ray's own truth, over the GCS protocol: jobs, submissions, actors; and the calls that end them.

Message types come from the installed Ray (``ray.core.generated``). Every call carries the system token and a
deadline; any failure is Undecidable. Measured behaviour of these calls: `MarkJobFinished` ends a driver's
tasks and ordinary actors in about 0.15 s and its later ones never schedule; detached actors and placement
groups survive it and are ended one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from compute_guard.ledger.reconcile import Driver, Submission
from guard_core.errors import Undecidable

_JOBS = b"job"  # KV namespace and key prefix of the Job API (ray/dashboard/modules/job/common.py)
_JOB_KEY = "_ray_internal_job_info_"
_SUBMISSION_KEY = "job_submission_id"
_SUPERVISOR = "_ray_internal_job_actor_"
_AGENTS = b"DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX:"
_ACTOR_DEAD = 4
_GROUP_REMOVED = 3
_NODE_ALIVE = 0
DEADLINE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Actor:
    """A living actor: ids in hex."""

    actor_id: str
    job_id: str
    class_name: str
    name: str
    pid: int
    detached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A living node. ``port`` is the raylet's, ``metrics_port`` its agent's Prometheus endpoint."""

    node_id: str
    address: str
    hostname: str
    port: int
    metrics_port: int
    resources: Mapping[str, float]
    labels: Mapping[str, str]


class Gcs:
    """A client of one cluster's GCS. Blocking; safe in threads. Close it when done."""

    def __init__(self, address: str, token: Callable[[], str]) -> None:
        import grpc
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        self._token = token
        self._grpc = grpc
        self._messages = gcs_service_pb2
        # A GCS that restarts is found again within a second.
        options = [("grpc.max_receive_message_length", 1 << 29), ("grpc.max_reconnect_backoff_ms", 1000)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._jobs = gcs_service_pb2_grpc.JobInfoGcsServiceStub(self._channel)
        self._kv = gcs_service_pb2_grpc.InternalKVGcsServiceStub(self._channel)
        self._actors = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(self._channel)
        self._groups = gcs_service_pb2_grpc.PlacementGroupInfoGcsServiceStub(self._channel)
        self._nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(self._channel)
        self._resources = gcs_service_pb2_grpc.NodeResourceInfoGcsServiceStub(self._channel)

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        metadata = [("authorization", f"Bearer {self._token()}")]
        try:
            return method(request, metadata=metadata, timeout=DEADLINE_SECONDS)
        except self._grpc.RpcError as error:
            raise Undecidable(
                f"Ray's GCS did not answer ({error.code().name}: {error.details()}); "
                "run: trainguard compute status"
            ) from error

    def drivers(self, *, living: bool = False) -> list[Driver]:
        """Ray's job table: all of it, which is every driver there ever was, or the living ones."""
        request = self._messages.GetAllJobInfoRequest(
            skip_submission_job_info_field=True, skip_is_running_tasks_field=True
        )
        return [
            Driver(
                job_id=row.job_id.hex(),
                submission_id=dict(row.config.metadata).get(_SUBMISSION_KEY, ""),
                namespace=row.config.ray_namespace,
                pid=row.driver_pid,
                node_ip=row.driver_address.ip_address or row.driver_ip_address,
                entrypoint=row.entrypoint,
                is_dead=row.is_dead,
            )
            for row in self._call(self._jobs.GetAllJobInfo, request).job_info_list
            if not (living and row.is_dead)
        ]

    def nodes(self) -> list[NodeRow]:
        """Living nodes, by id."""
        table = self._call(self._nodes.GetAllNodeInfo, self._messages.GetAllNodeInfoRequest()).node_info_list
        return [
            NodeRow(
                node_id=row.node_id.hex(),
                address=row.node_manager_address,
                hostname=row.node_manager_hostname,
                port=row.node_manager_port,
                metrics_port=row.metrics_export_port,
                resources=dict(row.resources_total),
                labels=dict(row.labels),
            )
            for row in sorted(table, key=lambda row: row.node_id)
            if row.state == _NODE_ALIVE
        ]

    def totals(self) -> dict[str, dict[str, float]]:
        """What each node lends out in all, by node id, as the scheduler knows it now."""
        answer = self._call(
            self._resources.GetAllTotalResources, self._messages.GetAllTotalResourcesRequest()
        )
        return {row.node_id.hex(): dict(row.resources_total) for row in answer.resources_list}

    def available(self) -> dict[str, dict[str, float]]:
        """What of it is free, by node id; a resource that is used up is left out."""
        request = self._messages.GetAllAvailableResourcesRequest()
        answer = self._call(self._resources.GetAllAvailableResources, request)
        return {row.node_id.hex(): dict(row.resources_available) for row in answer.resources_list}

    def submission_ids(self) -> list[str]:
        """Ids of every record of the Job API, ended ones included."""
        request = self._messages.InternalKVKeysRequest(prefix=_JOB_KEY.encode(), namespace=_JOBS)
        keys = self._call(self._kv.InternalKVKeys, request).results
        return sorted(key.decode().removeprefix(_JOB_KEY) for key in keys)

    def submissions(self, ids: Iterable[str]) -> Mapping[str, Submission]:
        """The Job API's records of ``ids``; an id it does not know is left out."""
        keys = [(_JOB_KEY + submission_id).encode() for submission_id in ids]
        if not keys:
            return {}
        request = self._messages.InternalKVMultiGetRequest(keys=keys, namespace=_JOBS)
        found = {}
        for item in self._call(self._kv.InternalKVMultiGet, request).results:
            record = json.loads(item.value)
            found[item.key.decode().removeprefix(_JOB_KEY)] = Submission(
                str(record.get("status", "")), str(record.get("message") or ""), record.get("end_time")
            )
        return found

    def dashboard_address(self) -> str:
        """``host:port`` of the dashboard head."""
        request = self._messages.InternalKVGetRequest(key=b"dashboard", namespace=b"dashboard")
        return str(self._call(self._kv.InternalKVGet, request).value.decode())

    def agent_addresses(self) -> dict[str, str]:
        """``http://host:port`` of every node's dashboard agent, by node id."""
        keys = self._call(
            self._kv.InternalKVKeys,
            self._messages.InternalKVKeysRequest(prefix=_AGENTS, namespace=b"dashboard"),
        ).results
        if not keys:
            return {}
        request = self._messages.InternalKVMultiGetRequest(keys=keys, namespace=b"dashboard")
        return {
            item.key.removeprefix(_AGENTS).decode(): "http://{}:{}".format(*json.loads(item.value)[:2])
            for item in self._call(self._kv.InternalKVMultiGet, request).results
        }

    def actors(self, job_id: str | None = None) -> list[Actor]:
        """Living actors, of one job (hex id) or all."""
        request = self._messages.GetAllActorInfoRequest()
        if job_id is not None:
            request.filters.job_id = bytes.fromhex(job_id)
        return [
            Actor(
                actor_id=row.actor_id.hex(),
                job_id=row.job_id.hex(),
                class_name=row.class_name,
                name=row.name,
                pid=row.pid,
                detached=row.is_detached,
            )
            for row in self._call(self._actors.GetAllActorInfo, request).actor_table_data
            if row.state != _ACTOR_DEAD
        ]

    def supervisors(self) -> Mapping[str, int]:
        """Process id of the Job API's supervisor, by submission id."""
        return {
            actor.name.removeprefix(_SUPERVISOR): actor.pid
            for actor in self.actors()
            if actor.name.startswith(_SUPERVISOR)
        }

    def end_driver(self, job_id: str) -> dict[str, int]:
        """Mark a driver's job finished, kill its remaining actors, remove its placement groups; counts."""
        raw = bytes.fromhex(job_id)
        self._call(self._jobs.MarkJobFinished, self._messages.MarkJobFinishedRequest(job_id=raw))
        actors = self.actors(job_id)
        for actor in actors:
            self._call(
                self._actors.KillActorViaGcs,
                self._messages.KillActorViaGcsRequest(
                    actor_id=bytes.fromhex(actor.actor_id), force_kill=True, no_restart=True
                ),
            )
        groups = self._groups_of(raw)
        for group in groups:
            request = self._messages.RemovePlacementGroupRequest(placement_group_id=group)
            self._call(self._groups.RemovePlacementGroup, request)
        return {"actors": len(actors), "placement_groups": len(groups)}

    def _groups_of(self, job_id: bytes) -> list[bytes]:
        request = self._messages.GetAllPlacementGroupRequest()
        table = self._call(self._groups.GetAllPlacementGroup, request).placement_group_table_data
        return [
            row.placement_group_id
            for row in table
            if row.creator_job_id == job_id and row.state != _GROUP_REMOVED
        ]

    def left_of(self, job_id: str) -> int:
        """How many actors and placement groups of a driver still exist."""
        return len(self.actors(job_id)) + len(self._groups_of(bytes.fromhex(job_id)))
