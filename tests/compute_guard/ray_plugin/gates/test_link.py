"""The line between a node's gate and the head: what is asked is answered, what is told arrives in order."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("ray")

from compute_guard.ray_plugin.gates.link import Desk, Line
from compute_guard.ray_plugin.gates.wire import Refusal


@asynccontextmanager
async def line(heard: list[str], token: str = "secret"):
    """A line to a desk that notes what it hears and answers what it is asked."""

    async def greet(hello):
        return hello["name"]

    async def ask(node, message):
        heard.append(message["say"])
        if message["say"] == "no":
            raise Refusal("not you")
        return {"to": node}

    desk = Desk(lambda: "secret", greet, ask, lambda _node, message: heard.append(message["say"]))
    server = await desk.start("127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = Line(
        "127.0.0.1", port, lambda: token, lambda: {"name": "n1"}, lambda said: heard.append(said["say"])
    )
    made.desk = desk
    talking = asyncio.ensure_future(made.run())
    yield made
    talking.cancel()
    server.close()


def test_what_is_asked_is_answered_and_a_refusal_is_one():
    async def body():
        async with line([]) as made:
            assert await asyncio.wait_for(made.ask({"op": "x", "say": "hello"}), 5) == {"to": "n1"}
            with pytest.raises(Refusal, match="not you"):
                await asyncio.wait_for(made.ask({"op": "x", "say": "no"}), 5)

    asyncio.run(body())


def test_what_may_wait_leaves_before_what_is_said_next_or_a_moment_later():
    async def body():
        heard: list[str] = []
        async with line(heard) as made:
            await asyncio.wait_for(made.connected.wait(), 5)
            made.tell({"op": "x", "say": "settled"}, soon=False)
            await asyncio.wait_for(made.ask({"op": "x", "say": "asked"}), 5)
            assert heard == ["settled", "asked"]
            made.tell({"op": "x", "say": "alone"}, soon=False)
            async with asyncio.timeout(5):
                while heard[-1] != "alone":
                    await asyncio.sleep(0.01)

    asyncio.run(body())


def test_what_the_head_says_unasked_arrives_and_a_connection_it_ends_is_made_anew():
    async def body():
        heard: list[str] = []
        async with line(heard) as made:
            await asyncio.wait_for(made.ask({"say": "hello"}), 5)
            made.desk.tell("n1", {"say": "news"})
            made.desk.tell("another", {"say": "not for us"})
            await asyncio.wait_for(made.ask({"say": "again"}), 5)
            assert heard == ["hello", "news", "again"] or heard == ["hello", "again", "news"]
            made.desk.hang_up("n1")
            async with asyncio.timeout(5):
                while made.connected.is_set():
                    await asyncio.sleep(0.01)
            assert await asyncio.wait_for(made.ask({"say": "back"}), 5) == {"to": "n1"}

    asyncio.run(body())


def test_nobody_is_heard_without_the_clusters_token():
    async def body():
        heard: list[str] = []
        async with line(heard, token="guess") as made:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(made.ask({"op": "x", "say": "hello"}), 0.3)
        assert heard == []

    asyncio.run(body())
