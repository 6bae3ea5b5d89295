"""Made-up telemetry for drills, demonstrations and tests, labelled as made up in the data itself.

Every device it emits has ``synthetic=True`` and a UUID that starts with ``SYN-``. A load is a small physical
model: what the kernels do sets utilisation and activity, these set power, power sets temperature (first-order
lag) and energy (its integral). Seeded: the same arguments give the same bytes.

The models are ours and simple. They are a floor for a detector, not proof of it: real training is the hard
negative, and numbers measured on these series are reported as synthetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from compute_guard.usage.samples import Device, Frame, Processes, ProcessRow
from compute_guard.usage.sources.replay import by_step
from guard_core.errors import UserError

SECOND: Final = 1_000_000_000
Shape = dict[str, npt.NDArray[np.float64]]
"""Fractions of the device per sample: util, tensor, dram, memory in 0..1; pcie and nvlink in bytes/s."""


@dataclass(frozen=True, slots=True)
class Model:
    """A GPU model's physical limits. Watts, bytes, MHz."""

    name: str = "H100-80GB (synthetic)"
    limit_w: float = 700.0
    idle_w: float = 75.0
    memory_bytes: float = 80.0 * 2**30
    clock_mhz: float = 1980.0


def _steady(n: int, value: float) -> npt.NDArray[np.float64]:
    return np.full(n, value)


def _noise(rng: np.random.Generator, n: int, level: float, spread: float) -> npt.NDArray[np.float64]:
    return np.clip(rng.normal(level, spread, n), 0.0, None)


