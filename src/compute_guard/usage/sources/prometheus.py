"""Telemetry scraped from dcgm-exporter and from Ray's own metrics endpoint.

Metric names and units: NVIDIA/dcgm-exporter ``etc/default-counters.csv``, ``etc/dcp-metrics-included.csv``;
ray ``python/ray/dashboard/modules/reporter/reporter_agent.py``. dcgm-exporter repeats a device's value for
every pod on a time-sliced GPU: lines of one device and metric are one reading here, whatever pod they name,
and shares are the attribution ledger's work, never a copy of the device's value.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from compute_guard.usage.samples import METRICS, Device, Doubles, Frame, Ints
from compute_guard.usage.sources.exposition import UNWANTED, Reader
from guard_core.errors import UserError

MIB: Final = 2.0**20
NAMES: Final[Mapping[str, tuple[str, float]]] = {
    "DCGM_FI_DEV_GPU_UTIL": ("util_percent", 1.0),
    "DCGM_FI_DEV_FB_USED": ("memory_used_bytes", MIB),
    "DCGM_FI_DEV_POWER_USAGE": ("power_w", 1.0),
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": ("power_limit_w", 1.0),
    "DCGM_FI_DEV_POWER_MGMT_LIMIT": ("power_limit_w", 1.0),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("energy_j", 1e-3),
    "DCGM_FI_DEV_SM_CLOCK": ("sm_clock_mhz", 1.0),
    "DCGM_FI_DEV_GPU_TEMP": ("temperature_c", 1.0),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("tensor_active", 1.0),
    "DCGM_FI_PROF_DRAM_ACTIVE": ("dram_active", 1.0),
    "DCGM_FI_PROF_PCIE_TX_BYTES": ("pcie_bytes_per_s", 1.0),
    "DCGM_FI_PROF_PCIE_RX_BYTES": ("pcie_bytes_per_s+", 1.0),
    "DCGM_FI_PROF_NVLINK_TX_BYTES": ("nvlink_bytes_per_s", 1.0),
    "DCGM_FI_PROF_NVLINK_RX_BYTES": ("nvlink_bytes_per_s+", 1.0),
    "ray_node_gpus_utilization": ("util_percent", 1.0),
    "ray_node_gram_used": ("memory_used_bytes", MIB),
}
"""Exporter's metric to ours and the factor to our unit. ``+``: a second direction, added to the first."""

EGRESS: Final = frozenset({"ray_node_network_send_speed", "node_network_transmit_bytes_total"})
"""Bytes per second that leave a node (Ray), and node_exporter's counter of them per network device."""
_NODE_SLOT: Final = 1 << 48  # slots from here on are not devices' but nodes'

_RAW: Final = (*METRICS, "pcie_bytes_per_s+", "nvlink_bytes_per_s+")
_ROW: Final = {name: row for row, name in enumerate(_RAW)}
_SCALE: Final = dict(NAMES.values())


