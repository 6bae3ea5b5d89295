"""A node's lease gate and the head's desk, over a real line: who is asked, and what the book then says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("ray")

from google.protobuf.message import Message
from ray.core.generated import node_manager_pb2 as pb

from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.book import Lease, LeaseBook
from compute_guard.ray_plugin.gates.grants import Grants
from compute_guard.ray_plugin.gates.lease_gate import LeaseGate
from compute_guard.ray_plugin.gates.link import Desk, Line
from compute_guard.ray_plugin.gates.reports import Reports
from compute_guard.ray_plugin.gates.upstream import carried
from compute_guard.ray_plugin.gates.wire import Call, Refusal


class Raylet:
    """Answers every lease with a worker, or with none after ``spill``."""

    def __init__(self) -> None:
        self.spills = False
        self.held: asyncio.Event | None = None

    async def forward(self, call: Call, _request: bytes) -> bytes:
        if call.name != "RequestWorkerLease":
            return b""
        if self.held is not None:
            await self.held.wait()
        reply = pb.RequestWorkerLeaseReply()
        if not self.spills:
            reply.worker_address.worker_id = b"\1" * 28
        return reply.SerializeToString()


class Cluster:
    """One gate, its raylet, and a head that grants all and notes which leases it was asked about."""

    def __init__(self) -> None:
        self.raylet, self.book, self.grants = Raylet(), LeaseBook(), Grants()
        self.asked: list[str] = []
        self.terms, self.holds = "1", False
        self.granted: Callable[[], object] = lambda: None
        self.reports = Reports(self.book)

    async def ask(self, node, message):
        self.asked.append(message["lease"])
        if self.holds:
            await asyncio.Event().wait()
        if message["needs"]["CPU"] > 8:
            raise Refusal("never")
        amounts = {"cpu_milli": int(1000 * message["needs"]["CPU"]), "workers": 1}
        row = {"job": message["job"], "workload": "w", "amounts": Amounts(amounts)}
        self.book.add(Lease(id=message["lease"], node=node, **row))
        self.granted()
        answer = {"tenant": "acme", "workload": "w", "job": message["job"], "amounts": amounts}
        return {**answer, "pools": ["shared"], "head": "", "closed": [], "terms": self.terms, "keep": True}

    def hear(self, node, message):
        if message["op"] == "release":
            self.book.drop(message["lease"])
        if message["op"] != "report":
            return None
        rows = [
            Lease(id=r["lease"], workload="w", job=r["job"], node=node, amounts=Amounts(r["amounts"]))
            for r in message["granted"]
        ]
        self.reports.take(node, rows, message)
        return {"op": "heard", "number": message["number"], "terms": self.terms}

    async def lease(self, number: int, cpus: float = 1.0) -> pb.RequestWorkerLeaseReply:
        request = pb.RequestWorkerLeaseRequest()
        request.lease_spec.lease_id = number.to_bytes(28, "big")
        request.lease_spec.job_id = bytes.fromhex("01000000")
        request.lease_spec.required_resources["CPU"] = cpus
        return pb.RequestWorkerLeaseReply.FromString(await self.answer("RequestWorkerLease", request))

    async def back(self, number: int) -> None:
        request = pb.ReturnWorkerLeaseRequest(lease_id=number.to_bytes(28, "big"))
        await self.answer("ReturnWorkerLease", request)

    async def answer(self, name: str, message: Message) -> bytes:
        """The gate's, as `Front` has it."""
        call, request = self.call(name), message.SerializeToString()
        passage = self.gate.passage(call, request)
        if passage is not None:
            return await carried(self.raylet, call, passage)
        return await self.gate(call, request)

    @staticmethod
    def call(name: str) -> Call:
        service = "ray.rpc.NodeManagerService"
        return Call("NodeManagerService", name, f"/{service}/{name}", "acme", (), None)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def cluster():
    """Both ends, connected."""
    made = Cluster()

    async def greet(_hello):
        return "n1"

    desk = Desk(lambda: "secret", greet, made.ask, made.hear)
    made.reports.desk = desk
    server = await desk.start("127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    line = Line("127.0.0.1", port, lambda: "secret", dict, lambda said: made.gate.hear(said))
    made.gate = LeaseGate(made.raylet, line, made.grants, lambda _answer: None)
    talking = asyncio.ensure_future(line.run())
    await asyncio.wait_for(line.connected.wait(), 5)
    yield made
    talking.cancel()
    server.close()


def test_a_lease_like_the_one_that_came_back_asks_nobody_and_the_book_ends_empty():
    async def body():
        async with cluster() as here:
            for number in range(1, 21):
                assert (await here.lease(number)).worker_address.worker_id
                await here.back(number)
            assert here.asked == [(1).to_bytes(28, "big").hex()]
            await here.until(lambda: len(here.book) == 0)  # what nobody needs goes back

    asyncio.run(body())


def test_a_lease_that_lasts_is_booked_under_its_own_name():
    async def body():
        async with cluster() as here:
            await here.lease(1)
            await here.back(1)
            await here.lease(2)
            await here.until(lambda: [lease.id[-2:] for lease in here.book.leases()] == ["02"])
            assert here.book.held("w") == Amounts({"cpu_milli": 1000, "workers": 1})

    asyncio.run(body())


def test_a_lease_that_spills_or_is_refused_leaves_nothing_behind():
    async def body():
        async with cluster() as here:
            here.raylet.spills = True
            await here.lease(1)
            assert (await here.lease(2, 9.0)).scheduling_failure_message == "TrainGuard: never"
            await here.until(lambda: len(here.book) == 0)
            assert here.grants.all() == ()

    asyncio.run(body())


def test_new_terms_are_asked_about_though_nobody_told_the_node():
    async def body():
        async with cluster() as here:
            await here.lease(1)
            await here.back(1)
            here.terms = "2"  # the answer to the next report says so
            async with asyncio.timeout(10):
                number = 1
                while len(here.asked) == 1:  # leases without end need no answer but for the terms
                    number += 1
                    await here.lease(number)
                    await here.back(number)
                    await asyncio.sleep(0.005)

    asyncio.run(body())


def test_the_death_of_a_worker_and_the_end_of_a_job_free_what_they_held():
    async def body():
        async with cluster() as here:
            await here.lease(1)
            here.gate.hear({"op": "gone", "worker": (b"\1" * 28).hex()})
            await here.until(lambda: len(here.book) == 0)
            await here.lease(2)
            here.reports.job_over("01000000")
            await here.until(lambda: len(here.book) == 0)
            assert here.grants.all() == ()

    asyncio.run(body())


def test_a_lease_that_is_taken_back_as_it_is_granted_is_not_counted_for_ever():
    async def body():
        async with cluster() as here:
            asking = asyncio.ensure_future(here.lease(1))
            here.granted = asking.cancel
            with pytest.raises(asyncio.CancelledError):
                await asking
            await here.until(lambda: here.asked and len(here.book) == 0)

    asyncio.run(body())


def test_a_lease_in_line_that_its_owner_cancels_is_answered_so():
    async def body():
        async with cluster() as here:
            here.holds = True
            asking = asyncio.ensure_future(here.lease(1))
            await here.until(lambda: len(here.asked) == 1)
            cancel = pb.CancelWorkerLeaseRequest(lease_id=(1).to_bytes(28, "big"))
            await here.answer("CancelWorkerLease", cancel)
            assert (await asking).canceled

    asyncio.run(body())


def test_a_lease_that_is_held_stays_booked_when_its_owner_asks_again_and_gives_up():
    async def body():
        async with cluster() as here:
            await here.lease(1)
            again = asyncio.ensure_future(here.lease(1))
            here.granted = again.cancel
            with pytest.raises(asyncio.CancelledError):
                await again
            here.granted = lambda: None
            await here.lease(2)
            assert len(here.book) == 2

    asyncio.run(body())


def test_what_the_head_says_behind_an_answer_counts_after_it():
    async def body():
        async with cluster() as here:
            loop = asyncio.get_running_loop()
            here.granted = lambda: loop.call_soon(here.reports.ask_anew, "w")  # leaves in the same write
            await here.lease(1)
            await here.back(1)
            await here.lease(2)
            assert len(here.asked) == 2

    asyncio.run(body())
