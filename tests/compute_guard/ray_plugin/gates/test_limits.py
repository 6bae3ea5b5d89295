"""Physical limits follow the leases. On a plain directory; `test_cgroup_v2.py` has a kernel for them."""

from __future__ import annotations

import os

import pytest

from compute_guard.ray_plugin.gates.grants import Grant
from compute_guard.ray_plugin.gates.launcher import join
from compute_guard.ray_plugin.gates.limits import Limits
from compute_guard.ray_plugin.gates.probes import physical_limits
from guard_core.errors import UserError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    return tmp_path


def grant(lease: str, tenant: str, **amounts: int) -> Grant:
    return Grant(lease=lease, job="01000000", workload="w", tenant=tenant, amounts=amounts)


def said(root, tenant: str) -> tuple[str, str]:
    folder = root / f"tenant-{tenant}"
    return (folder / "cpu.max").read_text(), (folder / "memory.max").read_text()


def test_a_part_is_as_wide_as_the_leases_and_narrows_with_them(root):
    limits = Limits(root)
    limits.part("acme")
    limits.follow(
        [grant("1", "acme", cpu_milli=1500, memory_bytes=1 << 30), grant("2", "acme", cpu_milli=1000)]
    )
    assert said(root, "acme") == ("250000 100000", str(1 << 30))
    limits.follow([grant("2", "acme", cpu_milli=1000)])
    assert said(root, "acme") == ("100000 100000", "max")


def test_who_asks_for_no_cpu_may_still_run(root):
    limits = Limits(root)
    limits.part("acme")
    limits.follow([grant("1", "acme")])
    assert said(root, "acme") == ("100000 100000", "max")


def test_tenants_do_not_share_a_part(root):
    limits = Limits(root)
    for tenant in ("acme", "beta"):
        limits.part(tenant)
    limits.follow([grant("1", "acme", cpu_milli=3000), grant("2", "beta", cpu_milli=2000)])
    assert said(root, "acme")[0] == "300000 100000"
    assert said(root, "beta")[0] == "200000 100000"


def test_a_worker_joins_before_it_is_its_tenants(root):
    part = Limits(root).part("acme")
    (part / "cgroup.procs").touch()
    join({"cgroup": str(part)})
    assert (part / "cgroup.procs").read_text() == str(os.getpid())


def test_a_directory_that_is_no_cgroup_is_named(tmp_path):
    with pytest.raises(UserError, match="no cgroup"):
        Limits(tmp_path)


def test_a_missing_controller_is_named(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(UserError, match="memory"):
        Limits(tmp_path)


@pytest.mark.parametrize(
    ("reported", "status", "said"),
    [
        ([True, True], "ok", "on every node"),
        ([True, False], "info", "on some nodes"),
        ([False], "info", "not limited"),
        ([], "info", "not limited"),
    ],
)
def test_doctor_goes_by_what_the_nodes_report_and_not_by_its_own_environment(
    monkeypatch, reported, status, said
):
    monkeypatch.setenv("COMPUTE_GUARD_CGROUP", "/sys/fs/cgroup/tenants")
    found = physical_limits([{"limits": one} for one in reported])
    assert (found.status, said in found.message) == (status, True)
