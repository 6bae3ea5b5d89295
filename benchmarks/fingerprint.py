"""What identity costs: fingerprint, verification of unchanged files, and row proofs, beside other tools.

The file is generated: 10 M rows x 13 columns, zstd Parquet. Each contestant runs in a process of its own and
is charged CPU-seconds. Peers: Parquet decode alone (the floor), ``pandas.util.hash_pandas_object`` (64-bit,
not cryptographic, on ``--peer-rows`` rows), ``dvc add`` (MD5 of the bytes) from its own pinned environment.
model-signing and Hugging Face datasets are not among the pinned peers, so they are not measured here.

Usage: python benchmarks/fingerprint.py [--rows N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import Measure, in_child, machine, median, report, spent
from register import dvc_command, run_decode, run_pandas_hash
from tables import batches, parquet

OUT = Path(__file__).parent / "out"
BLOCK_ROWS = 65_536


def run_fingerprint(path: Path, set_root: bool) -> dict[str, Any]:
    """The whole fingerprint of a file, as ``trainguard dataset fingerprint`` computes it."""
    import dataset_guard

    return dataset_guard.fingerprint(path, set_root=set_root).to_json()


def run_in_memory(rows: int) -> dict[str, Any]:
    """Column-block hashing alone: the table is in memory, compiled code is warm."""
    import pyarrow as pa

    from dataset_guard.fingerprint import Fingerprinter

    table = pa.Table.from_batches(list(batches(rows))).combine_chunks()
    blocks = table.to_batches(max_chunksize=BLOCK_ROWS)
    warm = Fingerprinter(table.schema)
    warm.update(blocks[0])
    with spent() as cost:
        printer = Fingerprinter(table.schema)
        for block in blocks:
            printer.update(block)
        printer.finish(set_root=None)
    return {"seconds": cost.cpu_seconds}


def run_digest(path: Path) -> str:
    """The file's digest, as its manifest holds it."""
    from dataset_guard.manifest import file_digest

    return file_digest(path)


