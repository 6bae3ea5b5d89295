"""What a whole ``register()`` costs, stage by stage, beside DVC, Great Expectations and pandas.

The file is generated: 10 M rows x 13 columns, zstd Parquet. Each contestant runs in a process of its own and
is charged CPU-seconds (user + system, its children's too): what a shared machine sells. Peers:

* ``dvc add`` (MD5 of the bytes) in an environment of its own, pinned in ``constraints-peers.txt``;
* Great Expectations 1.24 on pandas with 27 plain expectations, on ``--peer-rows`` rows (it needs the whole
  frame in memory) and scaled to the file's rows; the scaling is printed;
* ``pandas.util.hash_pandas_object`` over the same rows, scaled likewise.

Usage: python benchmarks/register.py [--rows N] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dataset_guard.scanning.batch_memory import memory_for_batches
from measure import Measure, in_child, machine, median, report

with memory_for_batches():  # as whoever calls register() first loads it; the children have it from here
    from tables import parquet

OUT = Path(__file__).parent / "out"
HERE = Path(__file__).parent
TARGET_CPU_SECONDS = 30.0
TARGET_PEAK_BYTES = 2 * 2**30


def run_register(path: Path, home: Path) -> dict[str, Any]:
    """Register with all default checks; the report's own CPU seconds by stage."""
    os.environ["TRAINGUARD_HOME"] = str(home)
    import dataset_guard

    done = dataset_guard.register(path, name="bench", label="label", split="train")
    return {
        "seconds": dict(done.seconds),
        "verdict": done.verdict.value,
        "findings": done.summary,
        "skipped": {c["name"]: c["skipped"] for c in done.checks if c["skipped"]},
    }


def run_great_expectations(path: Path, rows: int) -> dict[str, Any]:
    """The minimal suite on pandas, as a data scientist would run it."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import pyarrow.parquet as pq

    batch = next(pq.ParquetFile(path).iter_batches(batch_size=rows))
    frame = batch.to_pandas()
    before = time.process_time()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    suite = context.suites.add(gx.ExpectationSuite(name="minimal"))
    for column in frame.columns:
        suite.add_expectation(gx.expectations.ExpectColumnToExist(column=column))
        suite.add_expectation(gx.expectations.ExpectColumnValuesToNotBeNull(column=column, mostly=0.5))
    suite.add_expectation(
        gx.expectations.ExpectColumnValuesToBeBetween(column="age", min_value=0, max_value=120)
    )
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("t")
    definition = asset.add_batch_definition_whole_dataframe("b")
    result = definition.get_batch({"dataframe": frame}).validate(suite, result_format="BOOLEAN_ONLY")
    return {"validate": time.process_time() - before, "success": bool(result.success)}


def run_pandas_hash(path: Path, rows: int) -> dict[str, Any]:
    """64-bit row hashes, not cryptographic: the usual way to fingerprint a frame."""
    import pandas as pd
    import pyarrow.parquet as pq

    frame = next(pq.ParquetFile(path).iter_batches(batch_size=rows)).to_pandas()
    before = time.process_time()
    value = int(pd.util.hash_pandas_object(frame, index=False).sum())
    return {"hash": time.process_time() - before, "value": str(value)}


def run_decode(path: Path) -> dict[str, Any]:
    """Reading the file and doing nothing, by the plain call: the floor that most readers pay."""
    import pyarrow.parquet as pq

    rows = sum(b.num_rows for b in pq.ParquetFile(path).iter_batches(batch_size=65_536))
    return {"rows": rows}


def run_fast_decode(path: Path) -> dict[str, Any]:
    """The cheapest decode we know: one row group at a time (pyarrow 25 keeps fewer of them decoded)."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    groups = range(file.num_row_groups)
    rows = sum(b.num_rows for g in groups for b in file.iter_batches(batch_size=65_536, row_groups=[g]))
    return {"rows": rows}


def dvc_command() -> Path:
    """``dvc`` from an environment of its own, made once from the pinned peers."""
    return peer("dvc")


