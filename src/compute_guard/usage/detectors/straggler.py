"""USAG008: one device of a job falls behind the others, or the whole job stands still.

Peers do the same work, so they are the best model of each other. *Straggler*: a device's ratio to the median
of the job's devices has fallen, in power and (where it is read) tensor activity, against the same ratio some
minutes ago; devices that always differed do not stand out, and replicas that never worked in step (whose
power came and went) are no peers. *Hang*: all devices of a job that computed on its
tensor cores have stopped doing so: idle, or spinning in a collective (100 % utilisation, no work). A batch
job of one device has no peers, so it is given longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compute_guard.usage.detectors.base import Signal, View, rounded
from compute_guard.usage.window import median

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
        power = window.values["power_w"][: self.before]
        with np.errstate(invalid="ignore", divide="ignore"):
            level = window.median("power_w", None, self.before)
            in_step = median(np.abs(power - level)) <= self.steady_share * level
        medians = {}
        for metric in ("power_w", "tensor_active", "util_percent"):
            enough = window.coverage(metric, self.lasting) >= 0.8
            enough &= np.isfinite(window.values[metric][: self.before]).mean(axis=0) >= 0.8
            first = window.median(metric, None, self.before)
            last = window.median(metric, -self.lasting, None)
            medians[metric] = (np.where(enough, first, np.nan), np.where(enough, last, np.nan))
        began = window.end_ns - window.cells * window.step_ns
        yield from self._alone(view, began)
        columns, gang, names = self._gangs(view, began)
        if not len(columns):
            return
        for number in self._odd(columns, gang, medians).tolist():
            members = columns[gang == number]
            tenant, job = names[number]
            yield from self._judge(view, tenant, job, members, medians, bool(in_step[members].all()))

    def _alone(self, view: View, began: int) -> Iterator[Signal]:
        """Batch jobs of one device that computed and, for longer than gangs are given, did not at all.

        Without peers only time tells a hang from a pause, and a service or a notebook may rest.
        """
        window, found, rows = view.window, view.roster, view.active
        if window.cells < 2 * self.before or "batch" not in found.kinds or not len(rows):
            return
        lonely = np.bincount(found.job[rows], minlength=1)[found.job[rows]] == 1
        lonely &= np.bincount(found.column[rows], minlength=1)[found.column[rows]] == 1
        lonely &= (found.kind[rows] == found.kinds.index("batch")) & (found.tenant[found.job[rows]] >= 0)
        rows = rows[lonely & (found.start_ns[rows] <= began)]
        tensor = window.values["tensor_active"][-self.before :]
        with np.errstate(invalid="ignore"):
            worked = window.median("tensor_active", None, self.before) >= self.working_tensor
            still = worked & (np.fmax.reduce(tensor) <= self.still_tensor)
            still &= window.coverage("tensor_active", self.before) >= 0.8
        for row in rows[still[found.column[rows]]].tolist():
            lease, column = found.leases[row], int(found.column[row])
            yield Signal(
                rule_id=self.rule_id,
                kind="hang",
                channel="telemetry",
                device=lease.device,
                score=400,
                message=f"the job's only device has not computed for {self.before} samples",
                message_zh=f"作业唯一的加速卡已连续{self.before}次采样未计算",
                evidence={
                    "devices": 1,
                    "util_percent": rounded(window.mean("util_percent", self.before)[column]),
                    "tensor_before": rounded(window.median("tensor_active", None, self.before)[column], 3),
                },
                synthetic=window.devices[column].synthetic,
                tenant=lease.tenant,
                job=lease.job,
            )

    def _gangs(
        self, view: View, began: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[tuple[str, str], ...]]:
        """Columns of devices that one job of several has held alone for the whole window, their job's number

        (sorted by it), and the jobs.
        """
        found, rows = view.roster, view.active
        column, job = found.column[rows], found.job[rows]
        alone = np.bincount(column, minlength=1)[column] == 1 if len(rows) else np.zeros(0, dtype=np.bool_)
        alone &= (found.tenant[job] >= 0) & (found.start_ns[rows] <= began)
        column, job = column[alone], job[alone]
        several = np.bincount(job, minlength=1)[job] >= 2 if len(job) else np.zeros(0, dtype=np.bool_)
        column, job = column[several], job[several]
        order = np.lexsort((column, job))
        return column[order], job[order], found.jobs

    def _odd(
        self,
        columns: npt.NDArray[np.int64],
        gang: npt.NDArray[np.int64],
        medians: dict[str, tuple[_Matrix, _Matrix]],
    ) -> npt.NDArray[np.int64]:
        """Numbers of the jobs worth a closer look: all at once, so healthy fleets cost next to nothing."""
        starts = np.flatnonzero(np.r_[True, gang[1:] != gang[:-1]])
        sizes = np.diff(np.r_[starts, len(gang)])
        (power_0, power_1), (tensor_0, tensor_1) = (
            (first[columns], last[columns]) for first, last in (medians["power_w"], medians["tensor_active"])
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            still = np.logical_and.reduceat((tensor_0 >= self.working_tensor), starts)
            still &= np.logical_and.reduceat((tensor_1 <= self.still_tensor), starts)
            middles = [np.repeat(_middles(p, gang, starts, sizes), sizes) for p in (power_1, power_0)]
            fell = (power_1 / middles[0]) / (power_0 / middles[1]) < self.power_share
            behind = np.logical_or.reduceat(fell, starts) & (sizes >= self.peers)
        odd: npt.NDArray[np.int64] = gang[starts][still | behind]
        return odd

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
                message_zh=f"作业的全部{len(devices)}张加速卡均已停止计算",
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
                message_zh=f"功耗降至此前的{fell[place]:.0%}，而其他{len(devices) - 1}张卡正常",
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


def _middles(
    values: _Matrix,
    gang: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
) -> _Matrix:
    """The median of each gang; NaN where any of its values is (as ``np.median`` has it)."""
    ordered = values[np.lexsort((values, gang))]
    middle: _Matrix = (ordered[starts + (sizes - 1) // 2] + ordered[starts + sizes // 2]) / 2
    middle[np.isnan(ordered[starts + sizes - 1])] = np.nan  # NaN sorts last
    return middle


DETECTOR = Straggler
