"""USAG009: bytes leave the node of a job that has read a dataset and does not compute.

Training reads much and sends little: gradients stay inside, checkpoints are small beside the data. A job that
has just finished a verified read, keeps its accelerators idle, and whose node sends out a good part of what
was read is moving the data, not learning from it. The reads are the verified reader's own records, so they
cannot be left out by the job. A read *for export*, which policy has allowed, is not abnormal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compute_guard.usage.activity import MINUTE_NS, DatasetRead
from compute_guard.usage.attribution import Lease
from compute_guard.usage.detectors.base import Signal, View, rounded


@dataclass(frozen=True, slots=True)
class AbnormalExport:
    """``share`` of the bytes read, and at least ``floor_bytes``, gone within ``minutes`` of a read."""

    rule_id: ClassVar[str] = "USAG009"
    kind: ClassVar[str] = "abnormal_export"

    minutes: float = 60.0
    samples: int = 8
    idle_percent: float = 10.0
    share: float = 0.5
    floor_bytes: float = 256.0 * 2**20

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per job that reads, rests and sends now."""
        since = view.at_ns - int(self.minutes * MINUTE_NS)
        reads: dict[tuple[str, str], list[DatasetRead]] = {}
        for read in view.activity.reads:
            if read.at_ns >= since and read.job and read.purpose != "export":
                reads.setdefault((read.tenant, read.job), []).append(read)
        if not reads:
            return
        util = view.window.mean("util_percent", self.samples)
        held: dict[tuple[str, str], list[tuple[int, Lease]]] = {}
        tenants: dict[str, set[str]] = {}
        for index, lease in view.held:
            held.setdefault((lease.tenant, lease.job), []).append((index, lease))
            tenants.setdefault(view.window.devices[index].node, set()).add(lease.tenant)
        for (tenant, job), found in sorted(reads.items()):
            members = held.get((tenant, job), [])
            busy = [float(util[i]) for i, _ in members]
            if not members or not all(level <= self.idle_percent for level in busy):
                continue
            nodes = sorted({view.window.devices[i].node for i, _ in members})
            read_bytes = sum(read.bytes for read in found)
            first = min(read.at_ns for read in found)
            sent = sum(view.flows.since(node, first) for node in nodes)
            if sent < max(self.floor_bytes, self.share * read_bytes):
                continue
            alone = all(tenants[node] <= {tenant} for node in nodes)
            device = view.window.devices[members[0][0]]
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="egress",
                device=device.key,
                score=min(900, int(500 + 100 * sent / max(read_bytes, 1))) if alone else 400,
                message=f"{sent / 2**30:.1f} GiB left its node after {read_bytes / 2**30:.1f} GiB were read, "
                "with idle accelerators",
                message_zh=f"读取{read_bytes / 2**30:.1f} GiB数据后，其节点外传{sent / 2**30:.1f} GiB，"
                "且加速卡处于空闲",
                evidence={
                    "datasets": sorted({read.ref for read in found}),
                    "read_bytes": read_bytes,
                    "sent_bytes": int(sent),
                    "util_percent": rounded(float(np.mean(busy))),
                    "node_shared_with_other_tenants": not alone,
                },
                synthetic=device.synthetic,
                tenant=tenant,
                job=job,
            )


DETECTOR = AbnormalExport
