"""Leases against the real ledger: within the reservation at once, beyond it when the ledger says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

pytest.importorskip("ray")

from compute_guard.admission.gateway import Gateway
from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Ledger
from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.book import Lease, LeaseBook
from compute_guard.ray_plugin.gates.credit import Credit
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.wire import Refusal
from compute_guard.testing import running_job
from guard_core.findings import Enforcement
from guard_core.home import Home


@pytest.fixture
def running(home: Home) -> Callable[..., str]:
    """Adds a running job of acme (2 CPUs at most, none borrowed) that declared ``cpus``."""

    return lambda job, cpus="0": running_job(home, job, cpus=cpus)


def lease(number: int, workload: str, cpus: int = 1000) -> Lease:
    amounts = Amounts({"cpu_milli": cpus, "workers": 1})
    return Lease(id=f"l{number}", workload=workload, job="j", node="n", amounts=amounts)


async def opened(home: Home) -> Credit:
    credit = Credit(Judge(Gateway(home), Enforcement.COOPERATIVE), LeaseBook())
    await credit.tick()
    return credit


async def waits(task: asyncio.Task[None], seconds: float = 0.3) -> bool:
    done, _ = await asyncio.wait({task}, timeout=seconds)
    return not done


def reserved(home: Home, job: str) -> int:
    return Ledger(home.storage).reservations()[job]["cpu_milli"]


def test_a_lease_beyond_the_reservation_raises_it_and_the_next_one_waits(home, running):
    async def story() -> None:
        job, credit = running("w1", "1"), await opened(home)
        await credit.acquire(lease(1, job))
        assert reserved(home, job) == 1000
        await credit.acquire(lease(2, job))
        assert reserved(home, job) == 2000
        third = asyncio.ensure_future(credit.acquire(lease(3, job)))
        assert await waits(third)
        assert credit.waiting()[job][1].startswith("cpu: asks 1,")
        credit.release(credit.book.drop("l1"))
        await asyncio.wait_for(third, 5)
        assert credit.book.held(job)["cpu_milli"] == 2000 == reserved(home, job)

    asyncio.run(story())


def test_two_jobs_of_a_queue_never_hold_more_than_it_has(home, running):
    async def story() -> None:
        one, two = running("w1"), running("w2")
        credit = await opened(home)
        tasks = [asyncio.ensure_future(credit.acquire(lease(n, (one, two)[n % 2], 600))) for n in range(8)]
        for _ in range(400):
            if sum(task.done() for task in tasks) >= 3:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        assert sum(task.done() for task in tasks) == 3  # 3 x 0.6 of 2 CPUs
        for _ in range(40):
            for held in credit.book.leases():
                credit.release(credit.book.drop(held.id))
            await credit.tick()
            total = sum(amounts["cpu_milli"] for amounts in Ledger(home.storage).reservations().values())
            assert total <= 2000
            if all(task.done() for task in tasks):
                break
            await asyncio.sleep(0.05)
        assert all(task.done() for task in tasks)

    asyncio.run(story())


def test_a_lease_that_is_taken_back_while_it_waits_holds_nothing(home, running):
    async def story() -> None:
        job, credit = running("w1"), await opened(home)
        await credit.acquire(lease(1, job, 2000))
        second = asyncio.ensure_future(credit.acquire(lease(2, job)))
        assert await waits(second)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert [held.id for held in credit.book.leases()] == ["l1"]
        assert credit.waiting() == {}

    asyncio.run(story())


def test_the_leases_of_a_job_that_ends_are_refused(home, running):
    async def story() -> None:
        job, credit = running("w1"), await opened(home)
        await credit.acquire(lease(1, job, 2000))
        second = asyncio.ensure_future(credit.acquire(lease(2, job)))
        assert await waits(second)
        Ledger(home.storage).move(job, WorkloadState.EVICTED)
        await credit.tick()
        with pytest.raises(Refusal, match="has ended"):
            await second
        with pytest.raises(Refusal, match="evicted"):
            await credit.acquire(lease(3, job))

    asyncio.run(story())


def test_a_reservation_shrinks_to_what_was_declared_but_not_below(home, running):
    job = running("w1", "1")
    quotas, ledger = Gateway(home).quotas(), Ledger(home.storage)
    assert ledger.resize(job, Amounts({"cpu_milli": 2000}), quotas).granted
    assert ledger.resize(job, Amounts(), quotas).reserved["cpu_milli"] == 1000
    growth = ledger.resize(job, Amounts({"cpu_milli": 2001}), quotas)
    assert not growth.granted and growth.reason.startswith("cpu: asks 1.001,")
    assert reserved(home, job) == 1000


def test_an_ended_job_cannot_grow(home, running):
    job = running("w1")
    Ledger(home.storage).move(job, WorkloadState.FINISHED)
    growth = Ledger(home.storage).resize(job, Amounts({"cpu_milli": 1}), Gateway(home).quotas())
    assert (growth.granted, growth.ever) == (False, False)
    assert Ledger(home.storage).reservations() == {}


def test_a_locked_ledger_grants_nothing_new_and_takes_nothing_away(home, running, monkeypatch):
    from guard_core.errors import Undecidable

    async def story() -> None:
        job, credit = running("w1", "1"), await opened(home)
        await credit.acquire(lease(1, job, 500))

        def locked(*_arguments):
            raise Undecidable("the database is locked")

        monkeypatch.setattr(Ledger, "resize", locked)
        await credit.acquire(lease(2, job, 500))  # within what is reserved
        third = asyncio.ensure_future(credit.acquire(lease(3, job, 500)))
        assert await waits(third)
        assert "locked" in credit.waiting()[job][1]
        monkeypatch.undo()
        await credit.tick()
        await asyncio.wait_for(third, 5)

    asyncio.run(story())


def test_small_leases_share_one_reservation_of_a_whole_cpu_where_there_is_room(home, running):
    async def story() -> None:
        job, credit = running("w1"), await opened(home)
        await credit.acquire(lease(1, job, 100))
        assert reserved(home, job) == 1000
        for number in range(2, 11):
            await credit.acquire(lease(number, job, 100))
        assert reserved(home, job) == 1000
        await credit.acquire(lease(11, job, 900))
        assert reserved(home, job) == 2000
        with_room_for_less = asyncio.ensure_future(credit.acquire(lease(12, job, 200)))
        assert await waits(with_room_for_less)

    asyncio.run(story())


def test_a_ledger_without_changes_is_not_read_again_and_every_change_is_seen(home, running, monkeypatch):
    async def story() -> None:
        job, credit = running("w1"), await opened(home)
        reads, entries = [], Ledger.entries
        monkeypatch.setattr(Ledger, "entries", lambda *a, **k: reads.append(1) or entries(*a, **k))
        await credit.tick()
        assert reads == []
        other = running("w2")
        await credit.tick()
        assert reads == [1]
        assert credit.living == {job: "acme", other: "acme"}
        Ledger(home.storage).move(job, WorkloadState.FINISHED)
        await credit.tick()
        assert credit.living == {other: "acme"}

    asyncio.run(story())


def test_a_job_that_begins_to_run_is_a_change_of_the_ledger(home, running):
    ledger = Ledger(home.storage)
    before = ledger.changes()
    running("w1")
    assert ledger.changes() == before + 3  # it waits, is admitted, runs
