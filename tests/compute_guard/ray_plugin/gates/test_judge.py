"""What a running job may start, as the head's gate asks policy about it."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("ray")

from compute_guard.admission.gateway import Gateway
from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.judge import Judge, Verdict
from guard_core.findings import Enforcement
from guard_core.home import Home


def asked(home: Home, cpus: int, *, entrypoint: bool = False) -> Verdict:
    """The verdict on so many CPUs, asked by a job of acme (2 CPUs at most) whose entrypoint has one."""
    gateway = Gateway(home)
    ada = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
    gateway.submit(ada, {"entrypoint": "x", "submission_id": "j", "entrypoint_num_cpus": 1})
    entry = gateway.ledger.get("j")
    assert entry is not None
    judge = Judge(gateway, Enforcement.ENFORCED)
    return asyncio.run(judge.runtime(entry, Amounts({"cpu_milli": cpus * 1000}), (), entrypoint=entrypoint))


def test_what_never_fits_beside_the_entrypoint_is_refused_with_the_numbers(home):
    verdict = asked(home, 2)
    assert not verdict.allow
    assert "the task asks for cpu 2, and the job can have 1 for it at most" in verdict.reason


def test_what_fits_beside_the_entrypoint_is_allowed(home):
    assert asked(home, 1).allow


def test_the_entrypoint_itself_has_all_that_the_queue_can_give(home):
    assert asked(home, 2, entrypoint=True).allow
