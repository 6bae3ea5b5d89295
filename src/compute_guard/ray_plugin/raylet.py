"""One node's raylet: what it says about its workers, and how much it lends out.

:func:`workers` is ``NodeManagerService.GetNodeStats`` of the installed Ray: process, job, and which slots of
which resource each worker holds. The slots of ``GPU`` are the indices that Ray puts
into ``CUDA_VISIBLE_DEVICES`` of the worker. This is the scheduler's own view: a task that turns its events
off (``enable_task_events=False``) is in it all the same (about 0.2 s after it starts).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from compute_guard.monitoring.holdings import Worker
from guard_core.errors import Undecidable

_DRIVER = 1
DEADLINE_SECONDS = 5.0
NOBODY_JOB = "ffffffff"


def workers(node_id: str, address: str, token: Callable[[], str]) -> list[Worker]:
    """The living workers and drivers of the raylet at ``address`` (host:port). Raises Undecidable."""
    from ray.core.generated.node_manager_pb2 import GetNodeStatsRequest

    answer = _ask(address, "GetNodeStats", GetNodeStatsRequest(include_memory_info=False), token)
    return [
        Worker(
            node_id=node_id,
            pid=row.pid,
            job_id=row.job_id.hex(),
            actor_id=row.actor_id.hex(),
            is_driver=row.worker_type == _DRIVER,
            held={
                name: tuple((slot.slot, round(slot.allocation * 1000)) for slot in value.resource_slots)
                for name, value in row.used_resources.items()
            },
        )
        for row in answer.core_workers_stats
        if row.job_id.hex() != NOBODY_JOB
    ]


def resize(address: str, resources: Mapping[str, float], token: Callable[[], str]) -> dict[str, float]:
    """Set how much of ``resources`` the raylet lends out, never less than is in use; its totals now.

    Raises Undecidable, also for a resource that Ray does not let anybody resize (GPUs).
    """
    from ray.core.generated.node_manager_pb2 import ResizeLocalResourceInstancesRequest

    request = ResizeLocalResourceInstancesRequest(resources=resources)
    return dict(_ask(address, "ResizeLocalResourceInstances", request, token).total_resources)


def _ask(address: str, method: str, request: Any, token: Callable[[], str]) -> Any:
    import grpc
    from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub

    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 1 << 29)]) as channel:
        try:
            return getattr(NodeManagerServiceStub(channel), method)(
                request, metadata=[("authorization", f"Bearer {token()}")], timeout=DEADLINE_SECONDS
            )
        except grpc.RpcError as error:
            raise Undecidable(
                f"the raylet at {address} did not answer ({error.code().name}); "
                "run: trainguard compute status"
            ) from error