def run_compare(path: Path, manifest: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``verify`` does for unchanged files: the manifest's digests, nothing decoded."""
    from dataset_guard.manifest import FileEntry, compare

    with spent() as cost:
        changes = compare([FileEntry.from_json(entry) for entry in manifest], path)
    return {"changed": bool(changes), "seconds": cost.cpu_seconds, "wall": cost.wall_seconds}


def run_dvc_add(path: Path, command: Path) -> dict[str, Any]:
    """CPU-seconds of ``dvc add`` for the file, less those for one byte: its start is not its speed."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:

        def run(*words: str) -> float:
            with spent() as cost:
                subprocess.run([str(command), *words], cwd=folder, env=environment, check=True)
            return cost.cpu_seconds

        (Path(folder) / "data").hardlink_to(path)
        (Path(folder) / "small").write_bytes(b"x")
        run("init", "--no-scm", "-q")
        run("config", "cache.type", "hardlink")
        start = run("add", "-q", "small")
        return {"seconds": run("add", "-q", "data") - start}


def run_proofs(path: Path, home: Path, rounds: int = 2_000) -> dict[str, Any]:
    """A real version of the file, real proofs of a row in it and of one that is not, checked many times."""
    os.environ["TRAINGUARD_HOME"] = str(home)
    import pyarrow as pa
    import pyarrow.parquet as pq

    import dataset_guard
    from dataset_guard.prove import _raw, check_proof, says
    from dataset_guard.registry import Registry
    from dataset_guard.rowtree import Gap, sidecar_root
    from guard_core.home import Home

    dataset_guard.register(path, name="bench", checks=["schema"])
    first = next(pq.ParquetFile(path).iter_batches(batch_size=1))
    row = pa.Table.from_batches([first])
    absent = row.set_column(0, row.schema.field(0), pa.array([-1], row.schema.field(0).type))
    answer: dict[str, Any] = {}
    with Home.open() as opened:
        folder = Registry(opened).get("bench@1", tenant="local").folder
        sidecar_root(folder / "rows.arrow")  # compiled code is warm from here on
        with spent() as tree:
            sidecar_root(folder / "rows.arrow")
        answer["tree"] = tree.cpu_seconds
        verifier = opened.signer.verifier
        for name, asked, expected in (("present", row, True), ("absent", absent, False)):
            with spent() as making:
                found = dataset_guard.prove("bench@1", asked, home=opened)
            proof = json.loads(found.to_bytes())
            payload = json.loads(
                verifier.verify_bytes(proof["signed"], payload_type=proof["signed"]["payloadType"])
            )
            gap = Gap(*(None if h is None else _raw(h) for h in proof["gap"]))
            parts = (
                gap,
                proof["index"],
                _raw(proof["path"]),
                _raw(payload["row"]),
                payload["rows"],
                _raw(payload["root"]),
            )
            path_times, whole_times = [], []
            for _ in range(rounds):
                started = time.perf_counter()
                shown = says(*parts)
                path_times.append(time.perf_counter() - started)
            for _ in range(rounds):
                started = time.perf_counter()
                proven = check_proof(proof, verifier)
                whole_times.append(time.perf_counter() - started)
            if not (shown is proven.present is expected):
                raise RuntimeError(f"the proof of the {name} row is wrong")
            answer[name] = {
                "bytes": len(found.to_bytes()),
                "make": making.cpu_seconds,
                "path_us": median(path_times) * 1e6,
                "whole_us": median(whole_times) * 1e6,
            }
    return answer


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
    size = path.stat().st_size
    full = rows >= 10_000_000  # the targets are for the full file
    print(f"machine: {machine()}")
    print(f"file: generated, {rows:,} rows x 13 columns, {size / 1e9:.2f} GB zstd Parquet\n")

    def cpu(work: Any) -> tuple[float, float]:
        children = [in_child(work) for _ in range(arguments.repeat)]
        return median([c.cpu_seconds for c in children]), max(float(c.peak_bytes) for c in children)

    decode, _ = cpu(lambda: run_decode(path))
    sequence, peak = cpu(lambda: run_fingerprint(path, set_root=False))
    with_set, _ = cpu(lambda: run_fingerprint(path, set_root=True))
    ours = median(
        [in_child(lambda: run_in_memory(peer_rows)).answer["seconds"] for _ in range(arguments.repeat)]
    )
    pandas = median(
        [in_child(lambda: run_pandas_hash(path, peer_rows)).answer["hash"] for _ in range(arguments.repeat)]
    )
    # In a child: blake3's threads would not survive the forks below.
    digest = in_child(lambda: run_digest(path)).answer
    manifest = [{"path": path.name, "blake3": digest, "bytes": size, "rows": rows}]
    compared = [in_child(lambda: run_compare(path, manifest)) for _ in range(arguments.repeat)]
    if any(child.answer["changed"] for child in compared):
        raise RuntimeError("the unchanged file was said to be changed")
    verify = median([child.answer["seconds"] for child in compared])
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        proofs = in_child(lambda: run_proofs(path, Path(folder) / "home")).answer
    dvc: float | None = None
    if not arguments.without_dvc:
        command = dvc_command()
        dvc = median(
            [in_child(lambda: run_dvc_add(path, command)).answer["seconds"] for _ in range(arguments.repeat)]
        )
    gb = size / 1e9
    speed = peer_rows / ours / 1e6
    pandas_speed = peer_rows / pandas / 1e6
    verify_speed, dvc_speed = gb / verify, None if dvc is None else gb / dvc
    ratio = None if dvc_speed is None else verify_speed / dvc_speed
    largest = max(proofs[k]["bytes"] for k in ("present", "absent"))
    path_us = max(proofs[k]["path_us"] for k in ("present", "absent"))
    whole_us = max(proofs[k]["whole_us"] for k in ("present", "absent"))
    make = max(proofs[k]["make"] for k in ("present", "absent"))
    measures = [
        Measure("fingerprint of the file (no set root)", sequence, "CPU-s", "Parquet decode alone", decode,
                sequence / decode, "<= 1.6x", sequence / decode <= 1.6 if full else None),
        Measure("fingerprint with the set root", with_set, "CPU-s", "Parquet decode alone", decode,
                with_set / decode),
        Measure("column-block hashing in memory", speed, "Mrows/CPU-s", "pandas hash_pandas_object",
                pandas_speed, speed / pandas_speed, ">= 15x", speed / pandas_speed >= 15),
        Measure("verify an unchanged file", verify_speed, "GB/CPU-s", "dvc add less its start" if dvc else "",
                dvc_speed, ratio, ">= 10x", None if ratio is None or not full else ratio >= 10),
        Measure("peak memory of the fingerprint", peak / 2**30, "GiB", target="< 1", met=peak < 2**30),
        Measure("row proof, larger of the two kinds", float(largest), "bytes", target="<= 2048",
                met=largest <= 2048),
        Measure("check a proof's path under a known root", path_us, "us", target="<= 100",
                met=path_us <= 100 if full else None),
        Measure("check a proof, signature included", whole_us, "us", target="<= 100",
                met=whole_us <= 100 if full else None),
        Measure("make a proof (builds the tree)", make, "CPU-s"),
        Measure("rows_root during registration", proofs["tree"], "CPU-s"),
    ]  # fmt: skip
    print()
    report(measures, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
