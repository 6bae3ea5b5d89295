"""The server behind a gate, asked over one connection that is made anew when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import grpc

from compute_guard.ray_plugin.gates import http2
from compute_guard.ray_plugin.gates.header_blocks import Headers, literal
from compute_guard.ray_plugin.gates.http2 import Stream
from compute_guard.ray_plugin.gates.wire import (
    DETAILS,
    HOP_BY_HOP,
    REMEMBERED,
    Call,
    Failed,
    Heard,
    Metadata,
    Passage,
    framed,
    message_of,
)

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OF_RESET = {http2.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE, http2.CANCEL: grpc.StatusCode.CANCELLED}
CONNECT_SECONDS = 10.0


class Upstream:
    """The server behind a gate. Calls go out with the system's token, never with the caller's."""

    def __init__(self, address: str, token: Callable[[], str]) -> None:
        self.address = address
        self._token = token
        self._connection: http2.Connection | None = None
        self._connecting: asyncio.Future[http2.Connection] | None = None
        self._blocks: dict[tuple[str, Metadata], bytes] = {}
        self._blocks_token = ""

    def _block(self, method: str, metadata: Metadata) -> bytes:
        token = self._token()
        if token != self._blocks_token or len(self._blocks) >= REMEMBERED:
            self._blocks, self._blocks_token = {}, token
        block = self._blocks.get((method, metadata))
        if block is None:
            kept = tuple((n.encode(), v.encode("latin-1")) for n, v in metadata if n not in HOP_BY_HOP)
            block = literal(
                (
                    (b":method", b"POST"),
                    (b":scheme", b"http"),
                    (b":path", method.encode("latin-1")),
                    (b":authority", self.address.encode()),
                    (b"te", b"trailers"),
                    (b"content-type", b"application/grpc"),
                    *kept,
                    (b"authorization", f"Bearer {token}".encode()),
                )
            )
            self._blocks[method, metadata] = block
        return block

    async def connected(self) -> http2.Connection:
        """The connection, made anew when there is none that takes calls. Raises Failed."""
        current = self.ready
        if current is not None:
            return current
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(self._made)
        return await asyncio.shield(self._connecting)

    @property
    def ready(self) -> http2.Connection | None:
        """The connection, when there is one that takes calls."""
        current = self._connection
        return current if current is not None and not current.closed and not current.draining else None

    def hand_on(
        self, connection: http2.Connection, heard: Heard, request: bytes, owner: http2.Owner
    ) -> Stream:
        """Send a call without waiting; its reply goes to ``owner``.

        The server is told how much time there is; it and the caller see to it that it ends then.
        """
        stream = connection.open(owner)
        block = self._block(heard.method, heard.metadata)
        stream.send_headers(block if heard.timeout is None else block + _within(heard.timeout))
        stream.send_data(framed(request), end=True)
        return stream

    async def _connect(self) -> http2.Connection:
        host, _, port = self.address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, made = await loop.create_connection(http2.Connection, host, int(port))
        except (OSError, TimeoutError) as error:
            text = f"{self.address} cannot be reached: {error}"
            raise Failed(grpc.StatusCode.UNAVAILABLE, text) from error
        self._connection = made
        return made

    def _made(self, done: asyncio.Future[http2.Connection]) -> None:
        self._connecting = None
        if not done.cancelled():
            done.exception()  # whoever waited has heard of it

    async def call(
        self, method: str, request: bytes, metadata: Metadata = (), timeout: float | None = None
    ) -> bytes:
        """The reply to ``request``. Raises Failed."""
        connection = await self.connected()
        asked = _Asked()
        try:
            stream = connection.open(asked)
        except ConnectionError as error:
            raise Failed(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        block = self._block(method, metadata)
        if timeout is not None:
            block += _within(timeout)
        stream.send_headers(block)
        stream.send_data(framed(request), end=True)
        timer = None if timeout is None else asyncio.get_running_loop().call_later(timeout, asked.late)
        try:
            return await asked.reply
        finally:
            if timer is not None:
                timer.cancel()
            if not asked.over:
                stream.reset()

    async def forward(self, call: Call, request: bytes) -> bytes:
        """The reply to ``call``, handed on with its metadata and the time it has left. Raises Failed."""
        return await self.call(call.method, request, call.metadata, call.seconds_left)

    async def stream(self, method: str, metadata: Metadata, owner: http2.Owner) -> Stream:
        """A stream to the server, whose frames go to ``owner``. Raises Failed."""
        connection = await self.connected()
        try:
            stream = connection.open(owner)
        except ConnectionError as error:
            raise Failed(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        stream.send_headers(self._block(method, metadata))
        return stream

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()


async def carried(upstream: Upstream, call: Call, passage: Passage) -> bytes:
    """The reply to ``call``, handed on as ``passage`` says, which hears what became of it. Raises Failed."""
    try:
        reply = await upstream.forward(call, passage.request)
    except BaseException:
        passage.done(None)
        raise
    passage.done(reply)
    return reply


class _Asked:
    """One call to the server behind: its reply, as it comes in."""

    __slots__ = ("_parts", "over", "reply")

    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.over = False
        self._parts: list[bytes] = []

    def headers(self, headers: Headers, end: bool) -> None:
        if not end:
            return
        self.over = True
        try:
            message = reply_of(headers, self._parts)
        except Failed as failure:
            self._fail(failure)
        else:
            if not self.reply.done():
                self.reply.set_result(message)

    def data(self, data: bytes, end: bool) -> None:
        self._parts.append(data)
        if end:
            self.over = True
            self._fail(cut_short())

    def lost(self, code: int | None) -> None:
        self.over = True
        self._fail(given_up(code))

    def late(self) -> None:
        text = "the server behind the gate did not answer in time"
        self._fail(Failed(grpc.StatusCode.DEADLINE_EXCEEDED, text))

    def _fail(self, failure: Failed) -> None:
        if not self.reply.done():
            self.reply.set_exception(failure)


def _within(seconds: float) -> bytes:
    """The header that tells a server how long its caller waits."""
    return literal(((b"grpc-timeout", b"%dm" % max(1, min(99_999_999, int(seconds * 1000)))),))


def reply_of(trailers: Headers, parts: Sequence[bytes]) -> bytes:
    """The reply of a call that ended with ``trailers``. Raises Failed."""
    found = dict(trailers)
    try:
        status = int(found[b"grpc-status"])
    except (KeyError, ValueError):
        text = f"no gRPC server answered (HTTP {found.get(b':status', b'?').decode('latin-1')})"
        raise Failed(grpc.StatusCode.UNAVAILABLE, text) from None
    if status != 0:
        text = unquote(found.get(b"grpc-message", b"").decode("latin-1"))
        raise Failed(_CODES.get(status, grpc.StatusCode.UNKNOWN), text, found.get(DETAILS, b""))
    message = message_of(parts[0] if len(parts) == 1 else b"".join(parts))
    if message is None:
        raise Failed(grpc.StatusCode.INTERNAL, "the reply is no whole message")
    return message


def cut_short() -> Failed:
    """What became of a call whose reply ended without trailers."""
    return Failed(grpc.StatusCode.INTERNAL, "the reply ended without a status")


def given_up(code: int | None) -> Failed:
    """What became of a call whose stream was reset with ``code``, or with None lost its connection."""
    if code is None:
        return Failed(grpc.StatusCode.UNAVAILABLE, "the connection to the server behind the gate ended")
    return Failed(_OF_RESET.get(code, grpc.StatusCode.UNKNOWN), f"the call was reset ({code})")
