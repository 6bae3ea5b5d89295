"""False incidents per GPU-day, by simulation: honest loads, all detectors, merging and hysteresis as shipped.

The fleet is synthetic and says so: jobs of one, two or four GPUs that train (three ways), serve, hold idle or
leave a device free, drawn anew for each block of hours, with seeds that were not used for any threshold.
Counted is what the incident book would open: one per tenant, job and kind, after two scrapes in a row. Idle
hoarding (USAG002) is left out of the count: it is a policy about hours, not a mistake about a load. What this
cannot show is how real fleets differ from our models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from math import exp, lgamma, log

import numpy as np
import numpy.typing as npt

from compute_guard.incidents.observations import Hysteresis, merge
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.calibration import Calibration
from compute_guard.usage.detectors import View, load_detectors
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.roster import roster
from compute_guard.usage.samples import Device, Frame
from compute_guard.usage.sources.synthetic import LOADS, Model
from compute_guard.usage.typicality import Typicality
from measure import Measure

STEP_S = 60  # detectors count samples: four days of it hold as many as one day at 15 s
STEP = STEP_S * 1_000_000_000
CELLS_PER_DAY = 86_400 // STEP_S
HONEST = ("training", "training-flat", "training-fp32", "inference", "idle-hold", "free")
SHARES = (0.4, 0.1, 0.1, 0.25, 0.1, 0.05)
KINDS = {"inference": "service"}
Values = dict[str, npt.NDArray[np.float32]]


def fleet(jobs: int, cells: int, seed: int) -> tuple[tuple[Device, ...], LeaseBook, Values]:
    """Devices, leases and all readings (cells, devices) of honest jobs."""
    rng, model = np.random.default_rng(seed), Model()
    devices: list[Device] = []
    leases: list[Lease] = []
    shapes: list[dict[str, npt.NDArray[np.float64]]] = []
    for job in range(jobs):
        load = str(rng.choice(HONEST, p=SHARES))
        for _ in range(int(rng.choice([1, 2, 4], p=[0.6, 0.2, 0.2]))):
            index = len(devices)
            device = Device(f"syn-{index // 8}", f"SYN-{index}", index % 8, model.name, synthetic=True)
            devices.append(device)
            shapes.append(LOADS[load](rng, cells))
            if load != "free":
                leases.append(Lease(device.key, f"t{job % 7}", f"job-{job}", kind=KINDS.get(load, "batch")))
    shape = {name: np.stack([s[name] for s in shapes], axis=1) for name in shapes[0]}
    return tuple(devices), LeaseBook.of(leases), readings(rng, shape, model)


def readings(rng: np.random.Generator, shape: dict[str, npt.NDArray[np.float64]], model: Model) -> Values:
    """The synthetic source's physics for all devices at once (see its ``_readings``)."""
    util, tensor = shape["util"], shape["tensor"]
    busy = np.clip(util * (0.35 + 0.35 * shape["dram"] + 0.8 * tensor), 0, 1)
    busy = np.where((tensor < 0.02) & (util > 0), np.maximum(busy, util * 0.6), busy)
    power = model.idle_w + (model.limit_w - model.idle_w) * busy + rng.normal(0, 3, busy.shape)
    heat, keep = np.empty_like(power), np.exp(-STEP_S / 60)
    warm = 32 + 0.065 * power[0]
    for t in range(len(power)):
        warm = warm * keep + (32 + 0.065 * power[t]) * (1 - keep)
        heat[t] = warm
    found = {
        "util_percent": np.round(util * 100),
        "memory_used_bytes": shape["memory"] * model.memory_bytes,
        "power_w": power,
        "power_limit_w": np.full_like(power, model.limit_w),
        "sm_clock_mhz": np.where(util > 0.02, model.clock_mhz * 0.93, model.clock_mhz * 0.17),
        "temperature_c": np.round(heat),
        "tensor_active": tensor,
        "dram_active": shape["dram"],
        "pcie_bytes_per_s": shape["pcie"],
        "nvlink_bytes_per_s": shape["nvlink"],
    }
    values = {name: array.astype(np.float32) for name, array in found.items()}
    values["energy_j"] = 1e6 + np.cumsum(power * STEP_S, axis=0)  # type: ignore[assignment]
    return values


