"""A gate's HTTP/2 and gRPC, between gRPC's own client and server: they must not notice it."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from grpc import aio

pytest.importorskip("hpack")

from compute_guard.ray_plugin.gates import http2
from compute_guard.ray_plugin.gates.front import Front, hold, serve
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.wire import Call, Failed, Passage, Refusal

SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
METHOD = "/ray.rpc.NodeManagerService/Ask"


class Behind(grpc.GenericRpcHandler):
    """Echoes; method names say what else it does."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.left: list[float | None] = []
        self.waiting = 0
        self.cancelled = 0

    def service(self, details):
        name = details.method.rpartition("/")[2]
        self.seen.append(dict(details.invocation_metadata))

        async def unary(request, context):
            self.left.append(context.time_remaining())
            if name == "Fail":
                await context.abort(grpc.StatusCode.NOT_FOUND, "no: 100 % nothing, nichts, 没有")
            if name == "Wait":
                self.waiting += 1
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            return request

        async def stream(requests, context):
            await context.send_initial_metadata((("node_id", "abc"),))
            async for request in requests:
                yield request + b"!"

        if name == "StartSync":
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


class Judge:
    """Hands on what is not called No."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.calls: list[Call] = []
        self.ended: list[bytes | None] = []

    def passage(self, call: Call, request: bytes) -> Passage:
        self.calls.append(call)
        if call.name in ("No", ""):
            raise Refusal("not you")
        if call.name == "Bug":
            raise ZeroDivisionError
        return Passage(request, self.ended.append)

    async def __call__(self, call: Call, request: bytes) -> bytes:
        self.passage(call, request)
        return await self.upstream.call(call.method, request, call.metadata, call.seconds_left)


def identify(metadata):
    token = dict(metadata).get("authorization", "")
    if token not in ("Bearer acme", "Bearer system"):
        raise Refusal("unknown", grpc.StatusCode.UNAUTHENTICATED)
    return None if token == "Bearer system" else "acme"


WAY = "judged"


@pytest.fixture(autouse=True, params=["judged", "handed on"])
def _both_ways(request, monkeypatch):
    """Every call passes a gate in one of two ways; nobody outside can tell which."""
    monkeypatch.setattr(sys.modules[__name__], "WAY", request.param)


@asynccontextmanager
async def gate():
    """(channel to a gate, the server behind it, its judge, the server's handlers)."""
    handlers = Behind()
    server = aio.server(options=SIZES)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    upstream = Upstream(f"127.0.0.1:{port}", lambda: "secret")
    judge = Judge(upstream)
    if WAY == "handed on":
        await upstream.connected()
        front = Front(identify, judge, upstream, judge.passage)
    else:
        front = Front(identify, judge, upstream)
    serving, front_port = await serve(front, "127.0.0.1:0")
    async with aio.insecure_channel(f"127.0.0.1:{front_port}", options=SIZES) as channel:
        yield channel, server, judge, handlers, front_port
    await serving.stop()
    await upstream.close()
    await server.stop(None)


ACME = (("authorization", "Bearer acme"), ("cluster_id", "x" * 40), ("blob-bin", b"\0\xff"))


def test_a_call_passes_with_its_metadata_and_the_systems_token_in_place_of_the_callers():
    async def body():
        async with gate() as (channel, _, judge, handlers, _):
            assert await channel.unary_unary(METHOD)(b"hello", metadata=ACME, timeout=20) == b"hello"
            assert await channel.unary_unary(METHOD)(b"", metadata=ACME) == b""
            first, second = judge.calls
            assert (first.service, first.name, first.tenant) == ("NodeManagerService", "Ask", "acme")
            # gRPC writes a timeout rounded up, on a busy machine to tenths of a second.
            assert 0 < first.seconds_left < 21 and second.seconds_left is None
            assert 0 < handlers.left[0] < 21 and handlers.left[1] is None
            seen = handlers.seen[0]
            assert seen["authorization"] == "Bearer secret"
            assert (seen["cluster_id"], seen["blob-bin"]) == ("x" * 40, b"\0\xff")

    asyncio.run(body())


@pytest.mark.parametrize("size", [1, 16_384, 70_000, 6_000_000])
def test_messages_of_every_size_arrive_whole_also_many_at_once(size):
    async def body():
        async with gate() as (channel, *_):
            ask = channel.unary_unary(METHOD)
            requests = [bytes([n]) * size for n in range(8)]
            assert await asyncio.gather(*(ask(r, metadata=ACME) for r in requests)) == requests

    asyncio.run(body())


def test_a_thousand_calls_on_one_connection_keep_their_answers():
    async def body():
        async with gate() as (channel, *_):
            ask = channel.unary_unary(METHOD)
            texts = [str(n).encode() * (n % 50) for n in range(1000)]
            extra = [(*ACME, ("x-try", str(n % 7))) for n in range(1000)]
            found = await asyncio.gather(*(ask(t, metadata=m) for t, m in zip(texts, extra, strict=True)))
            assert found == texts

    asyncio.run(body())


@pytest.mark.parametrize(
    ("name", "token", "code", "text"),
    [
        ("No", "acme", grpc.StatusCode.PERMISSION_DENIED, "TrainGuard: not you"),
        ("Bug", "acme", grpc.StatusCode.PERMISSION_DENIED, "could not be judged"),
        ("Ask", "nobody", grpc.StatusCode.UNAUTHENTICATED, "TrainGuard: unknown"),
        ("Fail", "acme", grpc.StatusCode.NOT_FOUND, "no: 100 % nothing, nichts, 没有"),
    ],
)
def test_refusals_and_errors_reach_the_caller_as_they_are(name, token, code, text):
    async def body():
        async with gate() as (channel, *_):
            ask = channel.unary_unary(METHOD.replace("Ask", name))
            with pytest.raises(aio.AioRpcError) as error:
                await ask(b"x", metadata=(("authorization", f"Bearer {token}"),))
            assert error.value.code() == code
            assert text in error.value.details()

    asyncio.run(body())


def test_a_caller_that_gives_up_is_given_up_behind_the_gate_too():
    async def body():
        async with gate() as (channel, _, judge, handlers, _):
            with pytest.raises(aio.AioRpcError) as error:
                await channel.unary_unary(METHOD.replace("Ask", "Wait"))(b"", metadata=ACME, timeout=0.3)
            assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            for _ in range(100):
                if handlers.cancelled:
                    break
                await asyncio.sleep(0.02)
            assert handlers.cancelled == 1
            with pytest.raises(Failed, match="DEADLINE"):
                await judge.upstream.call(METHOD.replace("Ask", "Wait"), b"", timeout=0.1)

    asyncio.run(body())


def test_who_handed_a_call_on_hears_once_what_became_of_it(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "WAY", "handed on")

    async def body():
        async with gate() as (channel, server, judge, handlers, _):
            assert await channel.unary_unary(METHOD)(b"hello", metadata=ACME) == b"hello"
            wait = channel.unary_unary(METHOD.replace("Ask", "Wait"))
            given_up = wait(b"", metadata=ACME)
            await until(lambda: handlers.waiting == 1)
            given_up.cancel()
            await until(lambda: judge.ended == [b"hello", None] and handlers.cancelled == 1)
            with pytest.raises(aio.AioRpcError):
                await channel.unary_unary(METHOD.replace("Ask", "Fail"))(b"", metadata=ACME)
            lost = asyncio.ensure_future(wait(b"", metadata=ACME))
            await until(lambda: handlers.waiting == 2)
            await server.stop(None)
            with pytest.raises(aio.AioRpcError) as error:
                await lost
            assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            assert judge.ended == [b"hello", None, None, None]

    asyncio.run(body())


@pytest.mark.parametrize("timeout", [None, 20])
@pytest.mark.parametrize("there_is_one", [True, False], ids=["passage", "none"])
def test_a_call_is_looked_at_for_a_passage_once_and_judged_only_without_one(there_is_one, timeout):
    looked: list[bytes] = []
    ended: list[bytes | None] = []

    def passage(_call: Call, request: bytes) -> Passage | None:
        looked.append(request)
        return Passage(b"changed", ended.append) if there_is_one else None

    async def body():
        async with gate() as (_, _, judge, *_):
            serving, port = await serve(Front(identify, judge, judge.upstream, passage), "127.0.0.1:0")
            async with aio.insecure_channel(f"127.0.0.1:{port}") as own:
                reply = await own.unary_unary(METHOD)(b"hello", metadata=ACME, timeout=timeout)
            assert looked == [b"hello"]
            assert (reply, ended) == ((b"changed", [b"changed"]) if there_is_one else (b"hello", []))
            assert len(judge.calls) == (0 if there_is_one else 1)
            await serving.stop()

    asyncio.run(body())


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_server_that_is_not_there_is_unavailable_and_found_again_when_it_is():
    async def body():
        async with gate() as (channel, server, judge, handlers, _):
            ask = channel.unary_unary(METHOD)
            assert await ask(b"1", metadata=ACME) == b"1"
            address = judge.upstream.address
            waiting = asyncio.ensure_future(
                channel.unary_unary(METHOD.replace("Ask", "Wait"))(b"", metadata=ACME)
            )
            await asyncio.sleep(0.1)
            await server.stop(None)
            with pytest.raises(aio.AioRpcError):
                await waiting
            with pytest.raises(aio.AioRpcError) as error:
                await ask(b"2", metadata=ACME)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
            again = aio.server()
            again.add_generic_rpc_handlers((handlers,))
            again.add_insecure_port(address)
            await again.start()
            assert await ask(b"3", metadata=ACME) == b"3"
            await again.stop(None)

    asyncio.run(body())


def test_a_call_to_a_gate_that_is_away_waits_and_is_answered_when_it_is_back(monkeypatch):
    monkeypatch.setattr("compute_guard.ray_plugin.gates.front._held", {})

    async def body():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        hold(address)  # by what keeps the gate running, before there is one
        async with gate() as (_, _, judge, *_), aio.insecure_channel(address) as channel:
            for turn in (b"first", b"again"):
                call = channel.unary_unary(METHOD)(turn, metadata=ACME)
                while channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.CONNECTING:
                    await asyncio.sleep(0)
                serving, _ = await serve(Front(identify, judge, judge.upstream), address)
                assert await call == turn
                await serving.stop()
                await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)

    asyncio.run(body())


