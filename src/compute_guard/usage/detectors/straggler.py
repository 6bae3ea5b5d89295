"""USAG008: one device of a job falls behind the others, or the whole job stands still.

Peers do the same work, so they are the best model of each other. *Straggler*: a device's ratio to the median
of the job's devices has fallen, in power and (where it is read) tensor activity, against the same ratio some
minutes ago; devices that always differed do not stand out, and replicas that never worked in step (whose
power came and went) are no peers. *Hang*: all devices of a job that computed on its
tensor cores have stopped doing so: idle, or spinning in a collective (100 % utilisation, no work).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compute_guard.usage.detectors.base import Signal, View, rounded
from compute_guard.usage.detectors.regime_change import median

_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Straggler:
    """``before`` and ``lasting`` count cells; shares are of the device's earlier ratio to its peers."""

    rule_id: ClassVar[str] = "USAG008"
    kind: ClassVar[str] = "straggler"

    before: int = 24
    lasting: int = 16
    steadily: float = 0.9
    peers: int = 3
    power_share: float = 0.8
    tensor_share: float = 0.6
    working_tensor: float = 0.05
    still_tensor: float = 0.005
    steady_share: float = 0.1

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per device that has fallen behind, or per job that stands still."""
        window = view.window
        if window.cells < self.before + self.lasting:
            return
        power = window.values["power_w"][: self.before].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            level = median(power)
            in_step = median(np.abs(power - level)) <= self.steady_share * level
        medians = {}
        for metric in ("power_w", "tensor_active", "util_percent"):
            values = window.values[metric].astype(np.float64)
            enough = np.isfinite(values[-self.lasting :]).mean(axis=0) >= 0.8
            enough &= np.isfinite(values[: self.before]).mean(axis=0) >= 0.8
            first, last = median(values[: self.before]), median(values[-self.lasting :])
            medians[metric] = (np.where(enough, first, np.nan), np.where(enough, last, np.nan))
        began = window.end_ns - window.cells * window.step_ns
        for (tenant, job), members in self._gangs(view, began).items():
            columns = np.asarray(members)
            yield from self._judge(view, tenant, job, columns, medians, bool(in_step[columns].all()))

    def _gangs(self, view: View, began: int) -> dict[tuple[str, str], list[int]]:
        """Column numbers by job, of devices that one job alone has held for the whole window."""
        gangs: dict[tuple[str, str], list[int]] = {}
        for index, device in enumerate(view.window.devices):
            leases = view.book.on(device.key, view.at_ns)
            if len(leases) == 1 and leases[0].tenant and leases[0].start_ns <= began:
                gangs.setdefault((leases[0].tenant, leases[0].job), []).append(index)
        return {key: members for key, members in gangs.items() if len(members) >= 2}

    def _judge(
        self,
        view: View,
        tenant: str,
        job: str,
        members: npt.NDArray[np.int64],
        medians: dict[str, tuple[_Matrix, _Matrix]],
        in_step: bool,
    ) -> Iterator[Signal]:
        devices = [view.window.devices[i] for i in members.tolist()]
        (power_0, power_1), (tensor_0, tensor_1) = (
            (first[members], last[members]) for first, last in (medians["power_w"], medians["tensor_active"])
        )
        with np.errstate(invalid="ignore"):
            still = (tensor_0 >= self.working_tensor).all() and (tensor_1 <= self.still_tensor).all()
        if still:
            util = medians["util_percent"][1][members]
            yield Signal(
                rule_id=self.rule_id,
                kind="hang",
                channel="telemetry",
                device=devices[0].key,
                score=600,
                message=f"all {len(devices)} devices of the job have stopped computing",
                evidence={
                    "devices": len(devices),
                    "util_percent": rounded(float(np.median(util))),
                    "tensor_before": rounded(float(np.median(tensor_0)), 3),
                },
                synthetic=any(d.synthetic for d in devices),
                tenant=tenant,
                job=job,
            )
            return
        if len(devices) < self.peers or not in_step:
            return
        with np.errstate(invalid="ignore", divide="ignore"):
            fell = (power_1 / np.median(power_1)) / (power_0 / np.median(power_0))
            # Sample by sample: stalls of the input pipeline that happen to crowd are no lasting loss.
            recent = view.window.values["power_w"][-self.lasting :, members].astype(np.float64) / power_0
            below = recent < self.power_share * median(recent.T)[:, None]
            behind = (fell < self.power_share) & (below.mean(axis=0) >= self.steadily)
            slower = (tensor_1 / np.median(tensor_1)) / (tensor_0 / np.median(tensor_0))
            behind &= np.isnan(slower) | (slower < self.tensor_share)
        for place in np.flatnonzero(behind).tolist():
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="telemetry",
                device=devices[place].key,
                score=500,
                message=f"power fell to {fell[place]:.0%} of what it was beside its {len(devices) - 1} peers",
                evidence={
                    "peers": len(devices) - 1,
                    "power_w": rounded(power_1[place], 1),
                    "peers_power_w": rounded(float(np.median(power_1)), 1),
                    "tensor_active": rounded(tensor_1[place], 3),
                    "peers_tensor_active": rounded(float(np.median(tensor_1)), 3),
                },
                synthetic=devices[place].synthetic,
                tenant=tenant,
                job=job,
            )


DETECTOR = Straggler
