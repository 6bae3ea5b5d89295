"""Poisoning detectors on real data with published attacks, beside activation clustering, spectral signatures
(ART, on the same features) and cleanlab's defaults, in the same run.

::

    python benchmarks/detect_poisoning.py --half reporting --only text --json out.json

Thresholds were tuned on ``--half tuning`` and frozen; the tables in docs/measures/poisoning.md are of
``reporting``. AP ranks rows by the detector's score; precision and recall are at the shipped settings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import attacks
import corpora
import labelled
import peer_art
from measure import Measure, median, report, spent

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

Scores = np.ndarray
TARGET = 1


def average_precision(truth: Scores, scores: Scores) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, scores))


def rated(found: Scores, truth: Scores) -> tuple[float, float]:
    """(precision, recall) of row numbers ``found``."""
    hits = len(np.intersect1d(found, truth))
    return (hits / len(found) if len(found) else 0.0), hits / len(truth)


# --- texts -----------------------------------------------------------------------------------------


def _row_scores(things: Any, codes: Scores, scored: Any) -> Scores:
    scores = np.zeros(things.rows)
    for i in np.argsort(scored.strength):
        rows = things.rows_of(int(scored.things[i]))
        rows = rows[codes[rows] == scored.targets[i]]
        scores[rows] = scored.strength[i]
    return scores


def _whole(texts: list[str], labels: Scores) -> tuple[Scores, Scores]:
    """(row scores, rows reported) without a trusted version."""
    from dataset_guard.checks.poisoning.ngrams import grams_of
    from dataset_guard.checks.poisoning.text_trigger import CHECK
    from dataset_guard.checks.poisoning.text_trigger_search import merged, score_whole

    things = grams_of(pa.array(texts))
    scored = score_whole(things, labels, int(labels.max()) + 1)
    found = [t.rows for t in merged(things, labels, scored, CHECK.limit)]
    return _row_scores(things, labels, scored), np.unique(np.concatenate([[], *found]).astype(int))


def _delta(before: Any, texts: list[str], labels: Scores) -> tuple[Scores, Scores]:
    """(row scores, rows reported) of an update, against ``before``: (texts, labels)."""
    from dataset_guard.checks.poisoning.ngrams import grams_of
    from dataset_guard.checks.poisoning.text_rest import class_counts
    from dataset_guard.checks.poisoning.text_trigger import CHECK
    from dataset_guard.checks.poisoning.text_trigger_search import score_delta, search_delta

    classes = int(max(before[1].max(), labels.max())) + 1
    known, new = grams_of(pa.array(before[0])), grams_of(pa.array(texts))
    found = search_delta(
        known, before[1], new, labels, classes, rounds=CHECK.rounds, margin=CHECK.margin, seed=0
    )
    scored = score_delta(
        class_counts(known, before[1], classes), np.bincount(before[1], minlength=classes), known.keys, new,
        labels, np.bincount(labels, minlength=classes),
    )  # fmt: skip
    return _row_scores(new, labels, scored), np.unique(
        np.concatenate([[], *(t.rows for t in found)]).astype(int)
    )


def _activations(texts: list[str], labels: Scores) -> Scores:
    """Hidden layer of a small network on TF-IDF: what ART's detectors look at."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neural_network import MLPClassifier

    bag = TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=50_000, sublinear_tf=True).fit_transform(
        texts
    )
    return _hidden(TruncatedSVD(100, random_state=0).fit_transform(bag), labels, MLPClassifier)


def _hidden(inputs: Scores, labels: Scores, network: Any) -> Scores:
    inputs = (inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-9)
    model = network((64,), max_iter=30, random_state=0, early_stopping=False).fit(inputs, labels)
    return np.maximum(inputs @ model.coefs_[0] + model.intercepts_[0], 0.0)


def _updates(corpus: labelled.Texts, seed: int) -> tuple[Any, Any]:
    """Four fifths as the trusted version, one fifth as the update."""
    order = np.random.default_rng(seed).permutation(len(corpus.texts))
    cut = len(order) // 5
    parts = [([corpus.texts[i] for i in at], corpus.labels[at]) for at in (order[cut:], order[:cut])]
    return parts[0], parts[1]


