"""Draw what ``detect_leakage.py --only scale --json FILE`` measured: cost of a row and memory, by rows.

Usage: python benchmarks/plot_scale.py FILE ... --out docs/images/scale.svg
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from itertools import pairwise
from pathlib import Path

_SCAN = re.compile(r"scan of ([\d,]+) rows")


def points(files: list[Path]) -> list[tuple[int, float, float]]:
    """``(rows, us per row, peak GiB)`` of every scan in ``files``, by rows."""
    found = []
    for file in files:
        measures = json.loads(file.read_text())["measures"]
        for scan, peak in pairwise(measures):
            if said := _SCAN.search(scan["name"]):
                found.append((int(said[1].replace(",", "")), scan["value"], peak["value"]))
    return sorted(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    import matplotlib as mpl

    mpl.use("svg")
    # The same file for the same numbers; letters as text.
    mpl.rcParams.update({"svg.hashsalt": "scale", "svg.fonttype": "none", "font.size": 10})
    import matplotlib.pyplot as plt

    rows, cost, memory = zip(*points(arguments.files), strict=True)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for axis, values, name in zip(axes, (cost, memory), ("CPU us per row", "peak memory, GiB"), strict=True):
        axis.plot(rows, values, "o-", color="#1f5f8b")
        for x, y in zip(rows, values, strict=True):
            axis.annotate(f"{y:.2f}", (x, y), textcoords="offset points", xytext=(0, 7), ha="center")
        axis.set(xscale="log", xlabel="rows (13 columns)", ylabel=name, ylim=(0, 1.25 * max(values)))
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(arguments.out, metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
