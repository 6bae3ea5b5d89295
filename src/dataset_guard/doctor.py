"""What ``trainguard doctor`` asks dataset_guard: fast row hashing, references that still hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from guard_core.doctor import Probe
from guard_core.errors import GuardError

if TYPE_CHECKING:
    from guard_core.config import Settings

GROUP = "dataset"


def probes(settings: Settings) -> Iterator[Probe]:
    """One probe for each thing that can be wrong; each with its remedy."""
    yield _kernels()
    yield from _staging(settings.home)
    yield from _versions(settings)


def _kernels() -> Probe:
    """Row hashing runs compiled code, and it agrees with the blake3 library."""
    import pyarrow as pa
    from blake3 import blake3

    from dataset_guard.hashing.rowhash import RowHasher, row_key

    batch = pa.record_batch({"a": pa.array([7], pa.int64())})
    expected = blake3(b"\3" + (7).to_bytes(8, "little"), key=row_key(["a"])).digest()[:16]
    hi, lo = RowHasher(batch.schema).hash(batch).public[0]
    if int(hi).to_bytes(8, "big") + int(lo).to_bytes(8, "big") == expected:
        return Probe(GROUP, "row hashes", "ok", "compiled, and equal to the blake3 library")
    remedy = "delete the __pycache__ folders of dataset_guard (numba's cache) and try again"
    return Probe(GROUP, "row hashes", "broken", "compiled code disagrees with the blake3 library", remedy)


def _staging(home: Path) -> Iterator[Probe]:
    folder = home / "datasets"
    if not folder.exists():
        return
    if not os.access(folder, os.W_OK):
        yield Probe(GROUP, "folder", "broken", f"{folder} cannot be written", f"run: chmod u+w {folder}")
        return
    left = len(list((folder / ".staging").glob("*")))
    if left:
        message = f"{left} registrations are running or were cut off"
        yield Probe(GROUP, "staging", "info", message, "the next registration sweeps what is left over")


def _versions(settings: Settings) -> Iterator[Probe]:
    """Every version's signed record is there and agrees with the database."""
    if not (settings.home / "datasets").exists():
        yield Probe(GROUP, "versions", "info", "no datasets are registered yet")
        return
    from dataset_guard.registry.store import Registry
    from guard_core.home import Home

    good = 0
    try:
        with Home.open(settings) as home:
            registry = Registry(home)
            for tenant in sorted(p.name for p in registry.root.iterdir() if not p.name.startswith(".")):
                for name in registry.names(tenant=tenant):
                    for version in registry.versions(name, tenant=tenant):
                        try:
                            registry.record(version)
                            good += 1
                        except GuardError as error:
                            yield Probe(GROUP, version.ref, "broken", str(error), "restore it from a backup")
    except GuardError as error:
        yield Probe(GROUP, "versions", "broken", str(error), "do what the message says")
        return
    yield Probe(GROUP, "versions", "ok", f"{good} signed records agree with the database")
