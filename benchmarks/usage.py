"""Abnormal GPU use: what is found, what is not, and how fast. Thresholds were frozen on seeds below 1000.

Parts: ``synthetic`` and ``conservation`` (our own telemetry: a floor, not proof), ``scrape`` and ``kernel``
(speed, beside prometheus_client, river and rrcf), ``events`` (real background, beside four peers), ``nab``,
``false`` (false incidents by simulation) and, asked for, ``live`` (drills on a real Ray cluster).
Peers beyond the project's own environment: ``pip install --no-deps river rrcf`` in the versions pinned in
constraints-peers.txt, with ``setuptools<81``, whose ``pkg_resources`` rrcf 0.4.4 still imports.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from compute_guard.monitoring.monitor import Monitor
from compute_guard.usage.attribution import Lease, LeaseBook, Use, attribute
from compute_guard.usage.detectors import View, load_detectors
from compute_guard.usage.kernel import Series
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.sources.prometheus import NAMES, PrometheusSource
from compute_guard.usage.sources.synthetic import SECOND, Load, SyntheticSource
from guard_core.testing import temporary_home
from measure import Measure, median, report, spent
from usage_parts import events, false_incidents, live, nab

STEP = 15 * SECOND
HELD_OUT = 1000


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


def exposition(devices: int, tick: int, metrics: list[str]) -> bytes:
    """A scrape as dcgm-exporter words it; GPU 17 holds a capped load, the others vary."""
    lines = []
    for name in metrics:
        lines.append(f"# TYPE {name} gauge")
        lines += [
            f'{name}{{gpu="{g % 8}",UUID="GPU-{g:08x}-0000-0000-0000-000000000000",modelName="H100-80GB",'
            f'Hostname="node-{g // 8}"}} {57 if g == 17 else (g * 7 + tick * 13) % 90}.25'
            for g in range(devices)
        ]
    return "\n".join(lines).encode() + b"\n"


def scrape(devices: int) -> Iterator[Measure]:
    """From exposition text to incidents in the store, by the shipped monitor; samples per CPU-second."""
    from prometheus_client.parser import text_string_to_metric_families

    metrics = [n for n in NAMES if n.startswith("DCGM") and "MGMT" not in n][:8]
    source = PrometheusSource("http://bench")
    leases = [
        Lease(f"node-{g // 8}/GPU-{g:08x}-0000-0000-0000-000000000000", f"t{g % 50}", f"job-{g // 4}")
        for g in range(devices)
    ]
    begin, warm, ticks = 1_800_000_000 * SECOND, 50, 3
    with temporary_home() as home:
        monitor = Monitor(home, LeaseBook.of(leases), respond=False)
        monitor._typicality.calibration.shadow_hours = (
            0.1  # so that judging by tails is part of what is measured
        )
        body = [exposition(devices, tick, metrics) for tick in range(2)]
        for tick in range(warm):
            at = begin + tick * STEP
            frame = source.parse(body[tick % 2], at)
            if tick < warm - 3:
                monitor._rolling.push(frame, now_ns=at)  # only the window has to be full
            else:
                monitor.take(frame, at)
        with spent() as parsing:
            for tick in range(ticks):
                source.parse(body[tick % 2], begin)
        with spent() as whole:
            for tick in range(warm, warm + ticks):
                at = begin + tick * STEP
                monitor.take(source.parse(body[tick % 2], at), at)
        with spent() as renewed:  # jobs have come and gone: whose device it is has to be worked out anew
            at = begin + (warm + ticks) * STEP
            monitor.attribution = LeaseBook.of(leases[1:])
            monitor.take(source.parse(body[0], at), at)
        with spent() as storing:
            monitor.flush()
    part = "\n".join(body[0].decode().splitlines()[:40_000])
    with spent() as theirs:
        count = sum(len(family.samples) for family in text_string_to_metric_families(part))
    samples, peer = ticks * devices * len(metrics), count / theirs.cpu_seconds
    for name, took, target in (
        ("reading a scrape", parsing, 0.0),
        ("scrape -> score -> incident", whole, 5e5),
    ):
        rate = samples / took.cpu_seconds
        yield Measure(
            name, rate, "samples/s/core", "prometheus_client, parse alone", peer, rate / peer,
            f">= {target:.0f}" if target else "", rate >= target if target else None,
        )  # fmt: skip
    seconds = whole.cpu_seconds / ticks
    goal = devices == 100_000
    yield Measure(
        f"one scrape of {devices:,} GPUs x {len(metrics)} metrics, all of it",
        seconds,
        "CPU-s",
        target="<= 2" if goal else "",
        met=seconds <= 2 if goal else None,
    )
    yield Measure("same, when leases have changed since the scrape before", renewed.cpu_seconds, "CPU-s")
    unsaved = 3 + ticks + 1
    yield Measure("beside it: history as Parquet, per scrape", storing.cpu_seconds / unsaved, "CPU-s")


def kernel() -> Iterator[Measure]:
    """Points per CPU-second of the running statistics, and of two streaming peers."""
    series, rng = Series(floor=1.0, size=800_000), np.random.default_rng(0)
    values = rng.normal(50, 1, (2, 800_000)).astype(np.float32)
    for _ in range(3):
        series.update(values[0])
    rates = []
    for _ in range(3):
        with spent() as took:
            for tick in range(20):
                series.update(values[tick % 2])
        rates.append(20 * 800_000 / took.cpu_seconds)
    rate = median(rates)
    for name, peer in (("river HalfSpaceTrees", trees), ("rrcf, 40 trees of 256", cut_forest)):
        theirs = peer(rng)
        yield Measure(
            "detector kernel", rate, "points/s/core", name, theirs, rate / theirs, ">= 1e8", rate >= 1e8
        )


def trees(rng: np.random.Generator) -> float:
    from river.anomaly import HalfSpaceTrees

    forest, points = HalfSpaceTrees(seed=1), rng.random(4_000).tolist()
    with spent() as took:
        for value in points:
            forest.score_one({"x": value})
            forest.learn_one({"x": value})
    return len(points) / took.cpu_seconds


def cut_forest(rng: np.random.Generator) -> float:
    import rrcf

    forest, points = [rrcf.RCTree() for _ in range(40)], rng.random((400, 4))
    with spent() as took:
        for number, point in enumerate(points):
            for tree in forest:
                if len(tree.leaves) > 256:
                    tree.forget_point(number - 256)
                tree.insert_point(point, index=number)
                tree.codisp(number)
    return len(points) / took.cpu_seconds


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
    parser.add_argument("--gpus", type=int, default=100_000, help="GPUs in the scrape")
    parser.add_argument("--days", type=float, default=16_000.0, help="simulated GPU-days (0: leave out)")
    parser.add_argument(
        "--drills", type=int, default=0, help="also run this many drills on a real Ray cluster"
    )
    parser.add_argument("--first-drill", type=int, default=0, help="seed of the first, to go on in pieces")
    parser.add_argument("--runs", type=int, default=0, help="also time this many miners there")
    parser.add_argument("--without", nargs="*", default=(), help="parts to leave out, by name")
    parser.add_argument("--only", nargs="*", default=(), help="parts to run and no other, by name")
    options = parser.parse_args()
    folder = Path(os.environ.get("TRAINGUARD_BENCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    begun = time.perf_counter()
    parts = {
        "synthetic": lambda: synthetic(options.devices),
        "scrape": lambda: scrape(options.gpus),
        "kernel": kernel,
        "conservation": conservation,
        "events": lambda: events.measures(folder),
        "nab": lambda: nab.measures(folder),
        "false": lambda: false_incidents.measures(options.days) if options.days else iter(()),
        "live": lambda: live.measures(
            range(options.first_drill, options.first_drill + options.drills), runs=options.runs
        ),
    }
    if not options.drills and not options.runs:
        parts.pop("live")
    measures = []
    for name, part in parts.items():
        if name not in options.without and (not options.only or name in options.only):
            print(f"{name} ...", flush=True)
            measures += part()
    report(measures, options.json)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
