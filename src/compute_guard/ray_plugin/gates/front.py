"""A gRPC server in front of another: who calls is found out, then a judge answers, or hands the call on.

Whatever goes wrong while judging is a refusal: :class:`Front` turns every exception into one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

import grpc

from compute_guard.ray_plugin.gates import http2
from compute_guard.ray_plugin.gates.header_blocks import Headers, Violation, literal
from compute_guard.ray_plugin.gates.http2 import Stream
from compute_guard.ray_plugin.gates.upstream import Upstream, carried, cut_short, given_up, reply_of
from compute_guard.ray_plugin.gates.wire import (
    ANSWER,
    DONE,
    PREFIX,
    REMEMBERED,
    Call,
    Failed,
    Heard,
    Metadata,
    Passage,
    Refusal,
    framed,
    heard,
    message_of,
    refused,
)

logger = logging.getLogger(__name__)

MESSAGE_BYTES: Final = 1 << 29
UNFINISHED_BYTES: Final = 1 << 30
"""Of one connection's requests that have not come in whole."""
ALIVE: Final = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 20, socket.TCP_KEEPCNT: 3}
"""Seconds until a silent caller is asked whether it lives, between questions, and how many."""
BACKLOG: Final = 1024
"""Connections that are made while no gate takes them up, or before it does."""
STREAM: Final = "StartSync"  # ray.rpc.syncer.RaySyncer: the only stream of Ray 2.60's control protocols
HEALTH: Final = "grpc.health.v1.Health"
"""Asked without any token, by the GCS; its answer tells nothing but that the process lives."""

Identify = Callable[[Metadata], str | None]
"""The tenant of a call, None for the system. Raises Refusal when neither is proved."""
Judge = Callable[[Call, bytes], Awaitable[bytes]]
"""Answers one unary call for which there is no passage, or raises Refusal."""
Pass = Callable[[Call, bytes], Passage | None]
"""How a call may be handed on for which nothing has to be waited for before; None: the judge answers it.

Raises Refusal. A call that goes this way takes no task, and leaves in the turn of the loop that it came in.
"""


class Front:
    """The serving side of a gate: who calls is found out first, then the judge answers.

    What ``passage`` lets through the judge never sees.
    """

    def __init__(
        self,
        identify: Identify,
        judge: Judge,
        upstream: Upstream,
        passage: Pass = lambda _call, _request: None,
    ) -> None:
        self._identify = identify
        self._judge = judge
        self._upstream = upstream
        self._passage = passage
        self._known: dict[Headers, Heard] = {}

    def heard(self, headers: Headers) -> Heard:
        """What these headers say; callers repeat themselves."""
        known = self._known.get(headers)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[headers] = heard(headers)
        return known

    async def answer(self, heard: Heard, request: bytes, until: float | None, *, no_passage: bool) -> bytes:
        """The reply to one unary call; ``no_passage``: `hand_on` has found none. Raises Refusal, Failed."""
        try:
            left = None if until is None else max(0.0, until - time.monotonic())
            if heard.service == HEALTH:
                return await self._upstream.call(heard.method, request, (), left)
            call = self._call(heard, left)
            passage = None if no_passage else self._passage(call, request)
            if passage is not None:
                return await carried(self._upstream, call, passage)
            return await self._judge(call, request)
        except (Refusal, Failed):
            raise
        except Exception as error:
            raise _unjudged(heard, error) from error

    def _call(self, heard: Heard, left: float | None) -> Call:
        tenant = self._identify(heard.metadata)
        service = heard.service.rpartition(".")[2]
        return Call(service, heard.name, heard.method, tenant, heard.metadata, left)

    def way(self, heard: Heard) -> http2.Connection | None:
        """Where such a call can be handed on at once; None when it cannot be just now."""
        return None if heard.service == HEALTH else self._upstream.ready

    def hand_on(self, way: http2.Connection, heard: Heard, request: bytes, near: Stream) -> Stream | None:
        """Send one unary call on at once, its answer to ``near``: the far stream. Raises Refusal.

        None where there is no passage for it.
        """
        try:
            passage = self._passage(self._call(heard, heard.timeout), request)
        except Refusal:
            raise
        except Exception as error:
            raise _unjudged(heard, error) from error
        if passage is None:
            return None
        try:
            return self._upstream.hand_on(way, heard, passage.request, _Answer(near, heard, passage))
        except Exception as error:
            passage.done(None)
            raise _unjudged(heard, error) from error

    async def pipe(self, heard: Heard, owner: http2.Owner) -> Stream:
        """The other end of a stream of Ray's own processes. Raises Refusal, Failed."""
        if self._identify(heard.metadata) is not None:
            raise Refusal(f"{STREAM} is not open to tenants")
        return await self._upstream.stream(heard.method, heard.metadata, owner)


def _unjudged(heard: Heard, error: Exception) -> Refusal:
    logger.exception("a call to %s was refused because it could not be judged", heard.name)
    return Refusal(f"{heard.name} could not be judged: {error!r}")


