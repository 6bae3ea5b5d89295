"""What identity costs: fingerprint, verification of unchanged files, and row proofs, beside other tools.

The file is generated: 10 M rows x 13 columns, zstd Parquet. Each contestant runs in a process of its own and
is charged CPU-seconds (verification of unchanged files also wall seconds, as its peers report walls).
Peers: Parquet decode alone, by the plain call and by the cheapest way we know;
``pandas.util.hash_pandas_object`` (64-bit, not cryptographic, on ``--peer-rows`` rows); ``dvc add`` (MD5 of
the bytes) and model-signing's BLAKE3 manifest, both from the pinned peers' environment; BLAKE3 over the same
bytes in memory is what no verification by this hash can beat. ``--only`` runs a part.

Usage: python benchmarks/fingerprint.py [--rows N] [--folder DIR] [--only PART] [--json FILE]
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
from register import peer, run_decode, run_fast_decode, run_pandas_hash
from tables import batches, parquet

BLOCK_ROWS = 65_536


def run_fingerprint(path: Path, set_root: bool) -> dict[str, Any]:
    """The whole fingerprint of a file, as ``trainguard dataset fingerprint`` computes it."""
    import dataset_guard

    return dataset_guard.fingerprint(path, set_root=set_root).to_json()


def run_threads(path: Path) -> dict[str, Any]:
    """The same on two threads."""
    import dataset_guard

    return dataset_guard.fingerprint(path, set_root=False, threads=2).to_json()


def run_in_memory(rows: int) -> dict[str, Any]:
    """Column-block hashing alone: the table is in memory, compiled code is warm."""
    import pyarrow as pa

    from dataset_guard.hashing.fingerprint import Fingerprinter

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


def run_digest(path: Path, tags_file: Path) -> str:
    """The file's digest and tags, as a registration makes them; the tags go to ``tags_file``."""
    from dataset_guard.sidecars.file_tags import FileTags
    from dataset_guard.sidecars.manifest import file_digest

    tags = FileTags(bytes(32))
    digest = file_digest(path, tags=tags)
    tags.write(tags_file, [digest])
    return digest


def run_compare(path: Path, manifest: list[dict[str, Any]], tags_file: Path | None) -> dict[str, Any]:
    """What ``verify`` does for unchanged files, by tags or by BLAKE3 (``--keyless``); nothing is decoded."""
    import nacl.bindings  # noqa: F401  # as blake3's, not charged

    from dataset_guard.sidecars.file_tags import FileTags
    from dataset_guard.sidecars.manifest import FileEntry, compare

    with spent() as cost:
        tags = None
        if tags_file is not None:
            tags = FileTags(bytes(32))
            tags.load(tags_file)
        changes = compare([FileEntry.from_json(entry) for entry in manifest], path, tags=tags)
    if changes.by_tag != (tags is not None):
        raise RuntimeError("the file was recognised in another way")
    return {"changed": bool(changes), "seconds": cost.cpu_seconds, "wall": cost.wall_seconds}


def run_raw(path: Path) -> dict[str, Any]:
    """BLAKE3 on all cores over the file's bytes, already in this process's memory."""
    from blake3 import blake3

    raw = path.read_bytes()
    with spent() as cost:
        blake3(raw, max_threads=blake3.AUTO).digest()
    return {"seconds": cost.cpu_seconds, "wall": cost.wall_seconds}


def run_read(path: Path) -> dict[str, Any]:
    """Copying the file's bytes out of the page cache on one core, and nothing else."""
    buffer = bytearray(256 << 10)
    with spent() as cost, path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return {"seconds": cost.cpu_seconds, "wall": cost.wall_seconds}