def texts(half: str, art: bool) -> Iterator[Measure]:
    corpora_of = {"tuning": labelled.TUNING_TEXTS, "reporting": labelled.REPORTING_TEXTS}[half]
    tricks = (("BadNets words", attacks.WORDS), ("AddSent", attacks.SENTENCE))
    alarms, updates, clean_runs, honest_runs = 0, 0, 0, 0
    for load in corpora_of:
        corpus = load()
        for title, phrases in tricks:
            done = attacks.text_trigger(
                corpus.texts, corpus.labels, phrases, rate=0.01, target=TARGET, seed=5
            )
            truth = np.isin(np.arange(len(done.labels)), done.rows)
            with spent() as cost:
                scores, found = _whole(done.data, done.labels)  # type: ignore[arg-type]
            precision, recall = rated(found, done.rows)
            peer, theirs = "", None
            if art:
                features = _activations(done.data, done.labels)  # type: ignore[arg-type]
                clusters, signature = peer_art.run(peer_art.environment(corpora.CACHE), features, done.labels)
                theirs = average_precision(truth, signature)
                pr = rated(np.flatnonzero(clusters), done.rows)
                peer = f"ART SS AP; AC P {pr[0]:.2f} R {pr[1]:.2f}"
            name = f"{corpus.name}, {title} 1 % of set"
            ap = average_precision(truth, scores)
            yield Measure(f"{name}: AP", ap, "", peer, theirs, None, ">= .98", ap >= 0.98)
            yield Measure(f"{name}: precision", precision, "")
            yield Measure(f"{name}: recall", recall, "")
            yield Measure(f"{name}: per 10,000 rows", cost.cpu_seconds / len(truth) * 1e4, "CPU-s")
        for clean in (False, True):
            for title, phrases in tricks:
                results = []
                for seed in (1, 2, 3):
                    before, update = _updates(corpus, seed)
                    done = attacks.text_trigger(
                        *update, phrases, rate=0.05, target=TARGET, seed=seed, clean=clean
                    )
                    scores, found = _delta(before, done.data, done.labels)  # type: ignore[arg-type]
                    truth = np.isin(np.arange(len(scores)), done.rows)
                    results.append((average_precision(truth, scores), *rated(found, done.rows)))
                name = f"{corpus.name}, delta 5 %, {title}{', clean-label' if clean else ''}"
                for what, values, least in zip(
                    ("AP", "precision", "recall"), zip(*results, strict=True), (0.98, 0.95, 0.95), strict=True
                ):
                    value = median(list(values))
                    yield Measure(
                        f"{name}: {what}", value, "median of 3", "", None, None, f">= {least}", value >= least
                    )
        random = np.random.default_rng(0)
        for _ in range(70):
            at = random.choice(len(corpus.texts), 1_000, replace=False)
            alarms += len(_whole([corpus.texts[i] for i in at], corpus.labels[at])[1]) > 0
            clean_runs += 1
        for seed in range(10, 18):
            before, update = _updates(corpus, seed)
            updates += len(_delta(before, *update)[1]) > 0
            honest_runs += 1
    yield Measure(
        "clean corpora with an alarm (whole set)",
        alarms / clean_runs,
        f"of {clean_runs}",
        "",
        None,
        None,
        "<= .01",
        alarms <= 0.01 * clean_runs,
    )
    yield Measure(
        "honest updates with an alarm (delta)",
        updates / honest_runs,
        f"of {honest_runs}",
        "",
        None,
        None,
        "<= .01",
        updates <= 0.01 * honest_runs,
    )


SECTIONS = {"text": texts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=["tuning", "reporting"], default="reporting")
    parser.add_argument("--only", choices=sorted(SECTIONS), action="append")
    parser.add_argument("--no-art", action="store_true", help="leave the peer out")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measures: list[Measure] = []
    for name in arguments.only or sorted(SECTIONS):
        measures += SECTIONS[name](arguments.half, not arguments.no_art)
    report(measures, arguments.json)


if __name__ == "__main__":
    main()
