"""Abnormal GPU use: what is found, what is not, and how fast. Thresholds were frozen on seeds below 1000.

Real background: gpu_series/gentd26_dev.parquet under TRAINGUARD_BENCH_DATA (63 serving pods, utilisation and
memory only, so only the level shape of USAG001 applies). Everything else is our own synthetic telemetry:
a floor, not proof. Peer of the reader: prometheus_client, same text, same run.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from compute_guard.usage.attribution import Lease, LeaseBook, Use, attribute
from compute_guard.usage.detectors import View, load_detectors
from compute_guard.usage.detectors.mining_signature import MiningSignature
from compute_guard.usage.kernel import Series
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.samples import Device, Frame
from compute_guard.usage.sources.prometheus import NAMES, PrometheusSource
from compute_guard.usage.sources.replay import by_step
from compute_guard.usage.sources.synthetic import SECOND, Load, SyntheticSource
from measure import Measure, report, spent

STEP = 15 * SECOND
HELD_OUT = 1000
HONEST = ("training", "training-flat", "training-fp32", "inference", "free")


def first_seen(loads: tuple[Load, ...], samples: int, seed: int) -> dict[tuple[str, int], int]:
    """First sample at which (rule, device) was reported."""
    rolling, detectors, found = Rolling(STEP, 48), load_detectors(), {}
    for number, frame in enumerate(SyntheticSource(loads, samples, seed).frames()):
        rolling.push(frame)
        view = View(rolling.snapshot())
        for detector in detectors:
            for signal in detector.detect(view):
                found.setdefault((signal.rule_id, int(signal.device.rsplit("-", 1)[1])), number)
    return found


def synthetic(devices: int) -> Iterator[Measure]:
    """Recall and delay on held-out seeds, false alarms on honest loads."""
    onset = 60
    for kind, target in (
        ("mining-full", 6),
        ("mining-capped", 6),
        ("mining-ramped", 41),
        ("mining-duty", 41),
    ):
        delays: list[int] = []
        total = 0
        for number, before in enumerate(("idle-hold", "inference", "training", "free")):
            loads = tuple(Load(before, index=i, after=kind, onset=onset) for i in range(devices))
            seen = first_seen(loads, 120, HELD_OUT + number)
            delays += [at - onset + 1 for (rule, _), at in seen.items() if rule == "USAG001" and at >= onset]
            total += devices
        recall = len(delays) / total
        yield Measure(
            f"{kind}: recall on held-out seeds", recall, "share", target=">= 0.94", met=recall >= 0.94
        )
        worst = float(max(delays, default=np.inf))
        yield Measure(f"{kind}: median delay", float(np.median(delays)), "samples")
        yield Measure(f"{kind}: longest delay", worst, "samples", target=f"<= {target}", met=worst <= target)
    false, days = 0, 0.0
    for number, kind in enumerate(HONEST):
        seen = first_seen(tuple(Load(kind, index=i) for i in range(devices)), 400, HELD_OUT + 50 + number)
        false += len(seen)
        days += devices * 400 * 15 / 86_400
    yield Measure(
        "false signals on honest synthetic loads", false / days, "per GPU-day", target="0", met=not false
    )
    yield Measure("honest synthetic background", days, "GPU-days")
    yield Measure(
        "upper 95 % bound of that rate (rule of three)",
        3 / days,
        "per GPU-day",
        target="<= 2e-4",
        met=3 / days <= 2e-4,
    )
    simulation = first_seen(tuple(Load("simulation", index=i) for i in range(devices)), 60, HELD_OUT + 90)
    yield Measure(
        "flat FP32 simulation taken for a miner by telemetry alone (a warning)",
        len(simulation) / devices,
        "share",
    )
    faked = tuple(Load("mining-full", index=i, faked_util=0.0) for i in range(devices))
    seen = first_seen(faked, 20, HELD_OUT + 91)
    recall = sum(1 for rule, _ in seen if rule == "USAG004") / devices
    yield Measure("faked utilisation within 5 minutes", recall, "share", target=">= 0.99", met=recall >= 0.99)


def real_background(folder: Path) -> Iterator[Measure]:
    """The level shape on real pods, alone and with a capped load put on top of quiet ones."""
    path = folder / "gpu_series" / "gentd26_dev.parquet"
    if not path.is_file():
        print(f"skipped: {path} is not there")
        return
    table = pq.read_table(path).to_pandas()
    step = 57 * SECOND
    names = sorted(table["pod"].astype(str).unique())
    index = {name: i for i, name in enumerate(names)}
    frame = Frame(
        devices=tuple(Device("gentd26", name, i) for i, name in enumerate(names)),
        ts_ns=(table["t_seconds"].to_numpy() * 1e9).astype(np.int64),
        device=table["pod"].astype(str).map(index).to_numpy().astype(np.int32),
        values={
            "util_percent": table["gpu_utilization_percent"].to_numpy(dtype=np.float32),
            "memory_used_bytes": (table["gpu_memory_used"].to_numpy() * 2**30).astype(np.float32),
        },
    )
    days = len(frame) * 57 / 86_400
    quiet = reported(frame, step)
    yield Measure(
        "real serving pods reported by USAG001",
        len(quiet),
        f"pods of {len(names)} in {days:.1f} GPU-days",
    )
    rng = np.random.default_rng(HELD_OUT)
    util, memory = (frame.values[name].copy() for name in ("util_percent", "memory_used_bytes"))
    begin = np.quantile(frame.ts_ns, 0.5)
    for device in range(len(names)):
        rows = np.flatnonzero((frame.device == device) & (frame.ts_ns >= begin))
        util[rows] = np.clip(rng.normal(rng.uniform(40, 70), 0.6, len(rows)), 0, 100)
        memory[rows] = rng.uniform(2, 8) * 2**30  # the miner takes the pod's place, memory and all
    changed = {"util_percent": util, "memory_used_bytes": memory}
    injected = Frame(frame.devices, frame.ts_ns, frame.device, changed)
    found = reported(injected, step)
    clean = [d for d in range(len(names)) if d not in quiet]
    recall = sum(1 for d in clean if d in found) / max(len(clean), 1)
    delays = [found[d] - begin for d in clean if d in found]
    yield Measure("capped mining in the place of real pods: recall", recall, "share")
    yield Measure(
        "same: median delay", float(np.median(delays)) / step if delays else np.inf, "samples of 57 s"
    )


def reported(frame: Frame, step: int) -> dict[int, int]:
    """Device to the time of its first USAG001 signal."""
    rolling, detector, found = Rolling(step, 48), MiningSignature(), {}
    for part in by_step(frame, step):
        rolling.push(part, now_ns=int(part.ts_ns.max()))
        window = rolling.snapshot()
        for signal in detector.detect(View(window)):
            found.setdefault(
                int(next(d.index for d in window.devices if d.key == signal.device)), window.end_ns
            )
    return found


def scrape(devices: int) -> Iterator[Measure]:
    """From exposition text to signals, samples per CPU-second."""
    from prometheus_client.parser import text_string_to_metric_families

    metrics = [n for n in NAMES if n.startswith("DCGM") and "MGMT" not in n][:8]

    def text(tick: int) -> bytes:
        lines = []
        for name in metrics:
            lines.append(f"# TYPE {name} gauge")
            lines += [
                f'{name}{{gpu="{g % 8}",UUID="GPU-{g:08x}-0000-0000-0000-000000000000",modelName="H100",'
                f'Hostname="node-{g // 8}"}} {(g * 7 + tick) % 90}.25'
                for g in range(devices)
            ]
        return "\n".join(lines).encode() + b"\n"

    source, rolling, detectors = PrometheusSource("http://bench"), Rolling(STEP, 48), load_detectors()
    scrapes = [text(tick) for tick in range(6)]
    for tick, body in enumerate(scrapes[:3]):
        rolling.push(source.parse(body, tick * STEP), now_ns=tick * STEP)
    with spent() as parsing:
        for tick, body in enumerate(scrapes[3:], start=3):
            source.parse(body, tick * STEP)
    with spent() as whole:
        for tick, body in enumerate(scrapes[3:], start=3):
            rolling.push(source.parse(body, tick * STEP), now_ns=tick * STEP)
            view = View(rolling.snapshot())
            for detector in detectors:
                list(detector.detect(view))
    part = "\n".join(scrapes[0].decode().splitlines()[: devices * 2])
    with spent() as theirs:
        count = sum(len(family.samples) for family in text_string_to_metric_families(part))
    samples = 3 * devices * len(metrics)
    peer = count / theirs.cpu_seconds
    for name, took, target in (("reading a scrape", parsing, 0.0), ("scrape -> score", whole, 500_000.0)):
        rate = samples / took.cpu_seconds
        yield Measure(
            name, rate, "samples/s/core", "prometheus_client, parse alone", peer, rate / peer,
            f">= {target:.0f}" if target else "", rate >= target if target else None,
        )  # fmt: skip


def kernel() -> Iterator[Measure]:
    """Points per CPU-second of the running statistics."""
    series, rng = Series(floor=1.0, size=800_000), np.random.default_rng(0)
    values = rng.normal(50, 1, (2, 800_000)).astype(np.float32)
    for _ in range(3):
        series.update(values[0])
    with spent() as took:
        for tick in range(30):
            series.update(values[tick % 2])
    rate = 30 * 800_000 / took.cpu_seconds
    yield Measure("detector kernel", rate, "points/s/core", target=">= 1e8", met=rate >= 1e8)


def conservation() -> Iterator[Measure]:
    """Attributed against elapsed nanoseconds on shared devices with random leases and processes."""
    rng = np.random.default_rng(HELD_OUT)
    elapsed = attributed = 0
    for _ in range(20_000):
        n = int(rng.integers(0, 4))
        leases = [
            Lease("d", f"t{i}", f"j{i}", int(rng.integers(0, 10**9)), None, int(rng.choice([250, 500, 1000])),
                  pids=frozenset({i} if rng.random() < 0.7 else ()))
            for i in range(n)
        ]  # fmt: skip
        uses = [
            Use(int(p), "x", int(rng.integers(0, 100)))
            for p in rng.choice(6, int(rng.integers(0, 4)), replace=False)
        ]
        length = int(rng.integers(1, 10**10))
        attributed += sum(share.ns for share in attribute("d", 0, length, LeaseBook.of(leases), uses))
        elapsed += length
    yield Measure(
        "time on shared devices attributed",
        attributed / elapsed,
        "share",
        target=">= 0.999",
        met=attributed == elapsed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--devices", type=int, default=40, help="synthetic devices per kind")
    options = parser.parse_args()
    folder = Path(os.environ.get("TRAINGUARD_BENCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    begun = time.perf_counter()
    measures = [
        *synthetic(options.devices),
        *real_background(folder),
        *scrape(20_000),
        *kernel(),
        *conservation(),
    ]
    report(measures, options.json)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
