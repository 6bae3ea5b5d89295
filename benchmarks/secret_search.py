"""How fast text is searched for secrets (PRIV001) and personal data (PRIV010), beside Python's ``re``.

The text is real: the Python sources and documents of the installed packages, with made-up secrets
planted into one document in a hundred. ``re`` gets the same first-stage patterns over the same bytes.

Usage: python benchmarks/secret_search.py [--mib 64] [--repeat 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataset_guard.checks.privacy import personal_data, secrets
from dataset_guard.checks.privacy.secret_kinds import ANCHOR, ASSIGNED
from dataset_guard.checks.privacy.text_buffers import text_buffers
from measure import Measure, cpu_seconds, machine, median, report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/dataset_guard/checks/privacy"))
from made_secrets import MAKERS


def documents(limit: int) -> list[str]:
    """Text files of the installed packages, up to ``limit`` bytes in all."""
    taken: list[str] = []
    size = 0
    for suffix in ("*.py", "*.txt", "*.md", "*.rst"):
        for path in sorted(Path(sysconfig.get_path("purelib")).rglob(suffix)):
            if size >= limit:
                return taken
            text = path.read_text(errors="replace")
            size += len(text.encode())
            taken.append(text)
    return taken


def planted(texts: list[str], seed: int = 0) -> tuple[list[str], set[int]]:
    """The texts with a secret in every hundredth, and which those are."""
    rng = random.Random(seed)
    rows = set(range(50, len(texts), 100))
    kinds = sorted(MAKERS)
    out = list(texts)
    for n, row in enumerate(sorted(rows)):
        at = out[row].find("\n") + 1
        out[row] = f"{out[row][:at]}{MAKERS[kinds[n % len(kinds)]](rng)}\n{out[row][at:]}"
    return out, rows


def rate(size: int, repeat: int, work: Callable[[], Any]) -> float:
    """MB per CPU-second, median of ``repeat`` runs after one that does not count."""
    work()
    spent = []
    for _ in range(repeat):
        start = cpu_seconds()
        work()
        spent.append(cpu_seconds() - start)
    return size / 1e6 / median(spent)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"machine: {machine()}\n")
    clean = documents(arguments.mib << 20)
    texts, rows = planted(clean)
    column = pa.array(texts, pa.large_string())
    (buffer,) = text_buffers(column)
    whole = bytes(buffer.data)
    size = len(whole)
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB, {len(rows)} with a planted secret\n")

    first_stage = (ANCHOR, ASSIGNED[-1].anchor)
    ours = rate(size, arguments.repeat, lambda: [list(buffer.hits(p)) for p in first_stage])
    part = whole[: 4 << 20]
    python = [re.compile(p) for p in first_stage]
    theirs = rate(len(part), 1, lambda: [sum(1 for _ in p.finditer(part)) for p in python])
    both = rate(size, arguments.repeat, lambda: secrets.find(buffer))
    persons = rate(size, arguments.repeat, lambda: list(personal_data.find(buffer)))

    found = secrets.find(buffer)
    (plain,) = text_buffers(pa.array(clean, pa.large_string()))
    alarms = {f.item for f in secrets.find(plain)}
    believed = {f.item for f in secrets.find(plain) if f.belief is secrets.Belief.VALID}
    recall = len(rows & {f.item for f in found}) / len(rows)
    report(
        [
            Measure(
                "secrets, first stage",
                ours,
                "MB/CPU-s",
                "re, same patterns",
                theirs,
                ours / theirs,
                ">= 20",
                ours >= 20,
            ),
            Measure("secrets, both stages", both, "MB/CPU-s", target=">= 20", met=both >= 20),
            Measure("personal data, both stages", persons, "MB/CPU-s", target=">= 20", met=persons >= 20),
            Measure("planted secrets found", 100 * recall, "%", target=">= 99", met=recall >= 0.99),
            Measure("documents critical before planting", len(believed), f"of {len(clean)}"),
            Measure("documents critical or warned of", len(alarms), f"of {len(clean)}"),
        ],
        arguments.json,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
