"""USAG003: a process on a GPU that no lease explains.

An invariant, not a statistic: on a device whose leases and their processes are known, every other process is
the platform's or it should not be there. Two scrapes in a row must show it (the incident book's hysteresis),
because a process may outlive its lease by moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from compute_guard.usage.attribution import strangers
from compute_guard.usage.detectors.base import Signal, View
from guard_core.counting import counted

NOBODY = "unattributed"
"""What stands for the tenant in incidents of nobody's."""


@dataclass(frozen=True, slots=True)
class UnattributedProcess:
    """``memory_bytes``: strangers that hold less are left alone (a context being torn down)."""

    rule_id: ClassVar[str] = "USAG003"
    kind: ClassVar[str] = "unattributed_process"

    memory_bytes: int = 64 * 2**20

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per device with a stranger on it now."""
        for key, uses in view.uses.items():
            column = view.window.columns.get(key)
            if not uses or column is None:
                continue
            device = view.window.devices[column]
            found = [
                use
                for use in strangers(view.book.on(device.key, view.at_ns), uses)
                if use.memory_bytes >= self.memory_bytes or (use.weight or 0) > 0
            ]
            if found:
                names = sorted({use.name or "unknown" for use in found})
                yield Signal(
                    rule_id=self.rule_id,
                    kind=self.kind,
                    channel="process",
                    device=device.key,
                    score=900,
                    message=f"{counted(len(found), 'process', 'processes')} without a lease: "
                    f"{', '.join(names)}",
                    message_zh=f"{len(found)}个进程没有租约：{'、'.join(names)}",
                    evidence={
                        "executables": names,
                        "pids": sorted(use.pid for use in found),
                        "memory_mib": sum(use.memory_bytes for use in found) // 2**20,
                    },
                    invariant=True,
                    synthetic=device.synthetic,
                    tenant=NOBODY,
                    job=device.key,
                )


DETECTOR = UnattributedProcess