def fetch(url: str, *, timeout_s: float = 10.0, max_bytes: int = 512 * 2**20) -> bytes:
    """The body of ``url``. Raises UserError when it cannot be had or is larger than ``max_bytes``."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"metrics address {url!r} must start with http:// or https://")
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310  # scheme checked above
            body: bytes = response.read(max_bytes + 1)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"metrics at {url} cannot be read ({error}); check that the exporter runs") from error
    if len(body) > max_bytes:
        raise UserError(f"metrics at {url} are larger than {max_bytes} bytes; scrape fewer devices at a time")
    return body


@dataclass(slots=True)
class PrometheusSource:
    """One exporter, scraped every ``interval_s``. ``synthetic`` is True only for an exporter of made-up data.

    ``node`` names the node when the exporter's labels do not. ``ticks`` limits the number of scrapes.
    ``malformed`` counts lines that could not be read so far.
    """

    url: str
    node: str = ""
    interval_s: float = 15.0
    ticks: int | None = None
    synthetic: bool = False
    max_devices: int = 200_000
    fetch: Callable[[str], bytes] = fetch
    now_ns: Callable[[], int] = time.time_ns
    sleep: Callable[[float], None] = time.sleep
    name: str = "prometheus"
    malformed: int = 0
    _devices: dict[Device, int] = field(default_factory=dict)
    _shown: tuple[Device, ...] = ()
    _links: list[tuple[str, bool]] = field(default_factory=list)
    _counted: dict[int, tuple[int, float]] = field(default_factory=dict)
    _reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = Reader(self._resolve)

    def frames(self) -> Iterator[Frame]:
        """One frame per scrape. Raises UserError when the exporter cannot be read."""
        taken = 0
        while self.ticks is None or taken < self.ticks:
            yield self.parse(self.fetch(self.url), self.now_ns())
            taken += 1
            if self.ticks is None or taken < self.ticks:
                self.sleep(self.interval_s)

    def parse(self, text: bytes, ts_ns: int) -> Frame:
        """One scrape's text as a frame of one sample per device, taken at ``ts_ns``."""
        scrape = self._reader.read(text)
        self.malformed += scrape.malformed
        width = len(self._devices)
        matrix = np.full((len(_RAW), width), np.nan)
        of_devices = scrape.slots < _NODE_SLOT
        slots, values = scrape.slots, scrape.values
        if not of_devices.all():
            slots, values = slots[of_devices], values[of_devices]
        matrix[slots % len(_RAW), slots // len(_RAW)] = values
        for name, row in _ROW.items():
            if _SCALE.get(name, 1.0) != 1.0:
                matrix[row] *= _SCALE[name]
        for name in ("pcie_bytes_per_s", "nvlink_bytes_per_s"):
            first, second = matrix[_ROW[name]], matrix[_ROW[name + "+"]]
            matrix[_ROW[name]] = np.where(np.isnan(first), second, first + np.nan_to_num(second))
        seen = np.flatnonzero(np.isfinite(matrix).any(axis=0)).astype(np.int32)
        read = [name for name in METRICS if np.isfinite(matrix[_ROW[name]]).any()]
        return Frame(
            devices=self._table(),
            ts_ns=np.full(len(seen), ts_ns, dtype=np.int64),
            device=seen,
            values={
                name: matrix[_ROW[name], seen].astype(np.float64 if name == "energy_j" else np.float32)
                for name in read
            },
            egress={}
            if of_devices.all()
            else self._egress(scrape.slots[~of_devices], scrape.values[~of_devices], ts_ns),
        )

    def _table(self) -> tuple[Device, ...]:
        """The devices; the same tuple as long as none is new, so that readers can tell at a glance."""
        if len(self._shown) != len(self._devices):
            self._shown = tuple(self._devices)
        return self._shown

    def _egress(self, slots: Ints, values: Doubles, ts_ns: int) -> dict[str, float]:
        """Bytes per second by node; a counter's from its previous scrape, nothing after a reset."""
        rates: dict[str, float] = {}
        for number, value in zip((slots - _NODE_SLOT).tolist(), values.tolist(), strict=True):
            node, is_counter = self._links[number]
            rate = value
            if is_counter:
                before = self._counted.get(number)
                self._counted[number] = (ts_ns, value)
                if before is None or value < before[1] or ts_ns <= before[0]:
                    continue
                rate = (value - before[1]) / ((ts_ns - before[0]) / 1e9)
            rates[node] = rates.get(node, 0.0) + rate
        return rates

    def _link(self, name: str, labels: Mapping[str, str]) -> int:
        is_counter = name.startswith("node_")
        if len(self._links) >= self.max_devices or (is_counter and labels.get("device") == "lo"):
            return UNWANTED
        node = labels.get("ip") or labels.get("Hostname") or self.node or labels.get("instance") or ""
        self._links.append((node, is_counter))
        return _NODE_SLOT + len(self._links) - 1

    def _resolve(self, name: str, labels: Mapping[str, str]) -> int:
        if name in EGRESS:
            return self._link(name, labels)
        wanted = NAMES.get(name)
        device = None if wanted is None else self._device(labels)
        if wanted is None or device is None:
            return UNWANTED
        if device not in self._devices and len(self._devices) >= self.max_devices:
            return UNWANTED  # invented device names cost nothing
        column = self._devices.setdefault(device, len(self._devices))
        return column * len(_RAW) + _ROW[wanted[0]]

    def _device(self, labels: Mapping[str, str]) -> Device | None:
        index = labels.get("gpu") or labels.get("GpuIndex") or ""
        if not index.isascii() or not index.isdigit():
            return None
        uuid = labels.get("UUID") or f"index-{index}"
        if slice_id := labels.get("GPU_I_ID"):
            uuid = f"{uuid}/{slice_id}"
        node = labels.get("Hostname") or labels.get("ip") or self.node
        model = labels.get("modelName") or labels.get("GpuDeviceName") or ""
        return Device(node, uuid, int(index), model, synthetic=self.synthetic)
