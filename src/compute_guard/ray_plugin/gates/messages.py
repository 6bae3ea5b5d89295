"""A GCS call's own messages: its request parsed, and a reply that says no in Ray's words."""

from __future__ import annotations

from typing import Any

import grpc
from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.ray_plugin.gates.wire import Call


def request_of(call: Call, raw: bytes) -> Any:
    """The request of a call."""
    return getattr(pb, call.name + "Request").FromString(raw)


def denied(name: str, text: str) -> bytes:
    """A reply of Ray's own with our words in its status, which become the user's exception."""
    reply = getattr(pb, name + "Reply")()
    reply.status.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
    reply.status.message = "TrainGuard: " + text
    raw: bytes = reply.SerializeToString()
    return raw
