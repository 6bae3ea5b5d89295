"""Physical limits of a tenant's processes on a node: one cgroup (v2) per tenant, as wide as its leases there.

Ray's resources are logical: a task that asked for one CPU may use them all. Where ``COMPUTE_GUARD_CGROUP``
names a cgroup of this node's that root may divide (its ``cpu`` and ``memory`` controllers are on), every
worker is started in its tenant's part of it, and the part follows what the tenant's leases here add up to.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from compute_guard.quota.amounts import CPU, MEMORY
from compute_guard.ray_plugin.gates.grants import Grant
from guard_core.errors import UserError

logger = logging.getLogger(__name__)
CGROUP = "COMPUTE_GUARD_CGROUP"
PERIOD_US = 100_000
LEAST_CPU_MILLI = 1000
"""Drivers and actors that ask for no CPU still have to run."""
_PREFIX = "tenant-"


class Limits:
    """The tenants' parts below ``root``. Raises UserError when it cannot be divided."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._written: dict[str, tuple[str, str]] = {}
        try:
            missing = {"cpu", "memory"} - set((root / "cgroup.controllers").read_text().split())
            if missing:
                raise UserError(
                    f"{CGROUP}={root}: the controllers {', '.join(sorted(missing))} are not there; "
                    "turn them on in cgroup.subtree_control of the cgroup above"
                )
            (root / "cgroup.subtree_control").write_text("+cpu +memory")
        except OSError as error:
            why = "processes run in it; name an empty one" if error.errno == errno.EBUSY else str(error)
            raise UserError(f"{CGROUP}={root} is no cgroup (v2) that can be divided: {why}") from error

    @classmethod
    def of_environment(cls) -> Limits | None:
        """As the environment says; None without a setting."""
        root = os.environ.get(CGROUP)
        return cls(Path(root)) if root else None

    def part(self, tenant: str) -> Path:
        """The cgroup of a tenant, made at first use: a worker joins it before it becomes the tenant's."""
        folder = self._root / (_PREFIX + tenant)
        folder.mkdir(exist_ok=True)
        if tenant not in self._written:
            self._write(tenant, {})
        return folder

    def follow(self, grants: Iterable[Grant]) -> None:
        """Make every part as wide as its tenant's leases on this node."""
        sums: dict[str, dict[str, int]] = {tenant: {} for tenant in self._written}
        for grant in grants:
            if grant.tenant in sums:
                held = sums[grant.tenant]
                for name in (CPU, MEMORY):
                    held[name] = held.get(name, 0) + grant.amounts.get(name, 0)
        for tenant, held in sums.items():
            self._write(tenant, held)

    def _write(self, tenant: str, held: Mapping[str, int]) -> None:
        cpu = max(LEAST_CPU_MILLI, held.get(CPU, 0)) * PERIOD_US // 1000
        memory = held.get(MEMORY, 0)
        # Who names no memory has no limit of it: Ray's default is not to say.
        wanted = (f"{cpu} {PERIOD_US}", str(memory) if memory else "max")
        if self._written.get(tenant) == wanted:
            return
        folder = self._root / (_PREFIX + tenant)
        try:
            (folder / "cpu.max").write_text(wanted[0])
            (folder / "memory.max").write_text(wanted[1])
        except OSError as error:
            logger.warning("the limits of tenant %s could not be set: %s", tenant, error)
            return
        self._written[tenant] = wanted
