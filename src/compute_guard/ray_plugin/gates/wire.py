"""One gRPC server in front of another: raw bytes in, a judge's answer or the upstream's reply out.

gRPC's own framing over :mod:`.http2`, with no (de)serialisers, so that a call nobody has to look at costs no
parsing. Whatever goes wrong while judging is a refusal: :class:`Front` turns every exception into one.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes, unquote

import grpc

from compute_guard.ray_plugin.gates import http2
from compute_guard.ray_plugin.gates.http2 import Headers, Stream, literal

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 1 << 29
UNFINISHED_BYTES = 1 << 30
"""Of one connection's requests that have not come in whole."""
PREFIX = "TrainGuard: "
STREAM = "StartSync"  # ray.rpc.syncer.RaySyncer: the only stream of Ray 2.60's control protocols
HEALTH = "grpc.health.v1.Health"
"""Asked without any token, by the GCS; its answer tells nothing but that the process lives."""
_HOP_BY_HOP = frozenset({"user-agent", "authorization", "te", "content-type", "grpc-timeout"})
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OF_RESET = {http2.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE, http2.CANCEL: grpc.StatusCode.CANCELLED}
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_DETAILS = b"grpc-status-details-bin"
_ANSWER = b"\x88" + literal(((b"content-type", b"application/grpc"),))
"""``:status: 200`` (static table, 8) and the content type: the headers of every answer."""
_DONE = literal(((b"grpc-status", b"0"),))
_REMEMBERED = 1000
CONNECT_SECONDS = 10.0
Metadata = tuple[tuple[str, str], ...]


class Refusal(Exception):
    """The gate says no. ``text`` reaches the caller's error."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.PERMISSION_DENIED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Failed(Exception):
    """The server behind the gate answered with an error, or not at all."""

    def __init__(self, code: grpc.StatusCode, text: str, details: bytes = b"") -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text
        self.details = details


@dataclass(frozen=True, slots=True)
class Call:
    """One call to be judged. ``tenant`` is None for Ray's own processes (the system)."""

    service: str
    name: str
    method: str
    tenant: str | None
    metadata: Metadata
    seconds_left: float | None


# --- the client's side


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
        if token != self._blocks_token or len(self._blocks) >= _REMEMBERED:
            self._blocks, self._blocks_token = {}, token
        block = self._blocks.get((method, metadata))
        if block is None:
            kept = tuple((n.encode(), v.encode("latin-1")) for n, v in metadata if n not in _HOP_BY_HOP)
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
        current = self._connection
        if current is not None and not current.closed and not current.draining:
            return current
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(self._made)
        return await asyncio.shield(self._connecting)

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
            block += literal(((b"grpc-timeout", b"%dm" % max(1, min(99_999_999, int(timeout * 1000)))),))
        stream.send_headers(block)
        stream.send_data(_framed(request), end=True)
        timer = None if timeout is None else asyncio.get_running_loop().call_later(timeout, asked.late)
        try:
            return await asked.reply
        finally:
            if timer is not None:
                timer.cancel()
            if not asked.over:
                stream.reset()

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
        found = dict(headers)
        try:
            status = int(found[b"grpc-status"])
        except (KeyError, ValueError):
            text = f"no gRPC server answered (HTTP {found.get(b':status', b'?').decode('latin-1')})"
            self._fail(grpc.StatusCode.UNAVAILABLE, text)
            return
        if status != 0:
            text = unquote(found.get(b"grpc-message", b"").decode("latin-1"))
            self._fail(_CODES.get(status, grpc.StatusCode.UNKNOWN), text, found.get(_DETAILS, b""))
            return
        message = _message(b"".join(self._parts))
        if message is None:
            self._fail(grpc.StatusCode.INTERNAL, "the reply is no whole message")
        elif not self.reply.done():
            self.reply.set_result(message)

    def data(self, data: bytes, end: bool) -> None:
        self._parts.append(data)
        if end:
            self.over = True
            self._fail(grpc.StatusCode.INTERNAL, "the reply ended without a status")

    def lost(self, code: int | None) -> None:
        self.over = True
        if code is None:
            self._fail(grpc.StatusCode.UNAVAILABLE, "the connection to the server behind the gate ended")
        else:
            self._fail(_OF_RESET.get(code, grpc.StatusCode.UNKNOWN), f"the call was reset ({code})")

    def late(self) -> None:
        self._fail(grpc.StatusCode.DEADLINE_EXCEEDED, "the server behind the gate did not answer in time")

    def _fail(self, code: grpc.StatusCode, text: str, details: bytes = b"") -> None:
        if not self.reply.done():
            self.reply.set_exception(Failed(code, text, details))


