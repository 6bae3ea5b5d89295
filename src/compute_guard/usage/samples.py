"""What one reading of a GPU is: a frame of samples as a structure of arrays.

A :class:`Frame` holds n samples of d devices. Gauges are ``float32``; ``energy_j`` is a counter
that never comes back down and so is ``float64`` (a float32 counter at 1e9 J would move in steps of 64 J).
A metric a source cannot read is NaN, never 0: "no tensor counter" and "no tensor activity" are
different facts and the mining detector depends on the difference.

Whether a device's readings were measured or made up is a property of the device
(:attr:`Device.synthetic`) and is carried from here into windows, signals, incidents, evidence and notices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from guard_core.errors import UserError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Sample = tuple[int, int]
"""``(ts_ns, device index)``."""
ProcessRow = tuple[int, int, int, int, float, str]
"""``(ts_ns, device index, pid, memory_bytes, sm_percent, executable name)``."""

GAUGES = (
    "util_percent",  # share of time a kernel was resident, 0..100 (NVML utilization.gpu)
    "memory_used_bytes",
    "power_w",
    "power_limit_w",
    "sm_clock_mhz",
    "temperature_c",
    "tensor_active",  # share of cycles the tensor pipe was active, 0..1 (DCGM PROF_PIPE_TENSOR_ACTIVE)
    "dram_active",  # share of cycles device memory was active, 0..1 (DCGM PROF_DRAM_ACTIVE)
    "pcie_bytes_per_s",
    "nvlink_bytes_per_s",
)
COUNTERS = ("energy_j",)
METRICS = (*GAUGES, *COUNTERS)


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """One GPU (or MIG slice) of one node. ``synthetic`` is True when its readings are made up."""

    node: str
    uuid: str
    index: int = 0
    model: str = ""
    synthetic: bool = False

    @property
    def key(self) -> str:
        """``node/uuid``, unique in a cluster."""
        return f"{self.node}/{self.uuid}"


@dataclass(frozen=True, slots=True)
class Processes:
    """GPU processes seen with the samples, as parallel arrays of length p.

    ``sm_percent`` is NaN where the driver gives no per-process accounting. ``name`` is the
    executable's name only: command lines may hold secrets and never enter telemetry.
    """

    ts_ns: Ints
    device: npt.NDArray[np.int32]
    pid: Ints
    memory_bytes: Ints
    sm_percent: Floats
    name: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pid)

    @classmethod
    def of(cls, rows: Sequence[ProcessRow]) -> Processes:
        """From rows of :data:`ProcessRow`."""
        columns = list(zip(*rows, strict=True)) if rows else [(), (), (), (), (), ()]
        return cls(
            np.asarray(columns[0], dtype=np.int64),
            np.asarray(columns[1], dtype=np.int32),
            np.asarray(columns[2], dtype=np.int64),
            np.asarray(columns[3], dtype=np.int64),
            np.asarray(columns[4], dtype=np.float32),
            tuple(str(name) for name in columns[5]),
        )

    def rows(self) -> list[ProcessRow]:
        """Inverse of :meth:`of`."""
        return list(
            zip(
                self.ts_ns.tolist(),
                self.device.tolist(),
                self.pid.tolist(),
                self.memory_bytes.tolist(),
                self.sm_percent.tolist(),
                self.name,
                strict=True,
            )
        )


NO_PROCESSES = Processes.of([])


@dataclass(frozen=True, slots=True)
class Frame:
    """n samples: ``ts_ns`` and ``device`` (index into ``devices``) of shape (n,), one array per metric.

    Metrics absent from ``values`` read as NaN. Raises ValueError when array lengths differ.
    """

    devices: tuple[Device, ...]
    ts_ns: Ints
    device: npt.NDArray[np.int32]
    values: Mapping[str, npt.NDArray[Any]]
    processes: Processes = field(default=NO_PROCESSES)
    egress: Mapping[str, float] = field(default_factory=dict)  # node -> bytes per second that leave it
    libraries: Mapping[str, str] = field(default_factory=dict)  # node -> SHA-256 of its driver library

    def __post_init__(self) -> None:
        n = len(self.ts_ns)
        for name, array in (("device", self.device), *self.values.items()):
            if len(array) != n:
                raise ValueError(f"frame column {name} has {len(array)} rows, ts_ns has {n}")
        if unknown := set(self.values) - set(METRICS):
            raise ValueError(f"unknown metrics {sorted(unknown)}; known are {list(METRICS)}")
        if n and (self.device.min() < 0 or self.device.max() >= len(self.devices)):
            raise ValueError("frame names a device index outside its device table")

    def __len__(self) -> int:
        return len(self.ts_ns)

    @property
    def synthetic(self) -> bool:
        """True when any device of the frame is synthetic."""
        return any(device.synthetic for device in self.devices)

    def metric(self, name: str) -> npt.NDArray[Any]:
        """Values of ``name``, shape (n,); all NaN when the source does not read it."""
        found = self.values.get(name)
        return np.full(len(self), np.nan, dtype=np.float32) if found is None else found

    def take(
        self, rows: npt.NDArray[np.integer], seen: Mapping[Sample, list[ProcessRow]] | None = None
    ) -> Frame:
        """The samples ``rows`` (indices), with the processes seen with them.

        ``seen`` is :meth:`processes_by_sample`, to be computed once when many parts are taken.
        """
        ts_ns, device = self.ts_ns[rows], self.device[rows]
        owned = self.processes_by_sample() if seen is None else seen
        picked: list[ProcessRow] = []
        if owned:
            for place in dict.fromkeys(zip(ts_ns.tolist(), device.tolist(), strict=True)):
                picked += owned.get(place, [])
        values = {name: array[rows] for name, array in self.values.items()}
        return Frame(self.devices, ts_ns, device, values, Processes.of(picked) if picked else NO_PROCESSES)

    def processes_by_sample(self) -> dict[Sample, list[ProcessRow]]:
        """Process rows by ``(ts_ns, device index)``."""
        seen: dict[Sample, list[ProcessRow]] = {}
        for row in self.processes.rows():
            seen.setdefault((row[0], row[1]), []).append(row)
        return seen


def concat(frames: Iterable[Frame]) -> Frame:
    """All samples of ``frames`` over the union of their devices, in the order given."""
    parts = list(frames)
    table: dict[Device, int] = {}
    for part in parts:
        for device in part.devices:
            table.setdefault(device, len(table))
    maps = [np.asarray([table[d] for d in part.devices], dtype=np.int32) for part in parts]
    names = [name for name in METRICS if any(name in part.values for part in parts)]
    rows = [
        (ts, int(mapping[device]), *rest)
        for part, mapping in zip(parts, maps, strict=True)
        for ts, device, *rest in part.processes.rows()
    ]
    empty = np.zeros(0, dtype=np.int64)
    return Frame(
        devices=tuple(table),
        ts_ns=np.concatenate([part.ts_ns for part in parts]) if parts else empty,
        device=np.concatenate([m[p.device] for p, m in zip(parts, maps, strict=True)])
        if parts
        else empty.astype(np.int32),
        values={name: np.concatenate([part.metric(name) for part in parts]) for name in names},
        processes=Processes.of(rows),  # type: ignore[arg-type]  # rebuilt row by row above
        egress={node: rate for part in parts for node, rate in part.egress.items()},
        libraries={node: digest for part in parts for node, digest in part.libraries.items()},
    )


_PROCESS = pa.struct(
    [("pid", pa.int64()), ("memory_bytes", pa.int64()), ("sm_percent", pa.float32()), ("name", pa.string())]
)
_PROCESSES = pa.list_(_PROCESS)
SCHEMA = pa.schema(
    [
        ("ts_ns", pa.int64()),
        ("node", pa.string()),
        ("gpu_uuid", pa.string()),
        ("gpu_index", pa.int32()),
        ("gpu_model", pa.string()),
        ("synthetic", pa.bool_()),
        *[(name, pa.float64() if name in COUNTERS else pa.float32()) for name in METRICS],
        ("processes", _PROCESSES),
    ]
)
"""Arrow schema of stored telemetry: one row per (device, time), NaN written as null."""


def to_table(frame: Frame) -> pa.Table:
    """``frame`` as an Arrow table with :data:`SCHEMA`; every row says whether it is synthetic."""
    owned = {
        place: [
            {"pid": pid, "memory_bytes": memory, "sm_percent": None if isnan(sm) else sm, "name": name}
            for _, _, pid, memory, sm, name in rows
        ]
        for place, rows in frame.processes_by_sample().items()
    }
    which = pa.array(frame.device, pa.int32())

    def of_devices(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(device, name) for device in frame.devices], kind).take(which)

    at = zip(frame.ts_ns.tolist(), frame.device.tolist(), strict=True)
    columns: dict[str, Any] = {
        "ts_ns": pa.array(frame.ts_ns, pa.int64()),
        "node": of_devices("node", pa.string()),
        "gpu_uuid": of_devices("uuid", pa.string()),
        "gpu_index": of_devices("index", pa.int32()),
        "gpu_model": of_devices("model", pa.string()),
        "synthetic": of_devices("synthetic", pa.bool_()),
        "processes": pa.array(
            [owned.get(place, []) for place in at] if owned else [[]] * len(frame), _PROCESSES
        ),
    }
    for name in METRICS:
        columns[name] = pa.array(frame.metric(name), SCHEMA.field(name).type, from_pandas=True)
    return pa.table(columns, schema=SCHEMA)


def from_table(table: pa.Table, *, origin: str) -> Frame:
    """Inverse of :func:`to_table`. ``origin`` names the file in errors.

    Metric columns may be missing (they read as NaN); ``ts_ns``, ``node``, ``gpu_uuid`` and ``synthetic``
    may not: telemetry of unknown provenance is refused rather than guessed. Raises UserError.
    """
    for name in ("ts_ns", "node", "gpu_uuid", "synthetic"):
        if name not in table.column_names:
            raise UserError(
                f"telemetry {origin} has no column {name!r}; docs/admin/incidents.md lists the columns"
            )
        if table.column(name).null_count:
            raise UserError(
                f"telemetry {origin} has empty values in column {name!r}; fill or drop those rows"
            )
    rows = table.num_rows

    def column(name: str, default: Any) -> list[Any]:
        if name not in table.column_names:
            return [default] * rows
        return [default if value is None else value for value in table.column(name).to_pylist()]

    identity = zip(
        column("node", ""),
        column("gpu_uuid", ""),
        column("gpu_index", 0),
        column("gpu_model", ""),
        column("synthetic", None),
        strict=True,
    )
    devices: dict[Device, int] = {}
    index = [devices.setdefault(Device(*row), len(devices)) for row in identity]
    try:
        ts_ns = table.column("ts_ns").cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.int64)
        values = {
            name: np.array(
                table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False),
                dtype=np.float64 if name in COUNTERS else np.float32,
            )
            for name in METRICS
            if name in table.column_names
        }
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"telemetry {origin} holds a value that is not a number ({error}); correct the column"
        ) from error
    seen: list[ProcessRow] = []
    for at, device, listed in zip(ts_ns.tolist(), index, column("processes", []), strict=True):
        for p in listed:
            share = float("nan") if p["sm_percent"] is None else p["sm_percent"]
            seen.append((at, device, p["pid"], p["memory_bytes"] or 0, share, p["name"] or ""))
    return Frame(tuple(devices), ts_ns, np.asarray(index, dtype=np.int32), values, Processes.of(seen))
