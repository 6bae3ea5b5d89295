"""What verified reading costs on Ray Data: our read beside plain ``ray.data.read_parquet``, on the same file.

The file is generated: zstd Parquet, 13 columns. Both reads run in turn on one local Ray cluster of two CPUs;
each hands every row, as Arrow blocks, to the driver. Charged are the CPU-seconds of the whole cluster during
the read: the driver and every process below it (raylet, GCS, workers), dead ones included. The first read of
each kind is printed apart: it starts workers and imports. The local reader is measured
beside pyarrow likewise.

Usage: python benchmarks/verified_read.py [--rows N] [--repeat N] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import Measure, in_child, machine, median, report
from tables import parquet

OUT = Path(__file__).parent / "out"
TARGET = 1.25


def tree_cpu_seconds() -> float:
    """User and system seconds of this process and of everything below it, reaped children included."""
    import psutil

    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # its parent has its time now
        total += times.user + times.system + times.children_user + times.children_system
    return total


def on_ray(path: Path, home: Path, repeat: int) -> dict[str, Any]:
    """CPU-seconds of plain and of verified reads on one cluster."""
    os.environ |= {"TRAINGUARD_HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1"}
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "150")  # a busy machine is no reason to give up
    import ray
    import ray.data

    from dataset_guard import ray_data

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 30)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        kinds: dict[str, Callable[[], Any]] = {
            "plain": lambda: ray.data.read_parquet(str(path)),
            "verified": lambda: ray_data.read("bench@1"),
        }
        spent: dict[str, list[float]] = {kind: [] for kind in kinds}
        rows = {}
        for _ in range(repeat + 1):
            for kind, opened in kinds.items():
                before = tree_cpu_seconds()
                batches = opened().iter_batches(batch_size=None, batch_format="pyarrow")
                rows[kind] = sum(batch.num_rows for batch in batches)
                spent[kind].append(tree_cpu_seconds() - before)
        return {"spent": spent, "rows": rows}
    finally:
        ray.shutdown()


def locally(path: Path, home: Path, kind: str) -> dict[str, Any]:
    """One read in this process, without Ray."""
    os.environ["TRAINGUARD_HOME"] = str(home)
    before = tree_cpu_seconds()
    if kind == "verified":
        import dataset_guard

        rows = sum(batch.num_rows for batch in dataset_guard.read("bench@1").batches())
    else:
        import pyarrow.parquet as pq

        rows = sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches(batch_size=65_536))
    return {"spent": tree_cpu_seconds() - before, "rows": rows}


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    path = parquet(OUT / f"table-{options.rows}-zstd.parquet", options.rows)
    print(f"{options.rows:,} rows x 13, {path.stat().st_size / 1e6:.0f} MB, {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        in_child(lambda: _register(path, home))
        cluster = in_child(lambda: on_ray(path, home, options.repeat)).answer
        local = {
            kind: [in_child(lambda kind=kind: locally(path, home, kind)).answer for _ in range(3)]
            for kind in ("plain", "verified")
        }
    found = {*cluster["rows"].values(), *(r["rows"] for runs in local.values() for r in runs)}
    if found != {options.rows}:
        raise SystemExit(f"a read lost rows: {found}")
    ours, theirs = (median(cluster["spent"][kind][1:]) for kind in ("verified", "plain"))
    first = {kind: cluster["spent"][kind][0] for kind in cluster["spent"]}
    here = {kind: median([r["spent"] for r in runs]) for kind, runs in local.items()}
    plain = "ray.data.read_parquet"
    measures = [
        Measure("verified Ray Data read, whole cluster", ours, "CPU-s", plain, theirs, ours / theirs,
                f"<= {TARGET:g}x", ours / theirs <= TARGET),
        Measure("the first read, imports included", first["verified"], "CPU-s", plain, first["plain"]),
        Measure("verified local read, a fresh process", here["verified"], "CPU-s", "pyarrow iter_batches",
                here["plain"], here["verified"] / here["plain"]),
    ]  # fmt: skip
    report(measures, options.json)


def _register(path: Path, home: Path) -> str:
    os.environ["TRAINGUARD_HOME"] = str(home)
    import dataset_guard

    return dataset_guard.register(path, name="bench", label="label", split="train", checks=[]).verdict.value


if __name__ == "__main__":
    main()
