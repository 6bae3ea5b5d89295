"""Run as root where a cgroup v2 is mounted at /sys/fs/cgroup: do a tenant's limits hold?

`test_cgroup_v2.py` runs it in a kernel of its own, since a machine with cgroup v1 lends it no controllers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from compute_guard.ray_plugin.gates import limits
from compute_guard.ray_plugin.gates.grants import Grant
from compute_guard.ray_plugin.gates.launcher import join
from compute_guard.ray_plugin.gates.limits import Limits
from guard_core.errors import UserError

MIB = 1 << 20
NOBODY = 61_000


def grant(tenant: str, **amounts: int) -> Grant:
    """A lease of ``tenant``."""
    return Grant(lease=tenant, job="01000000", workload="w", tenant=tenant, amounts=amounts)


def worker(part: Path, work: Callable[[], None]) -> int:
    """Start ``work`` as a worker of ``part`` is started: joined as root, run as a tenant's user. Its id."""
    child = os.fork()
    if child == 0:
        try:
            join({"cgroup": str(part)})
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> int:
    """Its exit status; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def events(part: Path, file: str) -> dict[str, int]:
    """A flat file of counters."""
    return {
        name: int(value) for name, value in (line.split() for line in (part / file).read_text().splitlines())
    }


def fill(size: int) -> None:
    """Hold ``size`` bytes of memory, each page written."""
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])


def spin() -> None:
    """Use all the CPU there is."""
    while True:
        pass


def widen(part: Path) -> None:
    """Try to lift one's own limit, and to leave."""
    for file, text in (("memory.max", "max"), ("cpu.max", "max"), ("../cgroup.procs", "0")):
        try:
            (part / file).write_text(text)
        except OSError:
            continue
        os._exit(9)


def main() -> None:
    """All of it, on a cgroup of this script's own."""
    (Path("/sys/fs/cgroup") / "cgroup.subtree_control").write_text("+cpu +memory")
    root = Path("/sys/fs/cgroup/trainguard")
    root.mkdir()
    found = Limits(root)
    acme, beta = found.part("acme"), found.part("beta")
    found.follow([grant("acme", memory_bytes=64 * MIB), grant("beta", cpu_milli=3000)])
    assert (acme / "memory.max").read_text().strip() == str(64 * MIB)
    assert (beta / "cpu.max").read_text().strip() == "300000 100000"
    print("limits: the kernel took them")

    assert ended(worker(acme, lambda: fill(128 * MIB))) == -signal.SIGKILL
    assert events(acme, "memory.events")["oom_kill"] == 1
    assert ended(worker(beta, lambda: fill(128 * MIB))) == 0
    print("memory: who takes more than the leases name is ended, and nobody else")

    limits.LEAST_CPU_MILLI = 300  # this kernel may have a single CPU
    found.follow([])
    child = worker(acme, spin)
    while events(acme, "cpu.stat")["nr_throttled"] < 3:
        pass
    os.kill(child, signal.SIGKILL)
    ended(child)
    stat = events(acme, "cpu.stat")
    print(f"cpu: throttled in {stat['nr_throttled']} of {stat['nr_periods']} periods")

    assert ended(worker(acme, lambda: widen(acme))) == 0
    print("a tenant's user: widens nothing and leaves nothing")

    busy = Path("/sys/fs/cgroup/busy")
    busy.mkdir()
    (busy / "cgroup.procs").write_text(str(os.getpid()))
    try:
        Limits(busy)
    except UserError as error:
        assert "processes run in it" in str(error)
        print("a cgroup with processes of its own: refused")
    else:
        raise AssertionError("a cgroup with processes in it was divided")


main()
