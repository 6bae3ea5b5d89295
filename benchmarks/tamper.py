"""The tamper matrix: what is found, what is located, what is a false alarm; beside MLflow's digest and DVC.

Every change of tests/dataset_guard/tamper_matrix.py is made in every format that can hold it and verified
against the registered version; every re-encoding likewise. *Located* means: the column, the very rows (or the
first of them) or the file are named. MLflow's dataset digest and ``dvc status`` see the Parquet cases of the
same run, and so does Hugging Face's dataset fingerprint; none can say where. ``--only`` runs one contestant:
what is caught does not depend on how busy the machine is, so the parts may be run apart.

Usage: python benchmarks/tamper.py [--rows N] [--only NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "dataset_guard"))

import tamper_matrix as matrix

from measure import Measure, machine, report, spent
from register import dvc_command


class Tally:
    """Counts, and the names of what went wrong."""

    def __init__(self) -> None:
        self.done = self.caught = self.located = 0
        self.wrong: list[str] = []

    def add(self, name: str, caught: bool, located: bool) -> None:
        self.done += 1
        self.caught += caught
        self.located += located
        if not (caught and located):
            self.wrong.append(f"{name}: {'not located' if caught else 'not caught'}")


def ours(rows: int, root: Path) -> tuple[Tally, Tally, float]:
    """(changes, re-encodings, CPU seconds of all verifications)."""
    import dataset_guard
    from guard_core.testing import temporary_home

    table = matrix.original(rows)
    changes, rewrites = Tally(), Tally()
    total = 0.0
    with temporary_home() as home:

        def verified(form: str, path: Path) -> Any:
            nonlocal total
            with spent() as cost:
                found = dataset_guard.verify(f"{form}@1", path=path, tenant="acme", home=home)
            total += cost.cpu_seconds
            return found

        for form in matrix.FORMATS:
            registered = matrix.write(table, form, root / form)
            dataset_guard.register(registered, name=form, tenant="acme", home=home, checks=["schema"])
            for change in matrix.CHANGES:
                if form in change.formats:
                    changed, expected = change.apply(table)
                    found = verified(form, matrix.write(changed, form, root / "now"))
                    changes.add(f"{form}: {change.name}", not found.ok, expected.located(found))
                    shutil.rmtree(root / "now")
            for name, (spoil, formats) in matrix.SPOILED.items():
                if form in formats:
                    target = root / "now" / registered.name
                    target.parent.mkdir()
                    (shutil.copytree if registered.is_dir() else shutil.copy)(registered, target)
                    spoil(target)
                    found = verified(form, target)
                    changes.add(f"{form}: {name}", not found.ok, matrix.names_a_file(found, registered))
                    shutil.rmtree(root / "now")
            for of, name, rewrite in matrix.REENCODINGS:
                if of == form:
                    found = verified(form, rewrite(table, root / "now"))
                    rewrites.add(name, found.ok, True)
                    shutil.rmtree(root / "now")
    return changes, rewrites, total


def peer(rows: int, root: Path, differs: Callable[[Path], bool]) -> tuple[int, int, int, int]:
    """(changes caught, changes, false alarms, re-encodings) over the Parquet cases."""
    table = matrix.original(rows)
    caught = changes = alarms = rewrites = 0
    for change in matrix.CHANGES:
        changed, _ = change.apply(table)
        caught += differs(matrix.write(changed, "parquet", root / "now"))
        changes += 1
        shutil.rmtree(root / "now")
    for of, name, rewrite in matrix.REENCODINGS:
        if of == "parquet" and "three files" not in name and "as arrow" not in name:
            alarms += differs(rewrite(table, root / "now"))
            rewrites += 1
            shutil.rmtree(root / "now")
    return caught, changes, alarms, rewrites


def mlflow_differs(original: Path) -> Callable[[Path], bool]:
    """MLflow's own digest of the frame, as ``mlflow.data.from_pandas`` computes it."""
    import mlflow.data
    import pandas as pd

    def digest(path: Path) -> str:
        frame = pd.read_parquet(path)
        text = [name for name, kind in frame.dtypes.items() if str(kind) in ("str", "string")]
        frame = frame.astype(dict.fromkeys(text, object))  # MLflow 3 cannot digest pandas 3's text
        return str(mlflow.data.from_pandas(frame, source="s").digest)

    known = digest(original)
    return lambda path: digest(path) != known


