"""USAG013: somebody tries the doors, or a job does what its command does not say.

Channels: ``authentication`` (credentials that were refused, again and again), ``denied`` (one credential that
policy keeps refusing: probing), ``unadmitted`` (work that reached Ray past admission and was stopped),
``shell`` (a shell or downloader below a Ray worker that the job's command does not name). Rules of thumb for
shells below Ray workers are noisy because they do not know what a job was admitted with; this one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from compute_guard.usage.activity import MINUTE_NS, Refusal, Shell
from compute_guard.usage.detectors.base import Signal, View
from compute_guard.usage.detectors.unattributed_process import NOBODY


@dataclass(frozen=True, slots=True)
class ControlPlaneAbuse:
    """How many of a kind within ``minutes`` are too many."""

    rule_id: ClassVar[str] = "USAG013"
    kind: ClassVar[str] = "control_plane_abuse"

    minutes: float = 10.0
    authentication: int = 20
    denied: int = 30
    unadmitted: int = 1
    shells: int = 1

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per channel and whom it is about."""
        since = view.at_ns - int(self.minutes * MINUTE_NS)
        grouped: dict[tuple[str, str, str], list[Refusal]] = {}
        for refusal in view.activity.refusals:
            if refusal.at_ns >= since:
                known = refusal.what in ("authentication", "unadmitted")
                channel = refusal.what if known else "denied"
                grouped.setdefault((channel, refusal.tenant or NOBODY, refusal.who), []).append(refusal)
        limits = {
            "authentication": self.authentication,
            "denied": self.denied,
            "unadmitted": self.unadmitted,
        }
        words = {
            "authentication": ("credentials refused", "凭据被拒绝"),
            "denied": ("requests refused by policy", "请求被策略拒绝"),
            "unadmitted": ("started without admission and was stopped", "未经准入启动并被停止"),
        }
        for (channel, tenant, who), found in sorted(grouped.items()):
            times = sum(refusal.count for refusal in found)
            if times >= limits[channel]:
                yield Signal(
                    rule_id=self.rule_id,
                    kind=self.kind,
                    channel=channel,
                    device="",
                    score=min(800, 400 + 10 * times),
                    message=f"{times} x {words[channel][0]} in {self.minutes:g} minutes",
                    message_zh=f"{self.minutes:g}分钟内{words[channel][1]}{times}次",
                    evidence={"count": times, "who": who, "what": sorted({r.what for r in found})},
                    tenant=tenant,
                    job=who,
                )
        shells: dict[tuple[str, str], list[Shell]] = {}
        for shell in view.activity.shells:
            shells.setdefault((shell.tenant or NOBODY, shell.job), []).append(shell)
        for (tenant, job), seen in sorted(shells.items()):
            if len(seen) >= self.shells:
                names = sorted({shell.executable for shell in seen})
                yield Signal(
                    rule_id=self.rule_id,
                    kind=self.kind,
                    channel="shell",
                    device="",
                    score=600,
                    message=f"below its workers runs {', '.join(names)}, which its command does not name",
                    message_zh=f"其工作进程之下运行着作业命令未声明的程序：{'、'.join(names)}",
                    evidence={
                        "executables": names,
                        "pids": sorted(shell.pid for shell in seen),
                        "nodes": sorted({shell.node for shell in seen}),
                    },
                    tenant=tenant,
                    job=job,
                )


DETECTOR = ControlPlaneAbuse