# --- the server's side

Identify = Callable[[Metadata], str | None]
"""The tenant of a call, None for the system. Raises Refusal when neither is proved."""
Judge = Callable[[Call, bytes], Awaitable[bytes]]
"""Answers one unary call, or raises Refusal."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the headers of a call say."""

    method: str
    service: str
    name: str
    metadata: Metadata
    timeout: float | None


def _heard(headers: Headers) -> _Heard:
    method, metadata, timeout = "", [], None
    for name, value in headers:
        if name == b":path":
            method = value.decode("latin-1")
        elif name == b"grpc-timeout":
            found = _TIMEOUT.fullmatch(value)
            timeout = None if found is None else int(found[1]) * _UNITS[found[2]]
        elif not name.startswith(b":"):
            metadata.append((name.decode("latin-1"), value.decode("latin-1")))
    _, service, name_ = method.split("/", 2) if method.count("/") == 2 else ("", "", method)
    return _Heard(method, service, name_, tuple(metadata), timeout)


class Front:
    """The serving side of a gate: who calls is found out first, then the judge answers."""

    def __init__(self, identify: Identify, judge: Judge, upstream: Upstream) -> None:
        self._identify = identify
        self._judge = judge
        self._upstream = upstream
        self._known: dict[Headers, _Heard] = {}

    def heard(self, headers: Headers) -> _Heard:
        """What these headers say; callers repeat themselves."""
        heard = self._known.get(headers)
        if heard is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            heard = self._known[headers] = _heard(headers)
        return heard

    def tenant(self, heard: _Heard) -> str | None:
        """Who calls. Raises Refusal."""
        return self._identify(heard.metadata)

    async def answer(self, heard: _Heard, request: bytes, until: float | None) -> bytes:
        """The reply to one unary call. Raises Refusal, Failed."""
        try:
            left = None if until is None else max(0.0, until - time.monotonic())
            if heard.service == HEALTH:
                return await self._upstream.call(heard.method, request, (), left)
            tenant = self._identify(heard.metadata)
            service = heard.service.rpartition(".")[2]
            call = Call(service, heard.name, heard.method, tenant, heard.metadata, left)
            return await self._judge(call, request)
        except (Refusal, Failed):
            raise
        except Exception as error:
            logger.exception("a call to %s was refused because it could not be judged", heard.name)
            raise Refusal(f"{heard.name} could not be judged: {error!r}") from error

    async def pipe(self, heard: _Heard, owner: http2.Owner) -> Stream:
        """The other end of a stream of Ray's own processes. Raises Refusal, Failed."""
        if self._identify(heard.metadata) is not None:
            raise Refusal(f"{STREAM} is not open to tenants")
        return await self._upstream.stream(heard.method, heard.metadata, owner)


class _Served(http2.ServerConnection):
    """One caller's connection."""

    def __init__(self, front: Front, everybody: set[_Served]) -> None:
        super().__init__()
        self._front = front
        self._everybody = everybody
        self.unfinished = 0
        everybody.add(self)

    def accept(self, stream: Stream, headers: Headers) -> None:
        heard = self._front.heard(headers)
        if heard.name == STREAM:
            stream.owner = _Piped(self._front, stream, heard)
        else:
            stream.owner = _Answering(self._front, self, stream, heard)
            if stream.ended_there:
                stream.owner.data(b"", True)

    def ended(self) -> None:
        self._everybody.discard(self)