def run_dvc_add(path: Path, command: Path) -> dict[str, Any]:
    """CPU-seconds of ``dvc add`` for the file, less those for one byte: its start is not its speed."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wall = 0.0

        def run(*words: str) -> float:
            nonlocal wall
            with spent() as cost:
                subprocess.run([str(command), *words], cwd=folder, env=environment, check=True)
            wall = cost.wall_seconds
            return cost.cpu_seconds

        (Path(folder) / "data").hardlink_to(path)
        (Path(folder) / "small").write_bytes(b"x")
        run("init", "--no-scm", "-q")
        run("config", "cache.type", "hardlink")
        start, start_wall = run("add", "-q", "small"), wall
        return {"seconds": run("add", "-q", "data") - start, "wall": wall - start_wall}


MODEL_SIGNING = """
import json, resource, sys, time
from pathlib import Path
from model_signing import hashing
config = hashing.Config().use_file_serialization(hashing_algorithm="blake3")
folder = Path(sys.argv[1])
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
before, started = cpu(), time.perf_counter()
manifest = config.hash(folder)
print(json.dumps({"seconds": cpu() - before, "wall": time.perf_counter() - started}))
"""


def run_model_signing(path: Path, python: Path) -> dict[str, Any]:
    """model-signing's BLAKE3 manifest of a folder with the file; its imports are not charged."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        (Path(folder) / path.name).hardlink_to(path)
        said = subprocess.run([str(python), "-c", MODEL_SIGNING, folder], check=True, capture_output=True)
        answer: dict[str, Any] = json.loads(said.stdout)
        return answer


