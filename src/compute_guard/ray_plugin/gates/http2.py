"""HTTP/2 (RFC 9113) as gRPC speaks it: one connection, either end, on an asyncio transport.

A gate hands on calls by the thousand, and in ``grpc.aio`` a handed-on call costs four times what judging it
does (docs/measures/ray_overhead.md). Here a call is a few frames in and a few frames out.

What a peer sends wrong ends the connection; what it sends too much of (open streams, headers, frame sizes) is
bounded.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Any, Protocol

from compute_guard.ray_plugin.gates.header_blocks import HEADER_BYTES, Blocks, Headers, Violation

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RESET, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = range(10)
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _WITH_PRIORITY = 0x4, 0x8, 0x20
_TABLE_SIZE, _ENABLE_PUSH, _STREAMS, _INITIAL_WINDOW, _FRAME_SIZE, _HEADERS_SIZE = range(1, 7)
NO_ERROR, PROTOCOL_ERROR, FLOW_ERROR, CANCEL, REFUSED_STREAM = 0x0, 0x1, 0x3, 0x8, 0x7
FRAME_SIZE_ERROR, ENHANCE_YOUR_CALM = 0x6, 0xB

_FRAME = struct.Struct(">BHBBL")
"""Length (of 24 bits), kind, flags and stream of a frame."""
OUR_FRAME = 1 << 20
OUR_WINDOW = 4 << 20
OUR_CONNECTION_WINDOW = 1 << 28
OPEN_STREAMS = 20_000
_LARGEST_WINDOW = 2**31 - 1
_LAST_STREAM = 2**31 - 3


class Owner(Protocol):
    """Who is told what comes in on a stream."""

    def headers(self, headers: Headers, end: bool) -> None:
        """Headers came, or trailers (``end``)."""

    def data(self, data: bytes, end: bool) -> None:
        """Data came; ``end``: nothing follows."""

    def lost(self, code: int | None) -> None:
        """The stream was reset with ``code``, or with None its connection has ended."""


class Stream:
    """One stream of a connection, as seen from this end."""

    __slots__ = ("_ended_here", "_unread", "_waiting", "connection", "ended_there", "id", "owner", "window")

    def __init__(self, connection: Connection, number: int, window: int) -> None:
        self.connection = connection
        self.id = number
        self.window = window
        self.owner: Owner | None = None
        self.ended_there = False
        self._ended_here = False
        self._unread = 0
        self._waiting: deque[tuple[int, bytes | memoryview, bool]] = deque()

    def send_headers(self, block: bytes, *, end: bool = False) -> None:
        """Send an encoded block (:func:`literal`)."""
        self._send(_HEADERS, block, end)

    def send_data(self, data: bytes, *, end: bool = False) -> None:
        """Send ``data``, at once as far as the peer's windows allow."""
        self._send(_DATA, data, end)

    def reset(self, code: int = CANCEL) -> None:
        """Give the stream up."""
        if self.connection.forget(self):
            self.connection.write_frame(_RESET, 0, self.id, code.to_bytes(4, "big"))

    def give_up(self) -> None:
        """The caller of this call is gone: nobody waits for the answer, and its owner hears so."""
        if self.id in self.connection.streams:
            self.reset()
            if self.owner is not None:
                self.owner.lost(CANCEL)

    def _send(self, kind: int, payload: bytes, end: bool) -> None:
        if self._ended_here or self.connection.streams.get(self.id) is not self:
            return  # the peer has given it up
        self._ended_here = end
        connection = self.connection
        if not self._waiting and (kind == _HEADERS or len(payload) <= min(self.window, connection.window)):
            # Nearly always: nothing is before it, and it fits.
            if kind == _HEADERS:
                connection.write_headers(self.id, payload, end)
            else:
                self._write(payload, end)
            if end and self.ended_there:
                connection.forget(self)
            return
        self._waiting.append((kind, payload, end))
        if len(self._waiting) == 1:
            self.pump()

    def pump(self) -> None:
        """Send what the windows allow."""
        connection = self.connection
        while self._waiting:
            kind, payload, end = self._waiting[0]
            if kind == _HEADERS:
                connection.write_headers(self.id, bytes(payload), end)
            else:
                room = min(self.window, connection.window)
                if len(payload) > room:
                    if room > 0:
                        rest = memoryview(payload)  # a large message must not be copied for every window
                        self._write(rest[:room], False)
                        self._waiting[0] = (kind, rest[room:], end)
                    connection.blocked[self.id] = self
                    return
                self._write(payload, end)
            self._waiting.popleft()
        if self._ended_here and self.ended_there:
            connection.forget(self)

    def _write(self, payload: bytes | memoryview, end: bool) -> None:
        connection = self.connection
        self.window -= len(payload)
        connection.window -= len(payload)
        size = connection.frame_size
        while len(payload) > size:
            connection.write_frame(_DATA, 0, self.id, payload[:size])
            payload = payload[size:]
        connection.write_frame(_DATA, _END_STREAM if end else 0, self.id, payload)

    def read(self, size: int) -> None:
        """Let the peer send as much again as it has sent, a good deal at a time."""
        self._unread += size
        if self._unread >= OUR_WINDOW // 2 and not self.ended_there:
            self.connection.write_frame(_WINDOW, 0, self.id, self._unread.to_bytes(4, "big"))
            self._unread = 0

    def end_came(self) -> None:
        """The peer sends nothing more."""
        self.ended_there = True
        if self._ended_here and not self._waiting:
            self.connection.forget(self)


