"""Traces of jobs for what-if replays: Microsoft's Philly, Alibaba's openb, and our own ledger's history.

A trace says when each job was submitted, by whom, what it asked for and how long it ran. Formats:

* ``ledger``: JSON lines as ``trainguard compute history`` writes them;
* ``philly``: a folder of ``<virtual cluster>.trace`` files as the Gavel project prepared them (tab separated:
  job type, command, steps flag, needs-data flag, steps, arrival in seconds, GPUs), with
  ``simulation_throughputs.json`` in the folder or above it; a job runs its steps at the V100's throughput of
  its type and number of GPUs, or scaled from one GPU;
* ``openb``: Alibaba's pod list of 2023 (CSV, also .gz); a pod's queue is its QoS class, its flavors are
  ``gpu_spec``.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from compute_guard.quota.limits import CPU, GPU, JOBS, MEMORY, Amounts
from guard_core.errors import UserError

NO_RATE: Final = "job type without throughput"


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One job. ``arrival_ms`` from the trace's beginning; ``run_ms`` is how long it needs its request."""

    id: str
    queue: str
    user: str
    arrival_ms: int
    run_ms: int
    requests: Amounts
    priority: int = 0
    flavors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in no particular order, and where they come from."""

    source: str
    jobs: tuple[TraceJob, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Lines that are no finished job, by reason."""


def read_trace(path: Path, form: str = "auto") -> Trace:
    """Read a trace; ``form`` is a format's name or ``auto``. Raises UserError naming file, line and fault."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    name = _guessed(path) if form == "auto" else form
    if name not in FORMATS:
        raise UserError(f"{name} is no trace format; formats are {', '.join(FORMATS)}")
    left_out: dict[str, int] = {}
    jobs = tuple(FORMATS[name](path, left_out))
    if not jobs:
        raise UserError(f"{path} holds no jobs in the format {name}")
    return Trace(f"{name}: {path.name}", jobs, left_out)


def _guessed(path: Path) -> str:
    if path.is_dir() or path.suffix == ".trace":
        return "philly"
    return "openb" if ".csv" in path.suffixes else "ledger"


def _ledger(path: Path, _left_out: dict[str, int]) -> Iterator[TraceJob]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                raw = json.loads(line)
                yield TraceJob(
                    raw["id"],
                    raw["queue"],
                    raw["user"],
                    _whole(raw["arrival_ms"]),
                    _whole(raw["run_ms"]),
                    Amounts(raw["requests"]),
                    _whole(raw.get("priority", 0)),
                    tuple(raw.get("flavors", ())),
                )
            except (ValueError, KeyError, TypeError, UserError) as error:
                said = f"no {error}" if isinstance(error, KeyError) else error
                text = f"{path}, line {number}: not a job of a ledger's history ({said})"
                raise UserError(text) from error


def _philly(path: Path, left_out: dict[str, int]) -> Iterator[TraceJob]:
    files = sorted(path.glob("*.trace")) if path.is_dir() else [path]
    folder = path if path.is_dir() else path.parent
    rates = _throughputs(folder)
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            cells = line.split("\t")
            try:
                kind, steps, arrival, gpus = cells[0], int(cells[4]), float(cells[5]), int(cells[6])
            except (IndexError, ValueError) as error:
                raise UserError(f"{file}, line {number}: not a job of the Philly format ({error})") from error
            rate = rates.get((kind, gpus)) or rates.get((kind, 1), 0.0) * gpus
            if not rate:
                left_out[NO_RATE] = left_out.get(NO_RATE, 0) + 1
                continue
            yield TraceJob(
                f"{file.stem}-{number}",
                file.stem,
                file.stem,
                round(arrival * 1000),
                max(1, round(steps / rate * 1000)),
                Amounts({JOBS: 1, GPU: gpus * 1000, CPU: gpus * 4000}),
            )


def _throughputs(folder: Path) -> dict[tuple[str, int], float]:
    for place in (folder, folder.parent):
        file = place / "simulation_throughputs.json"
        if file.exists():
            raw = json.loads(file.read_text(encoding="utf-8"))["v100"]
            found: dict[tuple[str, int], float] = {}
            for key, value in raw.items():
                kind, gpus = ast.literal_eval(key)
                found[kind, gpus] = value["null"]
            return found
    raise UserError(
        f"simulation_throughputs.json is neither in {folder} nor above it; it gives the durations"
    )


def _openb(path: Path, left_out: dict[str, int]) -> Iterator[TraceJob]:
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    for number, row in enumerate(csv.DictReader(io.StringIO(text.decode("utf-8"))), 2):
        try:
            if not row["deletion_time"] or not row["scheduled_time"]:
                left_out["never ran"] = left_out.get("never ran", 0) + 1
                continue
            created, begun, ended = (
                int(float(row[name]) * 1000) for name in ("creation_time", "scheduled_time", "deletion_time")
            )
            gpus = int(row["num_gpu"])
            requests = {
                JOBS: 1,
                CPU: int(row["cpu_milli"]),
                MEMORY: int(row["memory_mib"]) << 20,
                GPU: 1000 * gpus if gpus > 1 else gpus * int(row["gpu_milli"]),
            }
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number}: not a pod of the openb format ({error})") from error
        yield TraceJob(
            row["name"],
            row["qos"].lower(),
            row["qos"].lower(),
            created,
            max(1, ended - begun),
            Amounts(requests),
            0,
            tuple(flavor.lower() for flavor in row["gpu_spec"].split("|") if flavor),
        )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{value!r} is not a whole number from 0")
    return value


FORMATS: Final[Mapping[str, Callable[[Path, dict[str, int]], Iterator[TraceJob]]]] = {
    "ledger": _ledger,
    "philly": _philly,
    "openb": _openb,
}
"""The readers, by the name of their format."""
