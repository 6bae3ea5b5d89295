"""Telemetry from NVIDIA's management library, through nvidia-ml-py.

Field names and units: NVIDIA's NVML API reference (nvml.h). Where a device lacks a counter the reading is
NaN, not 0. NVML does not expose tensor-pipe and DRAM activity; those come from DCGM (see ``prometheus``).
NVML is attackable: a fake ``libnvidia-ml.so.1`` can report what it likes, which is why USAG004 compares
sensors, and why the library's hash goes with the readings (USAG014).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np

from compute_guard.usage.samples import GAUGES, Device, Frame, Processes, ProcessRow
from compute_guard.usage.sources import Unavailable, until_next
from guard_core.errors import MissingExtra, UserError

_NAN = float("nan")


@dataclass(slots=True)
class NvmlSource:
    """Every GPU of this machine, one frame per ``interval_s``. ``ticks`` limits the number of frames."""

    node: str = field(default_factory=platform.node)
    interval_s: float = 15.0
    ticks: int | None = None
    now_ns: Callable[[], int] = time.time_ns
    sleep: Callable[[float], None] = time.sleep
    name: str = "nvml"
    _nvlink: dict[str, tuple[int, int]] = field(default_factory=dict)

    def unavailable(self) -> Unavailable | None:
        """None when NVML answers here, else why not and what to do."""
        try:
            nvml = _load()
        except MissingExtra as error:
            return Unavailable("nvml", "nvidia-ml-py is not installed", str(error))
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            return Unavailable(
                "nvml",
                f"NVML does not start: {error}",
                "run on a machine with an NVIDIA driver, or use prometheus",
            )
        try:
            if nvml.nvmlDeviceGetCount() == 0:
                return Unavailable("nvml", "the driver reports no GPU", "check nvidia-smi -L on this machine")
        finally:
            nvml.nvmlShutdown()
        return None

    def frames(self) -> Iterator[Frame]:
        """One frame per interval. Raises UserError when NVML cannot be read."""
        problem = self.unavailable()
        if problem is not None:
            raise UserError(f"{problem.reason}; {problem.remedy}")
        nvml = _load()
        nvml.nvmlInit()
        try:
            taken = 0
            while self.ticks is None or taken < self.ticks:
                yield self._read(nvml)
                taken += 1
                if self.ticks is None or taken < self.ticks:
                    self.sleep(until_next(self.interval_s, self.now_ns()))
        finally:
            nvml.nvmlShutdown()

    def _read(self, nvml: Any) -> Frame:
        devices, readings, seen = [], [], []
        ts = self.now_ns()
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            devices.append(
                Device(
                    self.node,
                    nvml.nvmlDeviceGetUUID(handle),
                    index,
                    nvml.nvmlDeviceGetName(handle),
                    synthetic=False,
                )
            )
            readings.append(self._device(nvml, handle, devices[-1].uuid, ts))
            seen += _processes(nvml, handle, index, ts)
        names = (*GAUGES, "energy_j")
        return Frame(
            devices=tuple(devices),
            ts_ns=np.full(len(devices), ts, dtype=np.int64),
            device=np.arange(len(devices), dtype=np.int32),
            values={
                name: np.asarray(
                    [r[name] for r in readings], dtype=np.float64 if name == "energy_j" else np.float32
                )
                for name in names
            },
            processes=Processes.of(seen),
            libraries={self.node: digest} if (digest := loaded_library()) else {},
        )

    def _device(self, nvml: Any, handle: Any, uuid: str, ts: int) -> dict[str, float]:
        reading = dict.fromkeys((*GAUGES, "energy_j"), _NAN)

        def read(name: str, ask: Callable[[], float]) -> None:
            with suppress(nvml.NVMLError):  # not supported on this device: stays NaN
                reading[name] = float(ask())

        read("util_percent", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        read("memory_used_bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
        read("power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3)
        read("power_limit_w", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3)
        read("energy_j", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)
        read("sm_clock_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        read("temperature_c", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        read(
            "pcie_bytes_per_s",
            lambda: (
                1024.0
                * sum(  # NVML counts KB/s over 20 ms
                    nvml.nvmlDeviceGetPcieThroughput(handle, way)
                    for way in (nvml.NVML_PCIE_UTIL_TX_BYTES, nvml.NVML_PCIE_UTIL_RX_BYTES)
                )
            ),
        )
        read("nvlink_bytes_per_s", lambda: self._nvlink_rate(nvml, handle, uuid, ts))
        return reading

    def _nvlink_rate(self, nvml: Any, handle: Any, uuid: str, ts: int) -> float:
        """Bytes per second since the previous reading, from the counters of all links (KiB)."""
        fields = [nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX]
        values = nvml.nvmlDeviceGetFieldValues(handle, fields)
        if any(value.nvmlReturn != nvml.NVML_SUCCESS for value in values):
            return _NAN
        total = 1024 * sum(int(value.value.ullVal) for value in values)
        before = self._nvlink.get(uuid)
        self._nvlink[uuid] = (ts, total)
        if before is None or total < before[1] or ts <= before[0]:
            return _NAN
        return (total - before[1]) / ((ts - before[0]) / 1e9)


def _processes(nvml: Any, handle: Any, index: int, ts: int) -> list[ProcessRow]:
    shares: dict[int, float] = {}
    with suppress(nvml.NVMLError):
        for sample in nvml.nvmlDeviceGetProcessUtilization(handle, 0):
            shares[int(sample.pid)] = float(sample.smUtil)
    rows: list[ProcessRow] = []
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        with suppress(nvml.NVMLError):
            for process in ask(handle):
                name = ""
                with suppress(nvml.NVMLError):
                    # The path's last part only: arguments and home directories are nobody's business here.
                    name = str(nvml.nvmlSystemGetProcessName(process.pid)).split(" ", 1)[0].rsplit("/", 1)[-1]
                memory = int(process.usedGpuMemory or 0)
                rows.append((ts, index, int(process.pid), memory, shares.get(int(process.pid), _NAN), name))
    return list({row[2]: row for row in rows}.values())


def loaded_library(maps: Path = Path("/proc/self/maps")) -> str:
    """SHA-256 of the ``libnvidia-ml`` mapped into this process, empty when there is none to be read.

    What is mapped is what answers, whatever the link at the usual place points to now.
    """
    with suppress(OSError):
        for line in maps.read_text().splitlines():
            path = line.split(maxsplit=5)[-1]
            if "/libnvidia-ml.so" in path:
                with Path(path.removesuffix(" (deleted)")).open("rb") as file:
                    return file_digest(file, "sha256").hexdigest()
    return ""


def _load() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise MissingExtra.of("nvidia-ml-py", "gpu") from error
    return pynvml
