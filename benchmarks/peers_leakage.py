"""Runs inside the peers' environment: one peer on one input, its answer as JSON on stdout.

Usage: python peers_leakage.py TASK INPUT.parquet   (called by detect_leakage.py; needs no part of TrainGuard)
"""

from __future__ import annotations

import json
import re
import sys
import time

import pyarrow.parquet as pq

WORD = re.compile(r"\w+")
PERMUTATIONS, BANDS = 128, 16


def grams(text: str) -> list[str]:
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def datasketch(texts: list[str]) -> list[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=0.7, num_perm=PERMUTATIONS)
    pairs = []
    for i, text in enumerate(texts):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([g.encode() for g in grams(text)])
        pairs += [(j, i) for j in index.query(signature)]
        index.insert(i, signature)
    return pairs


def rensa(texts: list[str]) -> list[tuple[int, int]]:
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=0.7, num_perm=PERMUTATIONS, num_bands=BANDS)
    pairs = []
    for i, text in enumerate(texts):
        signature = RMinHash(num_perm=PERMUTATIONS, seed=42)
        signature.update(grams(text))
        pairs += [(j, i) for j in index.query(signature)]
        index.insert(i, signature)
    return pairs


def gaoya(texts: list[str]) -> list[tuple[int, int]]:
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(
        hash_size=32, jaccard_threshold=0.7, num_bands=BANDS, band_size=PERMUTATIONS // BANDS,
        num_hashes=PERMUTATIONS, analyzer="word", lowercase=True, ngram_range=(5, 5),
    )  # fmt: skip
    pairs = []
    for i, text in enumerate(texts):
        pairs += [(j, i) for j in index.query(text)]
        index.insert_document(i, text)
    return pairs


def presidio(texts: list[str]) -> list[tuple[int, str, str]]:
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine, SpacyNlpEngine  # noqa: F401

    class Blank(SpacyNlpEngine):
        """Tokens only: no model, so the patterns are all that is paid for."""

        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}
            self.nlp["en"].max_length = 10_000_000

        def load(self) -> None: ...

    engine = AnalyzerEngine(nlp_engine=Blank(), supported_languages=["en"])
    kinds = ["CREDIT_CARD", "IBAN_CODE", "CRYPTO", "EMAIL_ADDRESS", "PHONE_NUMBER", "US_SSN"]
    return [
        (i, hit.entity_type, re.sub(r"[ -]", "", text[hit.start : hit.end]))
        for i, text in enumerate(texts)
        for hit in engine.analyze(text=text, language="en", entities=kinds)
    ]


def detect_secrets(texts: list[str]) -> list[tuple[int, str]]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import default_settings

    found = []
    with default_settings():
        get_mapping_from_secret_type_to_class()
        for i, text in enumerate(texts):
            for line in text.splitlines():
                found += [(i, secret.type) for secret in scan_line(line)]
    return found


def deepchecks(train: str, test: str) -> float:
    import pandas as pd
    from deepchecks.tabular import Dataset
    from deepchecks.tabular.checks import TrainTestSamplesMix

    sets = [Dataset(pd.read_parquet(path), label="label", cat_features=[]) for path in (train, test)]
    begun = time.process_time()
    TrainTestSamplesMix().run(*sets)
    return time.process_time() - begun


def cleanlab(path: str) -> list[int]:
    """Rows that ``find_label_issues`` names with its defaults; columns c0 ... are out-of-fold chances."""
    import numpy as np
    from cleanlab.filter import find_label_issues

    table = pq.read_table(path)
    given = table["given"].to_numpy()
    chances = np.stack([table[n].to_numpy() for n in table.schema.names if n != "given"], axis=1)
    return [int(i) for i in np.flatnonzero(find_label_issues(given, chances, n_jobs=1))]


def imagehash(path: str) -> list[int]:
    import numpy as np
    from imagehash import phash
    from PIL import Image

    raw = pq.read_table(path)["thumb"].to_pylist()
    hashes = []
    for value in raw:
        grey = Image.fromarray(np.frombuffer(value, np.uint8).reshape(32, 32))
        hashes.append(int(str(phash(grey)), 16))
    return hashes


if __name__ == "__main__":
    task, path = sys.argv[1], sys.argv[2]
    if task == "deepchecks":
        answer, spent = None, deepchecks(path, sys.argv[3])
    elif task in ("imagehash", "cleanlab"):
        begun = time.process_time()
        answer = globals()[task](path)
        spent = time.process_time() - begun
    else:
        texts = pq.read_table(path)["text"].to_pylist()
        work = globals()[task]
        work(texts[:3])  # imports and first calls are not charged
        begun = time.process_time()
        answer = work(texts)
        spent = time.process_time() - begun
    json.dump({"answer": answer, "cpu_seconds": spent}, sys.stdout)