def _send(stream: Stream, reply: bytes) -> None:
    stream.send_headers(ANSWER)
    stream.send_data(framed(reply))
    stream.send_headers(DONE, end=True)


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

    __slots__ = ("_connection", "_far", "_front", "_heard", "_parts", "_size", "_stream", "_task", "_until")

    def __init__(self, front: Front, connection: _Served, stream: Stream, heard: Heard) -> None:
        self._front = front
        self._connection = connection
        self._stream = stream
        self._heard = heard
        self._parts: list[bytes] = []
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._far: Stream | None = None
        self._until = None if heard.timeout is None else time.monotonic() + heard.timeout

    def headers(self, headers: Headers, end: bool) -> None:  # noqa: ARG002 - trailers of a request say nothing
        self.data(b"", True)

    def data(self, data: bytes, end: bool) -> None:
        self._size += len(data)
        self._connection.unfinished += len(data)
        self._parts.append(data)
        if end:
            self._connection.unfinished -= self._size
            body = b"".join(self._parts)
            self._parts = []
            self._begin(message_of(body))
        elif self._size > MESSAGE_BYTES or self._connection.unfinished > UNFINISHED_BYTES:
            raise Violation(http2.ENHANCE_YOUR_CALM, "a request without end")

    def lost(self, code: int | None) -> None:  # noqa: ARG002 - either way nobody waits for the answer
        if self._far is not None:
            self._far.give_up()
        elif self._task is not None:
            self._task.cancel()
        else:
            self._connection.unfinished -= self._size

    def _begin(self, request: bytes | None) -> None:
        way = None if request is None else self._front.way(self._heard)
        if way is not None and request is not None:
            try:
                self._far = self._front.hand_on(way, self._heard, request, self._stream)
            except Refusal as no:
                self._stream.send_headers(refused(no.code, PREFIX + no.text), end=True)
                return
            if self._far is not None:
                return
        answer = self._answer(request, no_passage=way is not None)
        self._task = asyncio.get_running_loop().create_task(answer)

    async def _answer(self, request: bytes | None, *, no_passage: bool) -> None:
        stream = self._stream
        try:
            if request is None:
                raise Refusal("this is no whole message", grpc.StatusCode.INTERNAL)
            reply = await self._front.answer(self._heard, request, self._until, no_passage=no_passage)
        except Refusal as no:
            stream.send_headers(refused(no.code, PREFIX + no.text), end=True)
        except Failed as failure:
            stream.send_headers(refused(failure.code, failure.text, failure.details), end=True)
        else:
            _send(stream, reply)


class _Answer:
    """The far end of a call that was handed on: what comes from there is the answer of ``near``."""

    __slots__ = ("_heard", "_near", "_over", "_parts", "_passage")

    def __init__(self, near: Stream, heard: Heard, passage: Passage) -> None:
        self._near = near
        self._heard = heard
        self._passage = passage
        self._parts: list[bytes] = []
        self._over = False

    def headers(self, headers: Headers, end: bool) -> None:
        if not end:
            return
        try:
            reply = reply_of(headers, self._parts)
        except Failed as failure:
            self._fail(failure)
            return
        try:
            self._tell(reply)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller is refused
            no = _unjudged(self._heard, error)
            self._near.send_headers(refused(no.code, PREFIX + no.text), end=True)
        else:
            _send(self._near, reply)

    def data(self, data: bytes, end: bool) -> None:
        self._parts.append(data)
        if end:
            self._fail(cut_short())

    def lost(self, code: int | None) -> None:
        self._fail(given_up(code))

    def _tell(self, reply: bytes | None) -> None:
        if not self._over:
            self._over = True
            self._passage.done(reply)

    def _fail(self, failure: Failed) -> None:
        try:
            self._tell(None)
        except Exception:
            logger.exception("the end of a call to %s was not understood", self._heard.name)
        text = refused(failure.code, failure.text, failure.details)
        self._near.send_headers(text, end=True)


class _Piped:
    """A stream, passed through in both directions. This is the caller's end of it."""

    def __init__(self, front: Front, stream: Stream, heard: Heard) -> None:
        self._stream = stream
        self._far: Stream | None = None
        self._early: list[tuple[bytes, bool]] = []
        self._task = asyncio.get_running_loop().create_task(self._join(front, heard))

    async def _join(self, front: Front, heard: Heard) -> None:
        try:
            far = await front.pipe(heard, _Returning(self._stream))
        except Refusal as no:
            self._stream.send_headers(refused(no.code, PREFIX + no.text), end=True)
            return
        except Failed as failure:
            self._stream.send_headers(refused(failure.code, failure.text), end=True)
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
            raise Violation(http2.ENHANCE_YOUR_CALM, "a stream that does not wait")

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
            self._near.send_headers(refused(grpc.StatusCode.UNAVAILABLE, text), end=True)
        else:
            self._near.reset(code)


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
    connections: set[_Served] = set()
    listener = _held[address].dup() if address in _held else _listener(address)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Served(front, connections), sock=listener, backlog=BACKLOG
    )
    return Serving(server, connections), int(listener.getsockname()[1])


_held: dict[str, socket.socket] = {}


def hold(address: str) -> None:
    """Listen at ``address`` for as long as this process lives, for gates that it forks one after the other.

    While no gate is there, connections are made and wait. Refused, a client of gRPC would wait a second, then
    longer each time, and find a gate that is back after a minute only some twenty seconds later.
    Raises OSError when the port is taken.
    """
    listener = _listener(address)
    listener.listen(BACKLOG)
    _held[address] = listener


def _listener(address: str) -> socket.socket:
    """A socket whose connections end when the machine at their other end is gone without a word."""
    host, _, port = address.rpartition(":")
    family, kind, number, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, number)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What is accepted has the options of what it was accepted on.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ALIVE.items():
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
        listener.bind(place)
    except OSError:
        listener.close()
        raise
    return listener
