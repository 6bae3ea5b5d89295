"""What a tenant is shown of lists that hold everybody's. Pure: a reply in, the tenant's part of it out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from compute_guard.admission.ray_body import POOL_LABEL
from compute_guard.ray_plugin.gates.fence import HEAD_RESOURCE
from compute_guard.ray_plugin.gates.namespaces import shown
from compute_guard.ray_plugin.gates.tenancy import Jobs


@dataclass(frozen=True, slots=True)
class View:
    """Whose eyes: the tenant, the pools it may run in, the nodes (ids, dead ones too) in them, and which of
    them (id in hex) stands for the head.
    """

    tenant: str
    jobs: Jobs
    pools: Collection[str]
    nodes: Collection[bytes]
    head: str = ""

    def own(self, raw: bytes) -> bool:
        """Whether an id is of one of the tenant's jobs."""
        return self.jobs.owner(raw) == self.tenant


def _keep(rows: Any, wanted: Callable[[Any], bool]) -> None:
    kept = [row for row in rows if wanted(row)]
    del rows[:]
    rows.extend(kept)


def all_node_info(reply: Any, view: View) -> None:
    """``GetAllNodeInfo``: nodes of the tenant's pools, one of which stands for the head (:mod:`.fence`)."""
    _keep(reply.node_info_list, lambda node: node.labels.get(POOL_LABEL) in view.pools)
    for node in reply.node_info_list:
        if node.node_id.hex() == view.head:
            node.resources_total[HEAD_RESOURCE] = 1.0


def node_addresses(reply: Any, view: View) -> None:
    """``GetAllNodeAddressAndLiveness``."""
    _keep(reply.node_info_list, lambda node: node.node_id in view.nodes)


def all_job_info(reply: Any, view: View) -> None:
    """``GetAllJobInfo``."""
    _keep(reply.job_info_list, lambda job: view.own(job.job_id))
    for job in reply.job_info_list:
        job.config.ray_namespace = shown(job.config.ray_namespace, view.tenant)


def all_actor_info(reply: Any, view: View) -> None:
    """``GetAllActorInfo``."""
    _keep(reply.actor_table_data, lambda actor: view.own(actor.job_id))
    for actor in reply.actor_table_data:
        actor.ray_namespace = shown(actor.ray_namespace, view.tenant)


def named_actor(reply: Any, view: View) -> None:
    """``GetNamedActorInfo`` and ``GetActorInfo``: one actor, already known to be the tenant's."""
    if reply.HasField("actor_table_data"):
        reply.actor_table_data.ray_namespace = shown(reply.actor_table_data.ray_namespace, view.tenant)


def named_actors(reply: Any, view: View) -> None:
    """``ListNamedActors``."""
    suffix = "@" + view.tenant
    _keep(reply.named_actors_list, lambda actor: actor.ray_namespace.endswith(suffix))
    for actor in reply.named_actors_list:
        actor.ray_namespace = shown(actor.ray_namespace, view.tenant)


def all_placement_groups(reply: Any, view: View) -> None:
    """``GetAllPlacementGroup``."""
    _keep(reply.placement_group_table_data, lambda group: view.own(group.creator_job_id))


def task_events(reply: Any, view: View) -> None:
    """``GetTaskEvents``."""
    _keep(reply.events_by_task, lambda event: view.own(event.job_id))


def resources(reply: Any, view: View) -> None:
    """``GetAllAvailableResources`` and ``GetAllTotalResources``: by node."""
    _keep(reply.resources_list, lambda row: row.node_id in view.nodes)


def resource_usage(reply: Any, view: View) -> None:
    """``GetAllResourceUsage``: of one's own nodes what they have and have free, not who waits for it."""
    usage = reply.resource_usage_data
    _keep(usage.batch, lambda row: row.node_id in view.nodes)
    for row in usage.batch:
        row.ClearField("resource_load")
        row.ClearField("resource_load_by_shape")
    usage.ClearField("resource_load_by_shape")
    usage.ClearField("placement_group_load")


def draining(reply: Any, view: View) -> None:
    """``GetDrainingNodes``."""
    _keep(reply.draining_nodes, lambda row: row.node_id in view.nodes)


def published(reply: Any, view: View) -> None:
    """``GcsSubscriberPoll``: messages about the tenant's own jobs, actors and nodes."""
    _keep(reply.pub_messages, lambda message: _concerns(message, view))


def _concerns(message: Any, view: View) -> bool:
    kind = message.WhichOneof("inner_message")
    if kind == "actor_message":
        return view.own(message.actor_message.job_id) or view.own(message.key_id)
    if kind == "job_message":
        return view.own(message.job_message.job_id)
    if kind == "error_info_message":
        return view.own(message.error_info_message.job_id)
    if kind == "log_batch_message":
        return _log_job(message.log_batch_message.job_id, view)
    if kind == "node_info_message":
        node = message.node_info_message
        return node.labels.get(POOL_LABEL) in view.pools or message.key_id in view.nodes
    if kind == "node_address_and_liveness_message":
        return message.key_id in view.nodes
    return kind in ("worker_delta_message", "failure_message")


def _log_job(job_id: str, view: View) -> bool:
    job = view.jobs.get(job_id)
    return job is not None and job.tenant == view.tenant
