"""How every benchmark measures: CPU-seconds of a process and its children, medians, one table, one JSON.

The unit is work per CPU-second (``getrusage`` user + system), because wall time on a shared machine says
little. Each peer runs in the same run, on the same file, in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One line of the table. ``ratio`` is ours over the peer's, ``met`` is None when there is no target."""

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


@dataclass
class Spent:
    """What a block of work cost; filled when the block ends."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


def cpu_seconds() -> float:
    """User + system seconds of this process and of its finished children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def cpu_of(pid: int) -> float:
    """CPU seconds so far of a process; none of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def spent() -> Iterator[Spent]:
    """Measure a block."""
    result = Spent()
    cpu, wall = cpu_seconds(), time.perf_counter()
    yield result
    result.cpu_seconds, result.wall_seconds = cpu_seconds() - cpu, time.perf_counter() - wall


@dataclass(frozen=True)
class Child:
    """Result of a function run in a process of its own: JSON answer, CPU and wall seconds, peak memory."""

    answer: Any
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


def in_child(work: Callable[[], Any]) -> Child:
    """Run ``work`` in a forked process, so that its memory peak and CPU time are its own.

    Raises RuntimeError when the child fails.
    """
    reader, writer = os.pipe()
    started = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                json.dump(work(), out)
            code = 0
        except BaseException as error:  # noqa: BLE001  # the child must report and leave, whatever happened
            print(f"child failed: {error!r}", file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as source:
        text = source.read()
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise RuntimeError(f"a measured child process failed with status {status}")
    return Child(
        json.loads(text),
        usage.ru_utime + usage.ru_stime,
        time.perf_counter() - started,
        usage.ru_maxrss * 1024,
    )


def machine() -> dict[str, Any]:
    """The machine in words that mean something to a reader, nothing that identifies it."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def median(values: list[float]) -> float:
    """Median, named so that a reader of a benchmark sees what is reported."""
    return statistics.median(values)


def report(measures: list[Measure], json_file: Path | None) -> None:
    """Print the table on stdout; write ``{machine, measures}`` to ``json_file`` when given."""
    widths = (46, 14, 12, 26, 12, 8, 12, 4)
    head = ("measure", "value", "unit", "peer", "peer value", "ratio", "target", "met")
    print("  ".join(text.ljust(width) for text, width in zip(head, widths, strict=True)).rstrip())
    for m in measures:
        cells = (
            m.name,
            f"{m.value:,.3f}".rstrip("0").rstrip("."),
            m.unit,
            m.peer,
            "" if m.peer_value is None else f"{m.peer_value:,.3f}".rstrip("0").rstrip("."),
            "" if m.ratio is None else f"{m.ratio:.2f}x",
            m.target,
            {True: "yes", False: "NO", None: ""}[m.met],
        )
        print("  ".join(str(c).ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip())
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(
            json.dumps({"machine": machine(), "measures": [asdict(m) for m in measures]}, indent=2) + "\n"
        )
