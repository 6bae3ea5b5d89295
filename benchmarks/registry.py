"""The registry with 10,000 versions of one dataset: does what people do every day stay fast?

One version is registered for real; the others are rows and folders that repeat it (generated, and said so).
Every figure is the median of ``--repeat`` runs in one process; *few* is the same with ten versions. SQLite.

Usage: python benchmarks/registry.py [--versions N] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import Measure, machine, median, report, spent

ROWS = 1_000


def grown(home: Any, path: Path, count: int) -> None:
    """Versions 2 to ``count`` of ``big`` as copies of version 1, each with its parent."""
    import dataset_guard
    from dataset_guard.registry.store import Registry
    from guard_core.storage.tables import DatasetVersionRow

    dataset_guard.register(path, name="big", home=home, checks=["schema"])
    version = Registry(home).get("big@1", tenant="local")
    with home.storage.session() as session:
        first = session.query(DatasetVersionRow).filter_by(version=1, digest=version.digest).one()
        columns = [
            c.name for c in DatasetVersionRow.__table__.columns if c.name not in ("id", "version", "parents")
        ]
        values = {name: getattr(first, name) for name in columns}
        session.add_all(
            DatasetVersionRow(version=number, parents=[f"local/big@{number - 1}"], **values)
            for number in range(2, count + 1)
        )
    for number in range(2, count + 1):
        (version.folder.parent / str(number)).mkdir()


def timed(work: Callable[[], Any], repeat: int) -> float:
    """Milliseconds of CPU, median."""
    work()
    times = []
    for _ in range(repeat):
        with spent() as cost:
            work()
        times.append(cost.cpu_seconds * 1e3)
    return median(times)


def figures(versions: int, repeat: int) -> dict[str, float]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    import dataset_guard
    from dataset_guard.registry.store import Registry
    from guard_core.testing import temporary_home

    with tempfile.TemporaryDirectory() as folder, temporary_home() as home:
        path = Path(folder) / "rows.parquet"
        pq.write_table(pa.table({"x": range(ROWS)}), path)
        grown(home, path, versions)
        registry = Registry(home)
        middle = f"big@{versions // 2}"
        registry.set_alias(registry.get(middle, tenant="local"), "production")
        return {
            "register the next version": timed(
                lambda: dataset_guard.register(path, name="big", home=home, checks=["schema"]),
                repeat,
            ),
            "find name@version": timed(lambda: registry.get(middle, tenant="local"), 20 * repeat),
            "find name@alias": timed(lambda: registry.get("big@production", tenant="local"), 20 * repeat),
            "find the newest": timed(lambda: registry.get("big", tenant="local"), 20 * repeat),
            "move an alias": timed(
                lambda: registry.set_alias(registry.get(middle, tenant="local"), "production"), repeat
            ),
            "list all versions": timed(lambda: registry.all_versions(tenant="local"), repeat),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"machine: {machine()}")
    print(f"{arguments.versions:,} versions of one dataset (generated), against 10\n")
    few, many = figures(10, arguments.repeat), figures(arguments.versions, arguments.repeat)
    bounds = {name: 1.5 for name in few if name.startswith("find")} | {"register the next version": 1.5}
    measures = []
    for name, value in many.items():
        ratio, bound = value / few[name], bounds.get(name)
        measures.append(
            Measure(
                name,
                value,
                "CPU-ms",
                "with 10 versions",
                few[name],
                ratio,
                "" if bound is None else f"<= {bound}x",
                None if bound is None else ratio <= bound,
            )
        )
    print()
    report(measures, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