def run_version(folder: Path, home: Path) -> dict[str, Any]:
    """Register the folder of the one file, verify it, append one percent, fingerprint with its help."""
    os.environ["TRAINGUARD_HOME"] = str(home)
    import pyarrow as pa

    import dataset_guard

    with spent() as first:
        dataset_guard.register(folder, name="bench", checks=["schema"])
    answer: dict[str, Any] = {}
    with spent() as cost:
        found = dataset_guard.verify("bench@1")
    answer["verify"] = {
        "ok": found.ok and not found.decoded,
        "seconds": cost.cpu_seconds,
        "wall": cost.wall_seconds,
    }
    import pyarrow.parquet as pq

    rows = pq.ParquetFile(next(folder.glob("*.parquet"))).metadata.num_rows
    pq.write_table(
        pa.Table.from_batches(batches(rows // 100, seed=8)), folder / "z-append.parquet", compression="zstd"
    )
    costs: dict[str, float] = {}
    try:
        for name, set_root in (("leaves", False), ("roots", True)):
            with spent() as cost:
                helped = dataset_guard.fingerprint(folder, base="bench@1", set_root=set_root).to_json()
            with spent() as full:
                alone = dataset_guard.fingerprint(folder, set_root=set_root).to_json()
            if {**helped, "bytes": None} != {**alone, "bytes": None}:
                raise RuntimeError("an append has another fingerprint with the help of its base")
            costs |= {name: cost.cpu_seconds, f"full {name}": full.cpu_seconds}
            root = "--set-root" if set_root else "--no-set-root"
            for kind, base in (("command", ("--base", "bench@1")), ("full command", ())):
                with spent() as cost:
                    command = [str(Path(sys.executable).with_name("trainguard")), "dataset", "fingerprint"]
                    subprocess.run([*command, str(folder), root, *base], check=True, capture_output=True)
                costs[f"{kind} {name}"] = cost.cpu_seconds
        costs["recognise"] = run_recognise(folder)
        costs |= run_tail(folder, rows)
        with spent() as grown:
            dataset_guard.register(folder, name="bench", checks=["schema"])
        costs |= {"register": grown.cpu_seconds, "full register": first.cpu_seconds}
    finally:
        (folder / "z-append.parquet").unlink()
    answer["append"] = costs
    return answer


def run_recognise(folder: Path) -> float:
    """CPU-seconds to see that the files of ``bench@1`` in ``folder`` are unchanged, all their bytes read."""
    from dataset_guard.hashing.rowkeys import tenant_row_key
    from dataset_guard.reading import open_source
    from dataset_guard.registry.store import Registry
    from dataset_guard.sidecars.file_tags import FileTags
    from dataset_guard.sidecars.manifest import manifest_of
    from guard_core.home import Home

    with Home.open() as home:
        reference = Registry(home).reference("bench@1", tenant="local")
        tags = FileTags(tenant_row_key(home, "local"))
        if not reference.load_tags(tags):
            raise RuntimeError("the registered version has no tags")
        source = open_source(folder)
        with spent() as recognised:
            manifest_of(source, tags=tags, before=reference.manifest)
    return recognised.cpu_seconds


def run_tail(folder: Path, known: int) -> dict[str, float]:
    """CPU-seconds to decode what an append must read: the unfinished block, and then the new rows alone.

    The row group that the unfinished block lies in is decoded from its beginning.
    """
    from dataset_guard.reading import open_source

    source, costs = open_source(folder), {}
    for name, first in (("decode", known - known % BLOCK_ROWS), ("decode new", known)):
        with spent() as cost:
            for _ in source.stream(first_row=first):
                pass
        costs[name] = cost.cpu_seconds
    return costs


def run_appended(folder: Path, home: Path) -> dict[str, float]:
    """Register a folder and again after it grew by 1 %, as is and without what was kept of the first time."""
    os.environ["TRAINGUARD_HOME"] = str(home)
    import pyarrow as pa
    import pyarrow.parquet as pq

    import dataset_guard
    from dataset_guard.sidecars.learnt import FILE

    rows = pq.ParquetFile(next(folder.glob("*.parquet"))).metadata.num_rows
    warm = pa.Table.from_batches(batches(70_000))  # imports and compiled code are not charged
    dataset_guard.register(warm, name="warm", label="label")
    costs: dict[str, float] = {}
    for version, name in (("grown", "grown"), ("read", "other")):
        with spent() as full:
            dataset_guard.register(folder, name=name, label="label")
        costs["full"] = full.cpu_seconds
        tail = folder / "z-append.parquet"
        pq.write_table(pa.Table.from_batches(batches(rows // 100, seed=8)), tail, compression="zstd")
        if version == "read":
            next(home.rglob(f"{name}/1/{FILE}")).unlink()
        with spent() as cost:
            dataset_guard.register(folder, name=name, label="label")
        costs[version] = cost.cpu_seconds
        tail.unlink()
    return costs


def run_proofs(path: Path, home: Path, algorithm: str, rounds: int = 2_000) -> dict[str, Any]:
    """Of the version in ``home``: real proofs of a row in it and of one that is not, checked many times."""
    os.environ["TRAINGUARD_HOME"] = str(home)
    import pyarrow as pa
    import pyarrow.parquet as pq

    import dataset_guard
    from dataset_guard.proofs.prove import check_proof, raw_of, says
    from dataset_guard.proofs.rowtree import Gap, sidecar_root
    from dataset_guard.registry.store import Registry
    from guard_core.home import Home

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
        from guard_core.keys import rotate

        rotate(opened, by=opened.principal(), algorithm=algorithm)
        verifier = opened.signer.verifier
        for name, asked, expected in (("present", row, True), ("absent", absent, False)):
            with spent() as making:
                found = dataset_guard.prove("bench@1", asked, home=opened)
            raw = found.to_bytes()
            proof = json.loads(raw)
            payload = json.loads(
                verifier.verify_bytes(proof["signed"], payload_type=proof["signed"]["payloadType"])
            )
            gap = Gap(*(None if h is None else raw_of(h) for h in proof["gap"]))
            parts = (
                gap,
                proof["index"],
                raw_of(proof["path"]),
                raw_of(payload["row"]),
                payload["rows"],
                raw_of(payload["root"]),
            )
            path_times, whole_times = [], []
            for _ in range(rounds):
                started = time.perf_counter()
                shown = says(*parts)
                path_times.append(time.perf_counter() - started)
            for _ in range(rounds):
                started = time.perf_counter()
                proven = check_proof(raw, verifier)
                whole_times.append(time.perf_counter() - started)
            if not (shown is proven.present is expected):
                raise RuntimeError(f"the proof of the {name} row is wrong")
            answer[name] = {
                "bytes": len(raw),
                "make": making.cpu_seconds,
                "path_us": median(path_times) * 1e6,
                "whole_us": median(whole_times) * 1e6,
            }
        answer["bundle_us"] = bundle_us(opened, path, verifier)
        answer["signature_us"] = signature_us(proof["signed"], verifier)
    return answer


def signature_us(envelope: dict[str, Any], verifier: Any, rounds: int = 1_000) -> dict[str, float]:
    """Microseconds that libraries take for the signature of ``envelope`` alone, nothing of ours around it."""
    import base64

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from nacl.signing import VerifyKey

    from guard_core.attestation import pre_authentication_encoding

    [signed] = envelope["signatures"]
    key, signature = verifier.keys[signed["keyid"]], base64.b64decode(signed["sig"])
    data = pre_authentication_encoding(envelope["payloadType"], base64.b64decode(envelope["payload"]))
    if isinstance(key, ed25519.Ed25519PublicKey):
        other = VerifyKey(key.public_bytes_raw())
        checks = {
            "OpenSSL": lambda: key.verify(signature, data),
            "libsodium": lambda: other.verify(data, signature),
        }
    else:
        checks = {"OpenSSL": lambda: key.verify(signature, data, ec.ECDSA(hashes.SHA256()))}
    found = {}
    for name, check in checks.items():
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            check()
            times.append(time.perf_counter() - started)
        found[name] = median(times) * 1e6
    return found


def bundle_us(opened: Any, path: Path, verifier: Any, rows: int = 100) -> float:
    """Microseconds to check one of many proofs under a statement whose signature was verified before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dataset_guard.proofs.proof_bundle import SignedRows, prove_rows

    asked = pa.Table.from_batches([next(pq.ParquetFile(path).iter_batches(batch_size=rows))])
    bundle = json.loads(prove_rows("bench@1", asked, home=opened).to_bytes())
    signed = SignedRows.of(bundle["signed"], verifier)
    times = []
    for _ in range(20):
        for number, proof in enumerate(bundle["proofs"]):
            started = time.perf_counter()
            if not signed.says(number, proof):
                raise RuntimeError("a proof of the bundle is wrong")
            times.append(time.perf_counter() - started)
    return median(times) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--peer-rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the generated file here [a temporary folder]")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part [all]; may be repeated")
    parser.add_argument("--without-peers", action="store_true")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        return measure(arguments, arguments.folder)
    with tempfile.TemporaryDirectory() as folder:
        return measure(arguments, Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> int:
    path = parquet(folder / f"{arguments.rows}x13" / "generated.parquet", arguments.rows)
    print(f"machine: {machine()}")
    size = path.stat().st_size / 1e9
    print(f"file: generated, {arguments.rows:,} rows x 13 columns, {size:.2f} GB zstd Parquet\n", flush=True)
    measures: list[Measure] = []
    for part in arguments.only or PARTS:
        measures += PARTS[part](arguments, path)
    print()
    report(measures, arguments.json)
    return 0


def is_full(arguments: argparse.Namespace) -> bool:
    """Whether the file is the one that the targets are for."""
    return bool(arguments.rows >= 10_000_000)


def fingerprints(arguments: argparse.Namespace, path: Path) -> list[Measure]:
    """The fingerprint itself, its memory, and hashing alone."""
    full, peer_rows = is_full(arguments), min(arguments.peer_rows, arguments.rows)

    def cpu(work: Any) -> tuple[float, float]:
        children = [in_child(work) for _ in range(arguments.repeat)]
        return median([c.cpu_seconds for c in children]), max(float(c.peak_bytes) for c in children)

    def answered(work: Any, name: str) -> float:
        return median([in_child(work).answer[name] for _ in range(arguments.repeat)])

    plain, _ = cpu(lambda: run_decode(path))
    fast, _ = cpu(lambda: run_fast_decode(path))
    sequence, peak = cpu(lambda: run_fingerprint(path, set_root=False))
    threads = [in_child(lambda: run_threads(path)) for _ in range(arguments.repeat)]
    with_set, set_peak = cpu(lambda: run_fingerprint(path, set_root=True))
    ours = answered(lambda: run_in_memory(peer_rows), "seconds")
    pandas = answered(lambda: run_pandas_hash(path, peer_rows), "hash")
    speed, pandas_speed = peer_rows / ours / 1e6, peer_rows / pandas / 1e6
    return [
        Measure("fingerprint of the file (no set root)", sequence, "CPU-s", "decode, cheapest we know", fast,
                sequence / fast, "<= 1.6x", sequence / fast <= 1.6 if full else None),
        Measure("the same against the plain decode", sequence, "CPU-s", "decode, plain call", plain,
                sequence / plain),
        Measure("the same on two threads, wall", median([c.wall_seconds for c in threads]), "s",
                "its CPU-s", median([c.cpu_seconds for c in threads])),
        Measure("fingerprint with the set root", with_set, "CPU-s", "decode, cheapest we know", fast,
                with_set / fast),
        Measure("column-block hashing in memory", speed, "Mrows/CPU-s", "pandas hash_pandas_object",
                pandas_speed, speed / pandas_speed, ">= 15x", speed / pandas_speed >= 15),
        Measure("peak memory, no set root", peak / 2**30, "GiB", target="< 1", met=peak < 2**30),
        Measure("peak memory, with the set root", set_peak / 2**30, "GiB", target="< 1",
                met=set_peak < 2**30),
    ]  # fmt: skip


def verification(arguments: argparse.Namespace, path: Path) -> list[Measure]:
    """Unchanged files, beside peers. In turns, the best of each: short walls say who was lucky."""
    # In a child: blake3's threads would not survive the forks below.
    with tempfile.TemporaryDirectory(dir=path.parents[1]) as place:
        return _verification(arguments, path, Path(place) / "files.tags")


def _verification(arguments: argparse.Namespace, path: Path, tags: Path) -> list[Measure]:
    size, full = path.stat().st_size, is_full(arguments)
    digest = in_child(lambda: run_digest(path, tags)).answer
    manifest = [{"path": path.name, "blake3": digest, "bytes": size, "rows": arguments.rows}]
    contestants: dict[str, Any] = {
        "ours": lambda: run_compare(path, manifest, tags),
        "keyless": lambda: run_compare(path, manifest, None),
        "raw": lambda: run_raw(path),
        "read": lambda: run_read(path),
    }
    if not arguments.without_peers:
        command, python = peer("dvc"), peer("python")
        contestants["dvc"] = lambda: run_dvc_add(path, command)
        contestants["signing"] = lambda: run_model_signing(path, python)
    rounds = [{name: in_child(work).answer for name, work in contestants.items()} for _ in range(12)]
    if any(found[who]["changed"] for found in rounds for who in ("ours", "keyless")):
        raise RuntimeError("the unchanged file was said to be changed")

    def against(
        other: str, name: str, what: str, target: str = "", least: float = 0, who: str = "ours"
    ) -> Measure:
        mine, theirs = (min(found[one][what] for found in rounds) for one in (who, name))
        unit, kind = ("GB/s", "wall") if what == "wall" else ("GB/CPU-s", "CPU")
        ratio = theirs / mine
        met = ratio >= least if full and target else None
        gb = size / 1e9
        return Measure(
            f"verify unchanged: files, {kind}{', keyless' if who == 'keyless' else ''}",
            gb / mine, unit, other, gb / theirs, ratio, target, met,
        )  # fmt: skip

    measures = [against("BLAKE3 in memory", "raw", what) for what in ("wall", "seconds")]
    measures.append(against("reading alone, one core", "read", "seconds"))
    if not arguments.without_peers:
        measures += [
            against("dvc add less its start", "dvc", "wall", ">= 10x", 10),
            against("dvc add less its start", "dvc", "seconds"),
            against("model-signing blake3", "signing", "wall", ">= 0.8x", 0.8),
            against("model-signing blake3", "signing", "seconds"),
            against("dvc add less its start", "dvc", "wall", who="keyless"),
            against("model-signing blake3", "signing", "wall", who="keyless"),
            against("model-signing blake3", "signing", "seconds", who="keyless"),
        ]
    return measures


def appended(arguments: argparse.Namespace, path: Path) -> list[Measure]:
    """The registration of a set that grew by 1 %, all default checks."""
    rows = min(arguments.peer_rows, arguments.rows)
    with tempfile.TemporaryDirectory(dir=path.parents[1]) as place:
        small = parquet(Path(place) / "set" / "generated.parquet", rows)
        costs = in_child(lambda: run_appended(small.parent, Path(place) / "home")).answer
    return [
        Measure(f"1 % append to {rows:,} rows: registration, default checks", costs["grown"], "CPU-s",
                what, costs[name], costs["grown"] / costs[name])
        for what, name in (("of everything", "full"), ("row hashes known, all rows read", "read"))
    ]  # fmt: skip


def versions(arguments: argparse.Namespace, path: Path) -> list[Measure]:
    """A registered version: ``verify()`` whole, an append, row proofs."""
    full = is_full(arguments)
    with tempfile.TemporaryDirectory(dir=path.parents[1]) as place:
        home = Path(place) / "home"
        version = in_child(lambda: run_version(path.parent, home)).answer
        if not version["verify"]["ok"]:
            raise RuntimeError("the unchanged version did not verify")
        proofs = in_child(lambda: run_proofs(path, home, "ed25519")).answer
        p256 = in_child(lambda: run_proofs(path, home, "ecdsa-p256")).answer
    costs = version["append"]
    kinds, gb = ("present", "absent"), path.stat().st_size / 1e9
    largest = max(proofs[k]["bytes"] for k in kinds)

    def check(name: str, microseconds: float) -> Measure:
        met = microseconds <= 100 if full else None
        return Measure(f"check a proof{name}", microseconds, "us", target="<= 100", met=met)

    return [
        Measure("verify(): record, sidecars and files, CPU", gb / version["verify"]["seconds"], "GB/CPU-s",
                "its wall, GB/s", gb / version["verify"]["wall"]),
        *(
            Measure(f"1 % append: {what}", costs[name], "CPU-s", "of everything", costs[f"full {name}"],
                    costs[name] / costs[f"full {name}"], target,
                    costs[name] / costs[f"full {name}"] <= 0.03 if full and target else None)
            for what, name, target in (
                ("fingerprint without set root", "leaves", "<= 0.03x"),
                ("fingerprint with set root", "roots", "<= 0.03x"),
                ("registration, schema check only", "register", ""),
            )
        ),
        *(
            Measure(f"1 % append: the command, its start included, {what} set root", costs[f"command {name}"],
                    "CPU-s", "of everything", costs[f"full command {name}"],
                    costs[f"command {name}"] / costs[f"full command {name}"])
            for what, name in (("without", "leaves"), ("with", "roots"))
        ),
        *(
            Measure(f"1 % append: {what}", costs[part], "CPU-s", f"fingerprint {which} set root",
                    costs[f"full {name}"], costs[part] / costs[f"full {name}"])
            for which, name in (("without", "leaves"), ("with", "roots"))
            for what, part in (
                ("recognising the unchanged bytes alone", "recognise"),
                ("decoding the unfinished block and the new rows alone", "decode"),
                ("decoding the new rows alone", "decode new"),
            )
        ),
        *(
            Measure(f"1 % append less that: fingerprint {what} set root", costs[name] - costs["recognise"],
                    "CPU-s", "of everything", costs[f"full {name}"],
                    (costs[name] - costs["recognise"]) / costs[f"full {name}"])
            for what, name in (("without", "leaves"), ("with", "roots"))
        ),
        Measure("row proof, larger of the two kinds", float(largest), "bytes", target="<= 2048",
                met=largest <= 2048),
        check("'s path under a known root", max(proofs[k]["path_us"] for k in kinds)),
        check(" of a bundle, its signature verified before", proofs["bundle_us"]),
        check(", ECDSA P-256 signature included", max(p256[k]["whole_us"] for k in kinds)),
        check(", Ed25519 signature included", max(proofs[k]["whole_us"] for k in kinds)),
        *(
            Measure(f"{name}'s check of the {curve} signature alone", microseconds, "us")
            for curve, found in (("Ed25519", proofs), ("P-256", p256))
            for name, microseconds in found["signature_us"].items()
        ),
        Measure("make a proof (builds the tree)", max(proofs[k]["make"] for k in kinds), "CPU-s"),
        Measure("rows_root during registration", proofs["tree"], "CPU-s"),
    ]  # fmt: skip


PARTS = {"fingerprint": fingerprints, "verify": verification, "version": versions, "append": appended}


if __name__ == "__main__":
    sys.exit(main())
