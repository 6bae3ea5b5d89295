"""Everything about finding bad rows, part after part: what leaks, what is disclosed, what is poisoned.

``python benchmarks/detect.py`` runs :mod:`detect_leakage` and then :mod:`detect_poisoning`, each whole, in a
process of its own (hours on two cores). Their own options run parts: ``--only``, ``--documents``, ``--half``.
Thresholds were tuned on one half of the corpora and are frozen; what is printed is of the other.

Usage: python benchmarks/detect.py [--json FOLDER]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PARTS = ("detect_leakage", "detect_poisoning")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="folder for one JSON file a part")
    arguments = parser.parse_args()
    codes = []
    for part in PARTS:
        told = [] if arguments.json is None else ["--json", str(arguments.json / f"{part}.json")]
        codes.append(
            subprocess.run([sys.executable, str(Path(__file__).parent / f"{part}.py"), *told]).returncode
        )
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