def dvc_differs(original: Path, folder: Path) -> Callable[[Path], bool]:
    """``dvc status`` of a repository that tracks the file."""
    command = str(dvc_command())
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [command, *words], cwd=folder, env=environment, capture_output=True, check=False
        )

    folder.mkdir()
    target = folder / "data.parquet"
    shutil.copy(original, target)
    for words in (["init", "--no-scm", "-q"], ["add", "-q", target.name]):
        run(*words).check_returncode()

    def differs(path: Path) -> bool:
        target.unlink()
        shutil.copy(path, target)
        return run("status", "-q").returncode != 0

    return differs


def huggingface_differs(original: Path, folder: Path, *, keep_time: bool) -> Callable[[Path], bool]:
    """The fingerprint of ``datasets.Dataset.from_parquet``, of a file at one path."""
    import datasets

    datasets.disable_progress_bars()
    folder.mkdir()
    target = folder / "data.parquet"

    def digest(path: Path) -> str:
        shutil.copy(path, target)
        if keep_time:
            os.utime(target, ns=(1_700_000_000 * 10**9,) * 2)
        try:
            found = datasets.Dataset.from_parquet(str(target), cache_dir=str(folder / "cache"))
        except (datasets.exceptions.DatasetsError, TypeError, ValueError, NotImplementedError):
            return "cannot be loaded"  # a type it does not know: seen, at least
        return str(found._fingerprint)

    known = digest(original)
    return lambda path: digest(path) != known


PEERS: dict[str, Callable[[Path, Path], Callable[[Path], bool]]] = {
    "MLflow digest": lambda original, _: mlflow_differs(original),
    "Hugging Face": lambda original, root: huggingface_differs(original, root / "hf", keep_time=False),
    "Hugging Face, time kept": lambda original, root: huggingface_differs(
        original, root / "hf", keep_time=True
    ),
    "dvc status": lambda original, root: dvc_differs(original, root / "repository"),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000, help="more than 65,536: several blocks")
    parser.add_argument("--peer-rows", type=int, default=20_000)
    parser.add_argument("--only", choices=["TrainGuard", *PEERS], action="append", help="may be repeated")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    chosen = arguments.only or ["TrainGuard", *PEERS]
    kinds = len(matrix.CHANGES) + len(matrix.SPOILED)
    print(f"machine: {machine()}")
    print(f"{kinds} changes, {len(matrix.REENCODINGS)} re-encodings, {arguments.rows:,} generated rows x 6\n")
    measures: list[Measure] = []
    fine = True
    if "TrainGuard" in chosen:
        with tempfile.TemporaryDirectory() as folder:
            changes, rewrites, seconds = ours(arguments.rows, Path(folder))
        alarms = [line.replace("not caught", "false alarm") for line in rewrites.wrong]
        for line in (*changes.wrong, *alarms):
            print(f"  {line}")
        fine = changes.caught == changes.located == changes.done and not alarms
        measures += [
            Measure("changes, kinds", kinds, "", target=">= 60", met=kinds >= 60),
            Measure("changes caught", 100 * changes.caught / changes.done, f"% of {changes.done}",
                    target="100", met=changes.caught == changes.done),
            Measure("changes located", 100 * changes.located / changes.done, f"% of {changes.done}",
                    target="100", met=changes.located == changes.done),
            Measure("false alarms on re-encodings", len(alarms), f"of {rewrites.done}", target="0",
                    met=not alarms and rewrites.done >= 40),
            Measure("one verification that must decode", seconds / (changes.done + rewrites.done), "CPU-s"),
        ]  # fmt: skip
    for name, opened in PEERS.items():
        if name not in chosen:
            continue
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            original = matrix.write(matrix.original(arguments.peer_rows), "parquet", root / "original")
            caught, done, false, harmless = peer(arguments.peer_rows, root, opened(original, root))
        measures += [
            Measure(f"{name}: changes caught (Parquet)", 100 * caught / done, f"% of {done}"),
            Measure(f"{name}: false alarms (Parquet)", false, f"of {harmless}"),
        ]
    report(measures, arguments.json)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
