"""USAG015: a job computes where it has no right to.

An invariant. *process*: a process known to be one tenant's job's is on a device that only other tenants hold.
*pool*: a job holds a device of a node that is reserved for other tenants (``nodes.yaml``): admission does not
place it there, so somebody went past it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from compute_guard.usage.attribution import Lease
from compute_guard.usage.detectors.base import Signal, View


@dataclass(frozen=True, slots=True)
class CrossTenant:
    """``memory_bytes``: a process that holds less there is left alone (a context being torn down)."""

    rule_id: ClassVar[str] = "USAG015"
    kind: ClassVar[str] = "cross_tenant"

    memory_bytes: int = 64 * 2**20

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per device and foreign job on it now."""
        owners: dict[tuple[str, int], Lease] = {}
        for lease in view.book.leases:
            if lease.pids and lease.tenant and lease.active(view.at_ns):
                node = lease.device.split("/", 1)[0]
                owners.update({(node, pid): lease for pid in lease.pids})
        reserved = view.activity.reserved
        if not owners and not reserved:
            return
        for column, lease in view.held if reserved else ():
            device = view.window.devices[column]
            allowed = reserved.get(device.node)
            if lease.tenant and allowed is not None and lease.tenant not in allowed:
                yield self._signal(
                    device.key,
                    lease,
                    "pool",
                    (
                        "holds a device of a node that is reserved for other tenants",
                        "占用了为其他租户保留的节点上的加速卡",
                    ),
                    {"node": device.node, "reserved_for": sorted(allowed)},
                    synthetic=device.synthetic,
                )
        for key, uses in view.uses.items() if owners else ():
            known = view.window.columns.get(key)
            if not uses or known is None:
                continue
            device = view.window.devices[known]
            holders = {lease.tenant for lease in view.book.on(key, view.at_ns) if lease.tenant}
            if not holders:
                continue  # a stranger on a free device is USAG003's
            for use in uses:
                owner = owners.get((device.node, use.pid))
                if owner is None or owner.tenant in holders or use.memory_bytes < self.memory_bytes:
                    continue
                yield self._signal(
                    device.key,
                    owner,
                    "process",
                    (
                        "runs a process on a device that another tenant holds",
                        "在其他租户占用的加速卡上运行进程",
                    ),
                    {"executable": use.name, "pid": use.pid, "held_by_tenants": len(holders)},
                    synthetic=device.synthetic,
                )

    def _signal(
        self,
        device: str,
        lease: Lease,
        channel: str,
        messages: tuple[str, str],
        evidence: dict[str, object],
        *,
        synthetic: bool,
    ) -> Signal:
        return Signal(
            rule_id=self.rule_id,
            kind=self.kind,
            channel=channel,
            device=device,
            score=900,
            message=messages[0],
            message_zh=messages[1],
            evidence=evidence,
            invariant=True,
            synthetic=synthetic,
            tenant=lease.tenant,
            job=lease.job,
        )


DETECTOR = CrossTenant