class _Answering:
    """One unary call: its request as it comes in, then its answer."""

    __slots__ = ("_connection", "_front", "_heard", "_parts", "_size", "_stream", "_task", "_until")

    def __init__(self, front: Front, connection: _Served, stream: Stream, heard: _Heard) -> None:
        self._front = front
        self._connection = connection
        self._stream = stream
        self._heard = heard
        self._parts: list[bytes] = []
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._until = None if heard.timeout is None else time.monotonic() + heard.timeout

    def headers(self, headers: Headers, end: bool) -> None:  # noqa: ARG002 - trailers of a request say nothing
        self.data(b"", True)

    def data(self, data: bytes, end: bool) -> None:
        self._size += len(data)
        self._connection.unfinished += len(data)
        self._parts.append(data)
        if end:
            self._connection.unfinished -= self._size
            self._task = asyncio.get_running_loop().create_task(self._answer(b"".join(self._parts)))
            self._parts = []
        elif self._size > MESSAGE_BYTES or self._connection.unfinished > UNFINISHED_BYTES:
            raise http2.Violation(http2.ENHANCE_YOUR_CALM, "a request without end")

    def lost(self, code: int | None) -> None:  # noqa: ARG002 - either way nobody waits for the answer
        if self._task is not None:
            self._task.cancel()
        else:
            self._connection.unfinished -= self._size

    async def _answer(self, body: bytes) -> None:
        stream, request = self._stream, _message(body)
        try:
            if request is None:
                raise Refusal("this is no whole message", grpc.StatusCode.INTERNAL)
            reply = await self._front.answer(self._heard, request, self._until)
        except Refusal as no:
            stream.send_headers(_refused(no.code, PREFIX + no.text), end=True)
        except Failed as failure:
            stream.send_headers(_refused(failure.code, failure.text, failure.details), end=True)
        else:
            stream.send_headers(_ANSWER)
            stream.send_data(_framed(reply))
            stream.send_headers(_DONE, end=True)


class _Piped:
    """A stream, passed through in both directions. This is the caller's end of it."""

    def __init__(self, front: Front, stream: Stream, heard: _Heard) -> None:
        self._stream = stream
        self._far: Stream | None = None
        self._early: list[tuple[bytes, bool]] = []
        self._task = asyncio.get_running_loop().create_task(self._join(front, heard))

    async def _join(self, front: Front, heard: _Heard) -> None:
        try:
            far = await front.pipe(heard, _Returning(self._stream))
        except Refusal as no:
            self._stream.send_headers(_refused(no.code, PREFIX + no.text), end=True)
            return
        except Failed as failure:
            self._stream.send_headers(_refused(failure.code, failure.text), end=True)
            return
        self._far = far
        for data, end in self._early:
            far.send_data(data, end=end)
        self._early = []

    def headers(self, headers: Headers, end: bool) -> None:  # noqa: ARG002 - as of a unary call
        self.data(b"", True)

    def data(self, data: bytes, end: bool) -> None:
        if self._far is not None:
            self._far.send_data(data, end=end)
            return
        self._early.append((data, end))
        if sum(len(early) for early, _ in self._early) > http2.OUR_WINDOW:
            raise http2.Violation(http2.ENHANCE_YOUR_CALM, "a stream that does not wait")

    def lost(self, code: int | None) -> None:
        self._task.cancel()
        if self._far is not None:
            self._far.reset(http2.CANCEL if code is None else code)


class _Returning:
    """The far end of a passed-through stream: what comes from there goes to ``near``."""

    def __init__(self, near: Stream) -> None:
        self._near = near

    def headers(self, headers: Headers, end: bool) -> None:
        self._near.send_headers(literal(headers), end=end)

    def data(self, data: bytes, end: bool) -> None:
        self._near.send_data(data, end=end)

    def lost(self, code: int | None) -> None:
        if code is None:
            text = "the connection to the server behind the gate ended"
            self._near.send_headers(_refused(grpc.StatusCode.UNAVAILABLE, text), end=True)
        else:
            self._near.reset(code)


def _refused(code: grpc.StatusCode, text: str, details: bytes = b"") -> bytes:
    said = quote_from_bytes(text.encode(), safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
    more = ((_DETAILS, details),) if details else ()
    return _ANSWER + literal(((b"grpc-status", b"%d" % code.value[0]), (b"grpc-message", said), *more))


def _framed(message: bytes) -> bytes:
    """gRPC's message: not compressed, four bytes of length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _message(body: bytes) -> bytes | None:
    """The one message of a body; None when it is not one, whole and not compressed."""
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
        return None
    return body[5:]


class Serving:
    """A front that listens."""

    def __init__(self, server: asyncio.Server, connections: set[_Served]) -> None:
        self._server = server
        self._connections = connections

    async def stop(self) -> None:
        """End it with all its connections."""
        self._server.close()
        for connection in list(self._connections):
            connection.close()
        await self._server.wait_closed()


async def serve(front: Front, address: str) -> tuple[Serving, int]:
    """A running server for ``front`` and its port. Raises OSError when the port is taken."""
    host, _, port = address.rpartition(":")
    connections: set[_Served] = set()
    server: Any = await asyncio.get_running_loop().create_server(
        lambda: _Served(front, connections), host, int(port), backlog=1024
    )
    return Serving(server, connections), int(server.sockets[0].getsockname()[1])
