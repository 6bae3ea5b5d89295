"""One gRPC server in front of another: raw bytes in, a judge's answer or the upstream's reply out.

Built on ``grpc.aio`` with no (de)serialisers, so that a call nobody has to look at costs no parsing.
Whatever goes wrong while judging is a refusal: :class:`Front` turns every exception into one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 1 << 29
OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 32 * 1024),
    ("grpc.so_reuseport", 0),
)
PREFIX = "TrainGuard: "
STREAM = "StartSync"  # ray.rpc.syncer.RaySyncer: the only stream of Ray 2.60's control protocols
HEALTH = "grpc.health.v1.Health"
"""Asked without any token, by the GCS; its answer tells nothing but that the process lives."""
_HOP_BY_HOP = frozenset({"user-agent", "authorization", "te", "content-type"})
Metadata = tuple[tuple[str, str | bytes], ...]


class Refusal(Exception):
    """The gate says no. ``text`` reaches the caller's error."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.PERMISSION_DENIED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


@dataclass(frozen=True, slots=True)
class Call:
    """One call to be judged. ``tenant`` is None for Ray's own processes (the system)."""

    service: str
    name: str
    method: str
    tenant: str | None
    metadata: Metadata
    seconds_left: float | None


class Upstream:
    """The server behind a gate. Calls go out with the system's token, never with the caller's."""

    def __init__(self, address: str, token: Callable[[], str]) -> None:
        self.address = address
        self._token = token
        self._channel = aio.insecure_channel(address, options=OPTIONS)
        self._calls: dict[str, Any] = {}

    def _metadata(self, metadata: Metadata) -> Metadata:
        kept = tuple(item for item in metadata if item[0] not in _HOP_BY_HOP)
        return (*kept, ("authorization", f"Bearer {self._token()}"))

    async def call(
        self, method: str, request: bytes, metadata: Metadata = (), timeout: float | None = None
    ) -> bytes:
        """The reply to ``request``. Raises grpc.aio.AioRpcError."""
        ask = self._calls.get(method)
        if ask is None:
            ask = self._calls[method] = self._channel.unary_unary(method)
        reply: bytes = await ask(request, metadata=self._metadata(metadata), timeout=timeout)
        return reply

    async def stream(
        self, method: str, requests: AsyncIterator[bytes], metadata: Metadata, context: Any
    ) -> AsyncIterator[bytes]:
        """Pass a stream through in both directions, initial metadata included."""
        call = self._channel.stream_stream(method)(metadata=self._metadata(metadata))
        initial = await call.initial_metadata()
        await context.send_initial_metadata(tuple(initial))

        async def forward() -> None:
            async for request in requests:
                await call.write(request)
            await call.done_writing()

        sending = asyncio.ensure_future(forward())
        try:
            async for reply in call:
                yield reply
        finally:
            sending.cancel()
            call.cancel()

    async def close(self) -> None:
        """Give the connection back."""
        await self._channel.close()


Identify = Callable[[Metadata], str | None]
"""The tenant of a call, None for the system. Raises Refusal when neither is proved."""
Judge = Callable[[Call, bytes], Awaitable[bytes]]
"""Answers one unary call, or raises Refusal."""


class Front(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """The serving side of a gate: who calls is found out first, then the judge answers."""

    def __init__(self, identify: Identify, judge: Judge, upstream: Upstream) -> None:
        self._identify = identify
        self._judge = judge
        self._upstream = upstream

    def service(self, handler_call_details: Any) -> Any:
        """grpc's look-up: every method of every service is ours to judge."""
        method: str = handler_call_details.method
        metadata: Metadata = tuple(handler_call_details.invocation_metadata or ())
        _, service, name = method.split("/", 2) if method.count("/") == 2 else ("", "", method)
        if name == STREAM:
            return grpc.stream_stream_rpc_method_handler(self._streaming(method, metadata))

        async def unary(request: bytes, context: Any) -> Any:
            try:
                if service == HEALTH:
                    return await self._upstream.call(method, request, (), context.time_remaining())
                tenant = self._identify(metadata)
                call = Call(
                    service.rpartition(".")[2], name, method, tenant, metadata, context.time_remaining()
                )
                return await self._judge(call, request)
            except Refusal as no:
                await context.abort(no.code, PREFIX + no.text)
            except aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
            except asyncio.CancelledError:
                raise
            except Exception as error:
                logger.exception("a call to %s was refused because it could not be judged", name)
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED, f"{PREFIX}{name} could not be judged: {error!r}"
                )

        return grpc.unary_unary_rpc_method_handler(unary)

    def _streaming(self, method: str, metadata: Metadata) -> Any:
        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            try:
                tenant = self._identify(metadata)
            except Refusal as no:
                await context.abort(no.code, PREFIX + no.text)
            if tenant is not None:
                text = f"{PREFIX}{STREAM} is not open to tenants"
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
            async for reply in self._upstream.stream(method, requests, metadata, context):
                yield reply

        return stream


async def serve(front: Front, address: str) -> tuple[Any, int]:
    """A running server for ``front`` and its port. Raises OSError when the port is taken."""
    server = aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((front,))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if port == 0:
        raise OSError(f"cannot listen on {address}")
    await server.start()
    return server, port