def test_a_connection_whose_numbers_are_used_up_is_followed_by_another(monkeypatch):
    monkeypatch.setattr(http2, "_LAST_STREAM", 5)

    async def body():
        async with gate() as (channel, _, judge, *_):
            ask = channel.unary_unary(METHOD)
            first = None
            for n in range(8):
                assert await ask(b"%d" % n, metadata=ACME) == b"%d" % n
                first = first or judge.upstream._connection
            assert judge.upstream._connection is not first
            async with asyncio.timeout(5):
                while not first.closed:
                    await asyncio.sleep(0.01)

    asyncio.run(body())


def test_rays_stream_passes_in_both_directions_for_the_system_only():
    async def body():
        async with gate() as (channel, *_):
            path = "/ray.rpc.syncer.RaySyncer/StartSync"
            call = channel.stream_stream(path)(metadata=(("authorization", "Bearer system"),))
            assert dict(await call.initial_metadata())["node_id"] == "abc"
            for text in (b"one", b"two", b"x" * 3_000_000):
                await call.write(text)
                assert await call.read() == text + b"!"
            await call.done_writing()
            assert await call.read() is aio.EOF
            refused = channel.stream_stream(path)(metadata=ACME)
            assert await refused.code() == grpc.StatusCode.PERMISSION_DENIED

    asyncio.run(body())


