"""Long polls for what the GCS publishes: a tenant is shown its own part, and the rest counts as seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.ray_plugin.gates import replies
from compute_guard.ray_plugin.gates.messages import request_of
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.wire import Call


class Polls:
    """Call from one event loop."""

    def __init__(self, upstream: Upstream, view: Callable[[str], Awaitable[replies.View]]) -> None:
        self._upstream = upstream
        self._view = view

    async def poll(self, call: Call, tenant: str, request: bytes) -> bytes:
        """Answer when there is something for the tenant, or nothing at all.

        A subscriber confirms what it was shown in its next poll (Ray's python_gcs_subscriber.cc and
        subscriber.cc). What was left out it never confirms, so the GCS would answer that poll with the same
        again, at once and without end. The gate confirms it instead and asks on.
        """
        message: Any = request_of(call, request)
        while True:
            raw = await self._upstream.forward(call, message.SerializeToString())
            reply: Any = pb.GcsSubscriberPollReply.FromString(raw)
            last = max((each.sequence_id for each in reply.pub_messages), default=0)
            before = message.max_processed_sequence_id if reply.publisher_id == message.publisher_id else 0
            replies.published(reply, await self._view(tenant))
            if reply.pub_messages or last <= before:
                shown: bytes = reply.SerializeToString()
                return shown
            message.max_processed_sequence_id, message.publisher_id = last, reply.publisher_id