def _training(rng: np.random.Generator, n: int) -> Shape:
    """Tensor-bound steps with checkpoints, evaluation phases and stalls of the input pipeline."""
    util = np.clip(rng.normal(rng.uniform(90, 98), rng.uniform(1, 5), n), 0, 100) / 100
    tensor = _noise(rng, n, rng.uniform(0.2, 0.55), 0.04)
    for _ in range(max(1, n // 60)):
        start, length = int(rng.integers(0, n)), int(rng.integers(1, 5))
        util[start : start + length] *= rng.uniform(0, 0.4)
        tensor[start : start + length] *= rng.uniform(0, 0.2)
    nvlink = 0.0 if rng.random() < 0.4 else rng.uniform(2e9, 4e10)
    memory = np.clip(rng.uniform(0.5, 0.93) + np.abs(rng.normal(0, 0.004, n)), 0, 1)
    memory[: min(n, 4)] *= np.linspace(0.2, 0.9, 4)[: min(n, 4)]
    return {
        "util": util,
        "tensor": tensor,
        "dram": _noise(rng, n, rng.uniform(0.3, 0.6), 0.04),
        "memory": memory,
        "pcie": _noise(rng, n, rng.uniform(5e6, 4e8), 3e6),
        "nvlink": _noise(rng, n, nvlink, nvlink / 10),
    }


def _training_flat(rng: np.random.Generator, n: int) -> Shape:
    """A hard negative: well-tuned large-model training, pinned at 100 %, next to no PCIe traffic."""
    return {
        "util": _steady(n, 1.0),
        "tensor": _noise(rng, n, rng.uniform(0.35, 0.6), 0.01),
        "dram": _noise(rng, n, 0.4, 0.01),
        "memory": _steady(n, rng.uniform(0.8, 0.95)),
        "pcie": _noise(rng, n, 3e5, 1e5),
        "nvlink": _noise(rng, n, rng.choice([0.0, 2e10]), 1e6),
    }


def _training_fp32(rng: np.random.Generator, n: int) -> Shape:
    """A hard negative: single-precision training without tensor cores, fed over PCIe."""
    return {
        "util": np.clip(rng.normal(rng.uniform(75, 97), 4, n), 0, 100) / 100,
        "tensor": _noise(rng, n, 0.0, 0.002),
        "dram": _noise(rng, n, 0.3, 0.03),
        "memory": np.clip(rng.uniform(0.2, 0.7) + rng.normal(0, 0.001, n), 0, 1),
        "pcie": _noise(rng, n, rng.uniform(1.5e7, 2e8), 5e6),
        "nvlink": _steady(n, 0.0),
    }


def _inference(rng: np.random.Generator, n: int) -> Shape:
    """Requests that come and go: a slow wave, bursts, silences; weights resident all the time."""
    wave = 0.25 + 0.2 * np.sin(np.arange(n) / rng.uniform(40, 120) + rng.uniform(0, 6))
    load = np.clip(wave * rng.gamma(2.0, 0.5, n), 0, 1) * (rng.random(n) > 0.1)
    return {
        "util": load,
        "tensor": load * rng.uniform(0.05, 0.3),
        "dram": load * rng.uniform(0.3, 0.7),
        "memory": np.clip(rng.uniform(0.3, 0.9) + load * 0.02, 0, 1),
        "pcie": load * rng.uniform(5e6, 8e7),
        "nvlink": _steady(n, 0.0),
    }


def _idle_hold(rng: np.random.Generator, n: int) -> Shape:
    """Memory held, nothing running."""
    return {name: _steady(n, 0.0) for name in ("util", "tensor", "dram", "nvlink")} | {
        "memory": _steady(n, rng.uniform(0.1, 0.9)),
        "pcie": _noise(rng, n, 1e5, 5e4),
    }


def _free(rng: np.random.Generator, n: int) -> Shape:
    """Nobody there."""
    return _idle_hold(rng, n) | {"memory": _steady(n, 0.005)}


def _simulation(rng: np.random.Generator, n: int) -> Shape:
    """The hardest negative, a miner's double: a flat simulation, no tensor cores, no traffic."""
    return {
        "util": np.clip(rng.normal(98, 0.5, n), 0, 100) / 100,
        "tensor": _steady(n, 0.0),
        "dram": _noise(rng, n, 0.5, 0.01),
        "memory": _steady(n, rng.uniform(0.05, 0.5)),
        "pcie": _noise(rng, n, 3e5, 1e5),
        "nvlink": _steady(n, 0.0),
    }


def _hashing(rng: np.random.Generator, util: npt.NDArray[np.float64]) -> Shape:
    """Integer hashing at ``util``: memory-hard or compute-bound, no tensor cores, next to no traffic."""
    n = len(util)
    return {
        "util": np.clip(util, 0, 1),
        "tensor": _noise(rng, n, 0.0, 0.001),
        "dram": util * (0.85 if rng.random() < 0.5 else 0.04),
        "memory": _steady(n, rng.uniform(0.005, 0.09)) + 0.002,
        "pcie": _noise(rng, n, 2e5, 1e5),
        "nvlink": _steady(n, 0.0),
    }


def _mining_full(rng: np.random.Generator, n: int) -> Shape:
    return _hashing(rng, rng.normal(rng.uniform(0.955, 0.995), 0.004, n))


def _mining_capped(rng: np.random.Generator, n: int) -> Shape:
    return _hashing(rng, rng.normal(rng.uniform(0.40, 0.70), 0.006, n))


def _mining_ramped(rng: np.random.Generator, n: int) -> Shape:
    """Creeps up over a third of the recording to stay under a step detector, then holds."""
    top = rng.uniform(0.5, 0.9)
    climb = np.clip(np.linspace(0.1, 0.1 + 3 * (top - 0.1), n), 0.1, top)
    return _hashing(rng, climb + rng.normal(0, 0.005, n))


def _mining_duty(rng: np.random.Generator, n: int) -> Shape:
    """Runs and rests in turn, so that no two samples look alike."""
    return _hashing(rng, np.where(rng.random(n) < rng.uniform(0.45, 0.75), 0.98, rng.uniform(0.0, 0.3, n)))


LOADS: Final[Mapping[str, Callable[[np.random.Generator, int], Shape]]] = {
    "training": _training,
    "training-flat": _training_flat,
    "training-fp32": _training_fp32,
    "inference": _inference,
    "idle-hold": _idle_hold,
    "free": _free,
    "simulation": _simulation,
    "mining-full": _mining_full,
    "mining-capped": _mining_capped,
    "mining-ramped": _mining_ramped,
    "mining-duty": _mining_duty,
}


@dataclass(frozen=True, slots=True)
class Load:
    """One device's load. From ``onset`` (sample number) ``after`` replaces ``kind``, if given.

    ``faked_util``: what a hostile driver library reports as utilisation instead of the truth.
    """

    kind: str
    node: str = "syn-node"
    index: int = 0
    after: str | None = None
    onset: int = 0
    faked_util: float | None = None
    process: tuple[int, str] | None = None
    model: Model = Model()

    @property
    def device(self) -> Device:
        """The synthetic device that carries the load."""
        return Device(self.node, f"SYN-{self.node}-{self.index}", self.index, self.model.name, synthetic=True)


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """``samples`` samples of every load, ``step_ns`` apart, jittered by up to 2 % of a step."""

    loads: tuple[Load, ...]
    samples: int
    seed: int
    start_ns: int = 1_800_000_000 * SECOND
    step_ns: int = 15 * SECOND
    name: str = "synthetic"

    def read(self) -> Frame:
        """All samples as one frame, time after time."""
        n, parts = self.samples, []
        grid = self.start_ns + self.step_ns * np.arange(n, dtype=np.int64)
        processes: list[ProcessRow] = []
        for number, load in enumerate(self.loads):
            rng = np.random.default_rng([self.seed, number])
            ts = grid + rng.integers(0, self.step_ns // 50, n)
            parts.append((ts, _readings(rng, load, ts)))
            if load.process is not None:
                pid, name = load.process
                held = parts[-1][1]["memory_used_bytes"].astype(np.int64).tolist()
                processes += [
                    (t, number, pid, m, float("nan"), name) for t, m in zip(ts.tolist(), held, strict=True)
                ]
        order = np.argsort(np.concatenate([ts for ts, _ in parts]), kind="stable")
        return Frame(
            devices=tuple(load.device for load in self.loads),
            ts_ns=np.concatenate([ts for ts, _ in parts])[order],
            device=np.repeat(np.arange(len(parts), dtype=np.int32), n)[order],
            values={m: np.concatenate([v[m] for _, v in parts])[order] for m in parts[0][1]},
            processes=Processes.of(processes),
        )

    def frames(self) -> Iterator[Frame]:
        """One frame per time step."""
        yield from by_step(self.read(), self.step_ns)


def _readings(
    rng: np.random.Generator, load: Load, ts: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.floating]]:
    n, model = len(ts), load.model
    shape = _shape(rng, load.kind, n)
    if load.after is not None:
        later = _shape(rng, load.after, n)
        for name, values in shape.items():
            values[load.onset :] = later[name][: n - load.onset] if load.onset < n else []
    busy = np.clip(shape["util"] * (0.35 + 0.35 * shape["dram"] + 0.8 * shape["tensor"]), 0, 1)
    busy = np.where(
        (shape["tensor"] < 0.02) & (shape["util"] > 0), np.maximum(busy, shape["util"] * 0.6), busy
    )
    power = model.idle_w + (model.limit_w - model.idle_w) * busy + rng.normal(0, 3, n)
    steps = np.diff(ts, prepend=ts[:1]) / SECOND
    heat = np.empty(n)
    warm = 32 + 0.065 * power[0]
    for i in range(n):  # first-order lag, 60 s time constant
        warm += (32 + 0.065 * power[i] - warm) * (1 - np.exp(-max(steps[i], 1.0) / 60))
        heat[i] = warm
    reported = shape["util"] * 100 if load.faked_util is None else np.full(n, load.faked_util)
    gauges = {
        "util_percent": np.round(reported),
        "memory_used_bytes": shape["memory"] * model.memory_bytes,
        "power_w": power,
        "power_limit_w": np.full(n, model.limit_w),
        "sm_clock_mhz": np.where(shape["util"] > 0.02, model.clock_mhz * 0.93, model.clock_mhz * 0.17),
        "temperature_c": np.round(heat),
        "tensor_active": shape["tensor"],
        "dram_active": shape["dram"],
        "pcie_bytes_per_s": shape["pcie"],
        "nvlink_bytes_per_s": shape["nvlink"],
    }
    readings: dict[str, npt.NDArray[np.floating]] = {k: v.astype(np.float32) for k, v in gauges.items()}
    readings["energy_j"] = 1e6 + np.cumsum(power * steps)
    return readings


def _shape(rng: np.random.Generator, kind: str, n: int) -> Shape:
    if kind not in LOADS:
        raise UserError(f"synthetic load {kind!r} does not exist; choose one of {', '.join(sorted(LOADS))}")
    return LOADS[kind](rng, n)