def raw_frames() -> list[bytes]:
    """A good client's bytes: preface, settings, and a call."""
    from compute_guard.ray_plugin.gates.header_blocks import literal
    from compute_guard.ray_plugin.gates.http2 import PREFACE

    block = literal(((b":method", b"POST"), (b":path", METHOD.encode()), (b"authorization", b"Bearer acme")))
    body = b"\0\0\0\0\1x"

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload

    return [PREFACE, frame(4, 0, 0, b""), frame(1, 4, 1, block), frame(0, 1, 1, body)]


@pytest.mark.parametrize("seed", range(4))
def test_nonsense_ends_its_own_connection_and_nobody_elses(seed):
    """Forty connections, each with a few bytes changed, cut or doubled; a good caller goes on beside them."""
    chance = random.Random(seed)

    async def spoil(port: int) -> None:
        frames = raw_frames()
        for _ in range(chance.randint(1, 3)):
            n = chance.randrange(len(frames))
            frame = bytearray(frames[n])
            kind = chance.random()
            if kind < 0.6 and frame:
                frame[chance.randrange(len(frame))] = chance.randrange(256)
            elif kind < 0.8:
                del frame[chance.randrange(len(frame) + 1) :]
            else:
                frame += bytes(frame)
            frames[n] = bytes(frame)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"".join(frames))
        with suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(reader.read(65_536), 0.5)
        writer.close()

    async def body():
        async with gate() as (channel, _, judge, _, port):
            ask = channel.unary_unary(METHOD)
            await asyncio.gather(*(spoil(port) for _ in range(40)))
            assert await ask(b"good", metadata=ACME) == b"good"
            # Nobody was taken for somebody else, whatever the bytes said.
            assert {call.tenant for call in judge.calls} <= {"acme"}

    asyncio.run(body())


@pytest.mark.parametrize(
    "spoilt",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        raw_frames()[0] + b"\xff\xff\xff\0\0\0\0\0\0",  # a frame beyond all bounds
        raw_frames()[0] + b"\0\0\1\0\0\0\0\0\1x",  # data of no stream
        raw_frames()[0] + b"\0\0\1\1\0\0\0\0\1\x82" + raw_frames()[3],  # headers cut off by data
        b"".join(raw_frames()) + raw_frames()[2],  # the same stream again
        raw_frames()[0] + b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",  # a window that does not grow
        raw_frames()[0] + b"\0\0\1\1\4\0\0\0\1\xff",  # an index of no table
        raw_frames()[0] + b"\0\0\1\0\x08\0\0\0\0\x05",  # more padding than payload
    ],
)
def test_a_broken_protocol_ends_the_connection_at_once(spoilt):
    async def body():
        async with gate() as (_, _, _, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(spoilt)
            async with asyncio.timeout(5):
                while await reader.read(65_536):
                    pass
            writer.close()

    asyncio.run(body())
