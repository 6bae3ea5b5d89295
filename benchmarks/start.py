"""What starting costs: ``trainguard --help`` and ``import dataset_guard``, beside ``import mlflow``.

Usage: python benchmarks/start.py [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from measure import Measure, machine, median, report


def wall(command: list[str], repeat: int) -> float:
    """Median wall seconds of a command; the first run warms the page cache and does not count."""
    times = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return median(times[1:])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"machine: {machine()}\n")
    python = sys.executable
    bare = wall([python, "-c", "pass"], arguments.repeat)
    mlflow = wall([python, "-c", "import mlflow"], 3)
    measures = []
    for name, command, target in (
        ("trainguard --help", [str(Path(python).parent / "trainguard"), "--help"], 0.3),
        ("import dataset_guard", [python, "-c", "import dataset_guard"], 0.5),
        ("import compute_guard", [python, "-c", "import compute_guard"], 0.5),
    ):
        value = wall(command, arguments.repeat)
        measures.append(
            Measure(name, value, "s", "import mlflow", mlflow, value / mlflow, f"< {target}", value < target)
        )
    measures.append(Measure("python -c pass", bare, "s"))
    report(measures, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