class Connection(asyncio.Protocol):
    """One connection. A server's ``accept`` gives each new stream its owner; a client opens streams."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.blocked: dict[int, Stream] = {}
        self.window = 65_535
        self.frame_size = 16_384
        self.closed = False
        self.draining = False
        self._peer_window = 65_535
        self._last = 0
        self._blocks = Blocks()
        self._in = bytearray()
        self._out: list[bytes | memoryview] = []
        self._corked = False
        self._unread = 0
        self._partial: tuple[int, int, bytearray] | None = None
        self._transport: Any = None
        self._client = True
        self._preface_due = False

    # --- what subclasses say

    def accept(self, stream: Stream, headers: Headers) -> None:  # noqa: ARG002 - for servers
        """A server: set ``stream.owner``."""
        raise Violation(PROTOCOL_ERROR, "a client is sent no requests")

    def ended(self) -> None:
        """The connection is gone."""

    # --- sending

    def open(self, owner: Owner) -> Stream:
        """A new stream to the server. Raises ConnectionError when there can be none."""
        if self.closed or self.draining:
            raise ConnectionError("the connection takes no more calls")
        self._last = self._last + 2 if self._last else 1
        self.draining = self._last >= _LAST_STREAM  # numbers are used once: the next call needs a new one
        stream = self.streams[self._last] = Stream(self, self._last, self._peer_window)
        stream.owner = owner
        return stream

    def forget(self, stream: Stream) -> bool:
        """Have done with a stream. Whether it was known."""
        self.blocked.pop(stream.id, None)
        known = self.streams.pop(stream.id, None) is not None
        if self.draining and self._client and not self.streams:
            asyncio.get_running_loop().call_soon(self.close)
        return known

    def write_frame(self, kind: int, flags: int, stream: int, payload: bytes | memoryview) -> None:
        """Queue a frame; all that is queued in one turn of the loop leaves in one write."""
        size = len(payload)
        self._out.append(_FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, stream))
        if size:
            self._out.append(payload)
        if not self._corked:
            self._corked = True
            asyncio.get_running_loop().call_soon(self._flush)

    def write_headers(self, stream: int, block: bytes, end: bool) -> None:
        """Queue a header block, in as many frames as it takes."""
        kind, flags = _HEADERS, _END_STREAM if end else 0
        while len(block) > self.frame_size:
            self.write_frame(kind, flags, stream, block[: self.frame_size])
            block, kind, flags = block[self.frame_size :], _CONTINUATION, 0
        self.write_frame(kind, flags | _END_HEADERS, stream, block)

    def _flush(self) -> None:
        self._corked = False
        if self._out:
            data, self._out = b"".join(self._out), []
            if not self.closed:
                self._transport.write(data)

    def close(self, code: int = NO_ERROR) -> None:
        """End the connection, with a word to the peer."""
        if not self.closed:
            self.write_frame(_GOAWAY, 0, 0, struct.pack(">LL", 0 if self._client else self._last, code))
            self._flush()
            self._transport.close()

    # --- the transport's calls

    def connection_made(self, transport: Any) -> None:
        """Say hello: a small table is all our own blocks need, large windows keep big messages moving."""
        self._transport = transport
        hello = [
            (_ENABLE_PUSH, 0),
            (_INITIAL_WINDOW, OUR_WINDOW),
            (_FRAME_SIZE, OUR_FRAME),
            (_HEADERS_SIZE, HEADER_BYTES),
        ]
        if self._client:
            self._out.append(PREFACE)
        else:
            hello = hello[1:]
        self.write_frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HL", *pair) for pair in hello))
        self.write_frame(_WINDOW, 0, 0, (OUR_CONNECTION_WINDOW - 65_535).to_bytes(4, "big"))
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        """Tell everybody."""
        self.closed = True
        streams, self.streams, self.blocked = self.streams, {}, {}
        for stream in streams.values():
            if stream.owner is not None:
                stream.owner.lost(None)
        self.ended()

    def data_received(self, data: bytes) -> None:
        """Take what came in, frame by frame."""
        rest = self._in
        if rest:
            rest += data
        received = rest or data  # what comes in is nearly always whole, and then it is not copied
        self._corked = True
        at, end = 0, len(received)
        try:
            if self._preface_due:
                if not PREFACE.startswith(bytes(received[: len(PREFACE)])):
                    raise Violation(PROTOCOL_ERROR, "this is no HTTP/2")
                if end < len(PREFACE):
                    return
                self._preface_due = False
                at = len(PREFACE)
            while end - at >= 9:
                high, low, kind, flags, stream = _FRAME.unpack_from(received, at)
                size = high << 16 | low
                if size > OUR_FRAME:
                    raise Violation(FRAME_SIZE_ERROR, f"a frame of {size} bytes")
                if end - at - 9 < size:
                    break
                payload = bytes(received[at + 9 : at + 9 + size])
                at += 9 + size
                self._frame(kind, flags, stream & 0x7FFFFFFF, payload)
        except (Violation, struct.error, IndexError) as error:
            self.close(error.code if isinstance(error, Violation) else PROTOCOL_ERROR)
        finally:
            if received is rest:
                del rest[:at]
            else:
                rest += data[at:]
            self._flush()

    # --- frames

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._partial is not None and (kind != _CONTINUATION or number != self._partial[0]):
            raise Violation(PROTOCOL_ERROR, "a header block was cut off")
        if kind == _DATA:
            self._data(flags, number, payload)
        elif kind == _HEADERS:
            block = _unpadded(flags, payload)
            if flags & _WITH_PRIORITY:
                if len(block) < 5:
                    raise Violation(FRAME_SIZE_ERROR, "headers with half a priority")
                block = block[5:]
            if flags & _END_HEADERS:
                self._headers(number, bool(flags & _END_STREAM), block)
            else:
                self._partial = (number, flags, bytearray(block))
        elif kind == _CONTINUATION:
            if self._partial is None:
                raise Violation(PROTOCOL_ERROR, "a continuation of nothing")
            _, first, collected = self._partial
            collected += payload
            if len(collected) > HEADER_BYTES:
                raise Violation(ENHANCE_YOUR_CALM, "a header block without end")
            if flags & _END_HEADERS:
                self._partial = None
                self._headers(number, bool(first & _END_STREAM), bytes(collected))
        elif kind == _WINDOW:
            self._window_update(number, int.from_bytes(payload, "big") & 0x7FFFFFFF, len(payload))
        elif kind == _SETTINGS:
            self._settings(flags, number, payload)
        elif kind == _PING:
            if len(payload) != 8 or number:
                raise Violation(FRAME_SIZE_ERROR, "a ping of another size")
            if not flags & _ACK:
                self.write_frame(_PING, _ACK, 0, payload)
        elif kind == _RESET:
            code = int.from_bytes(payload, "big")
            stream = self.streams.get(number)
            if stream is not None and self.forget(stream) and stream.owner is not None:
                stream.owner.lost(code)
        elif kind == _GOAWAY:
            self._goaway(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF)
        elif kind == _PUSH:
            raise Violation(PROTOCOL_ERROR, "a push that nobody asked for")

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0 or number > self._last:
            raise Violation(PROTOCOL_ERROR, "data of no stream")
        self._unread += len(payload)
        if self._unread >= OUR_CONNECTION_WINDOW // 4:
            self.write_frame(_WINDOW, 0, 0, self._unread.to_bytes(4, "big"))
            self._unread = 0
        stream = self.streams.get(number)
        if stream is None:
            return  # it was given up here; the peer does not know yet
        if stream.ended_there:
            raise Violation(PROTOCOL_ERROR, "data after the end of a stream")
        end = bool(flags & _END_STREAM)
        if not end:
            stream.read(len(payload))
        data, owner = _unpadded(flags, payload), stream.owner
        if end:
            stream.end_came()
        if owner is not None:
            owner.data(data, end)

    def _headers(self, number: int, end: bool, block: bytes) -> None:
        headers = self._blocks.decode(block)
        stream = self.streams.get(number)
        if stream is not None:
            if stream.ended_there or (not self._client and not end):
                raise Violation(PROTOCOL_ERROR, "headers in the midst of a stream")
        elif self._client:
            if number == 0 or number > self._last:
                raise Violation(PROTOCOL_ERROR, "an answer to nothing")
            return
        else:
            if number % 2 == 0 or number <= self._last:
                raise Violation(PROTOCOL_ERROR, "a stream that cannot be new")
            self._last = number
            stream = Stream(self, number, self._peer_window)
            self.streams[number] = stream
            if len(self.streams) > OPEN_STREAMS:
                stream.reset(REFUSED_STREAM)
                return
            if end:
                stream.ended_there = True
            self.accept(stream, headers)
            return
        owner = stream.owner
        if end:
            stream.end_came()
        if owner is not None:
            owner.headers(headers, end)

    def _window_update(self, number: int, more: int, size: int) -> None:
        if size != 4 or (more == 0 and number == 0):
            raise Violation(PROTOCOL_ERROR, "a window that does not grow")
        if number == 0:
            self.window += more
            if self.window > _LARGEST_WINDOW:
                raise Violation(FLOW_ERROR, "a window beyond all bounds")
            for stream in list(self.blocked.values()):
                if self.window <= 0:
                    break
                self._unblock(stream)
            return
        found = self.streams.get(number)
        if found is None:
            return
        found.window += more
        if more == 0 or found.window > _LARGEST_WINDOW:
            raise Violation(FLOW_ERROR, "a window beyond all bounds")
        if number in self.blocked:
            self._unblock(found)

    def _unblock(self, stream: Stream) -> None:
        self.blocked.pop(stream.id, None)
        stream.pump()

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) % 6:
            raise Violation(FRAME_SIZE_ERROR, "settings of another size")
        if flags & _ACK:
            return
        for name, value in struct.iter_unpack(">HL", payload):
            if name == _INITIAL_WINDOW:
                if value > _LARGEST_WINDOW:
                    raise Violation(FLOW_ERROR, "a window beyond all bounds")
                more, self._peer_window = value - self._peer_window, value
                for stream in self.streams.values():
                    stream.window += more
            elif name == _FRAME_SIZE:
                if not 16_384 <= value < 1 << 24:
                    raise Violation(PROTOCOL_ERROR, "a frame size out of bounds")
                self.frame_size = value
        self.write_frame(_SETTINGS, _ACK, 0, b"")
        for stream in list(self.blocked.values()):
            self._unblock(stream)

    def _goaway(self, last: int) -> None:
        self.draining = True
        if not self._client:
            return
        for stream in [stream for number, stream in self.streams.items() if number > last]:
            self.forget(stream)
            if stream.owner is not None:
                stream.owner.lost(REFUSED_STREAM)
        if not self.streams:
            self.close()


class ServerConnection(Connection):
    """The server's end."""

    def __init__(self) -> None:
        super().__init__()
        self._client = False
        self._preface_due = True


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Violation(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