def watch(
    judge: Typicality, jobs: int, cells: int, seed: int, *, count: bool
) -> tuple[dict[str, int], float]:
    """Incidents opened by kind, and GPU-days watched."""
    devices, book, values = fleet(jobs, cells, seed)
    rolling, hysteresis, detectors = Rolling(STEP, 48), Hysteresis(), load_detectors()
    where, opened = np.arange(len(devices), dtype=np.int32), dict[str, int]()
    raised_before: set[tuple[str, str, str]] = set()
    held = roster(book, {device.key: number for number, device in enumerate(devices)}, len(devices))
    for t in range(cells):
        at = t * STEP + 1
        frame = Frame(devices, np.full(len(devices), at), where, {m: v[t] for m, v in values.items()})
        rolling.push(frame, now_ns=at)
        window = rolling.snapshot()
        view = View(window, book, typical=judge.judge(window, held), roster=held)
        signals = [s for d in detectors for s in d.detect(view) if s.kind != "idle_hoard"] if count else []
        judge.learn(window, {s.device for s in signals})
        raised, cleared = hysteresis.step(merge(signals, book, at))
        raised_before -= set(cleared)
        for observation in raised:
            if observation.key not in raised_before:
                raised_before.add(observation.key)
                opened[observation.kind] = opened.get(observation.kind, 0) + 1
    return opened, len(devices) * cells / CELLS_PER_DAY


def block(seed: int, jobs: int, cells: int) -> tuple[dict[str, int], float, float]:
    """One fleet: calibrated in shadow on another fleet for 700 samples, then watched."""
    begun = time.process_time()
    judge = Typicality(Calibration(float(STEP_S)), accept_synthetic=True)
    watch(judge, jobs // 4, 700, 600_000 + seed, count=False)
    judge.calibration._own[:] = -np.inf  # the fleet that is watched has another past
    judge.calibration._age[:] = 0
    judge.calibration._pending.clear()
    opened, days = watch(judge, jobs, cells, 200_000 + seed, count=True)
    return opened, days, time.process_time() - begun


def upper(events: int, exposure: float, confidence: float = 0.95) -> float:
    """The exact one-sided upper bound of a Poisson rate (Garwood 1936), by bisection."""
    low, high = 0.0, events + 10.0 * (events + 1) ** 0.5 + 10.0

    def at_most(mean: float) -> float:
        return sum(exp(-mean + k * log(mean) - lgamma(k + 1)) for k in range(events + 1)) if mean else 1.0

    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > 1 - confidence else (low, middle)
    return high / exposure


def measures(days: float = 16_000.0, *, jobs: int = 4_000, cells: int = 1_440) -> Iterator[Measure]:
    """Blocks of a day until ``days`` GPU-days were watched."""
    results: list[tuple[dict[str, int], float, float]] = []
    number = 0
    with ProcessPoolExecutor(max_workers=2) as pool:  # blocks have nothing to do with one another
        while (watched := sum(days_of for _, days_of, _ in results)) < days:
            seeds = range(number, number + 2 if watched + jobs < days else number + 1)
            results += pool.map(block, seeds, [jobs] * len(seeds), [cells] * len(seeds))
            number += len(seeds)
            found = [opened for opened, _, _ in results if opened]
            print(f"  {sum(r[1] for r in results):,.0f} GPU-days, {found}", flush=True)
    yield from summary(results)


def summary(results: list[tuple[dict[str, int], float, float]]) -> Iterator[Measure]:
    """What the blocks add up to."""
    total: dict[str, int] = {}
    for opened, _, _ in results:
        for kind, number in opened.items():
            total[kind] = total.get(kind, 0) + number
    watched, false = sum(r[1] for r in results), sum(total.values())
    yield Measure("false incidents, simulated honest fleet", false, f"in {watched:,.0f} GPU-days")
    bound = upper(false, watched)
    yield Measure(
        "same: upper 95 % bound of the rate", bound * 1e4, "1e-4/GPU-day", target="<= 2", met=bound <= 2e-4
    )
    for kind, number in sorted(total.items()):
        yield Measure(f"same, {kind}", number, "incidents")
    rate = watched * CELLS_PER_DAY / sum(r[2] for r in results)
    yield Measure("simulated and judged by every detector", rate, "device-samples/CPU-s")