def peer(command: str) -> Path:
    """A command of the pinned peers' environment (``python``, ``dvc``), which is made once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainguard"
    pins = HERE / "constraints-peers.txt"
    environment = cache / f"peers-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
    found = environment / "bin" / command
    ready = environment / ".ready"  # a half-made one is made again
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        pip = [
            str(environment / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--require-hashes",
        ]
        subprocess.run([*pip, "-r", str(pins)], check=True)
        ready.touch()
    return found


def run_dvc(path: Path, command: Path) -> dict[str, Any]:
    """``dvc add`` with a hard-linked cache, in a fresh repository."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder) / path.name
        target.hardlink_to(path)
        for words in (
            ["init", "--no-scm", "-q"],
            ["config", "cache.type", "hardlink"],
            ["add", "-q", target.name],
        ):
            subprocess.run([str(command), *words], cwd=folder, env=environment, check=True)
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--peer-rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--without-dvc", action="store_true")
    arguments = parser.parse_args()
    rows, peer_rows = arguments.rows, min(arguments.peer_rows, arguments.rows)
    path = parquet(OUT / f"generated-{rows}x13-zstd.parquet", rows)
    scale = rows / peer_rows
    print(f"machine: {machine()}")
    print(f"file: generated, {rows:,} rows x 13 columns, {path.stat().st_size / 1e9:.2f} GB zstd Parquet")
    print(
        f"peers that need the whole frame in memory ran on {peer_rows:,} rows and are scaled by {scale:g}\n"
    )

    ours, peaks, stages = [], [], []
    for number in range(arguments.repeat):
        with tempfile.TemporaryDirectory(dir=OUT) as folder:
            child = in_child(lambda folder=folder: run_register(path, Path(folder) / "home"))
        ours.append(child.cpu_seconds)
        peaks.append(float(child.peak_bytes))
        stages.append(child.answer["seconds"])
        print(f"register {number + 1}: {child.cpu_seconds:.1f} CPU-s, {child.wall_seconds:.1f} s wall, "
              f"verdict {child.answer['verdict']}, findings {child.answer['findings']}, "
              f"skipped {child.answer['skipped']}")  # fmt: skip
    decode = median([in_child(lambda: run_decode(path)).cpu_seconds for _ in range(arguments.repeat)])
    gx_seconds = median(
        [
            in_child(lambda: run_great_expectations(path, peer_rows)).answer["validate"]
            for _ in range(arguments.repeat)
        ]
    )
    hash_seconds = median(
        [in_child(lambda: run_pandas_hash(path, peer_rows)).answer["hash"] for _ in range(arguments.repeat)]
    )
    dvc_seconds = 0.0
    if not arguments.without_dvc:
        command = dvc_command()
        dvc_seconds = median(
            [in_child(lambda: run_dvc(path, command)).cpu_seconds for _ in range(arguments.repeat)]
        )
    peers = decode + gx_seconds * scale + hash_seconds * scale + dvc_seconds
    total, peak = median(ours), max(peaks)
    met = total <= TARGET_CPU_SECONDS if rows >= 10_000_000 else None  # the target is for the full file
    measures = [
        Measure("whole register(), all default checks", total, "CPU-s", "dvc + GX + pandas + decode", peers,
                total / peers, f"<= {TARGET_CPU_SECONDS:g}", met),
        Measure("peak memory of register()", peak / 2**30, "GiB", target="< 2", met=peak < TARGET_PEAK_BYTES),
        Measure("rows per CPU-second", rows / total / 1e6, "Mrows/CPU-s"),
        Measure("Parquet decode alone", decode, "CPU-s"),
        Measure("Great Expectations on pandas (scaled)", gx_seconds * scale, "CPU-s"),
        Measure("pandas hash_pandas_object (scaled)", hash_seconds * scale, "CPU-s"),
    ]  # fmt: skip
    if not arguments.without_dvc:
        measures.append(Measure("dvc add", dvc_seconds, "CPU-s"))
    names = sorted({name for one in stages for name in one})
    by_stage = {name: median([one.get(name, 0.0) for one in stages]) for name in names}
    measures += [
        Measure(f"  stage {name}", seconds, "CPU-s")
        for name, seconds in sorted(by_stage.items(), key=lambda item: -item[1])
    ]
    print()
    report(measures, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
