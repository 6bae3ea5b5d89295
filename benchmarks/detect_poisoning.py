"""Poisoning detectors on real data with published attacks, beside activation clustering, spectral signatures
(ART, on the same features) and cleanlab's defaults, in the same run.

::

    python benchmarks/detect_poisoning.py --half reporting --only text --json out.json

Thresholds were tuned on ``--half tuning`` and frozen; the tables in docs/measures/poisoning.md are of
``reporting``. AP ranks rows by the detector's score; precision and recall are at the shipped settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import attacks
import corpora
import labelled
import peer_art
import poisoning_cases
from measure import Measure, machine, median, report, spent

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


LEAST = 3.0


def _row_scores(rows: int, triggers: list[Any]) -> Scores:
    """A score per row: the strength of the strongest trigger that it carries, however weak (``LEAST``)."""
    scores = np.zeros(rows)
    for trigger in triggers:
        scores[trigger.rows] = np.maximum(scores[trigger.rows], trigger.strength)
    return scores


def _whole(texts: list[str], labels: Scores) -> tuple[Scores, Scores]:
    """(row scores, rows reported) without a trusted version."""
    from dataset_guard.checks.poisoning.ngrams import grams_of
    from dataset_guard.checks.poisoning.text_seams import Seams
    from dataset_guard.checks.poisoning.text_trigger import CHECK
    from dataset_guard.checks.poisoning.text_trigger_search import score_whole

    things = grams_of(pa.array(texts), written=True)
    scored = score_whole(things, labels, int(labels.max()) + 1, seams=Seams(pa.array(texts)))
    return _scores_and_rows(pa.array(texts), things, labels, scored, CHECK.limit)


def _delta(before: Any, texts: list[str], labels: Scores) -> tuple[Scores, Scores]:
    """(row scores, rows reported) of an update, against ``before``: (texts, labels)."""
    from dataset_guard.checks.poisoning.text_apart import grams_since
    from dataset_guard.checks.poisoning.text_seams import Seams
    from dataset_guard.checks.poisoning.text_trigger import CHECK
    from dataset_guard.checks.poisoning.text_trigger_update import delta_scores

    classes = int(max(before[1].max(), labels.max())) + 1
    known, new = grams_since(pa.array(before[0]), pa.array(texts))
    scored, limit = delta_scores(
        known, before[1], new, labels, classes, rounds=CHECK.rounds, margin=CHECK.margin, seed=0, share=0.0,
        seams=Seams(pa.array([*before[0], *texts])),
    )  # fmt: skip
    return _scores_and_rows(pa.array(texts), new, labels, scored, limit)


def _scores_and_rows(
    texts: pa.Array, things: Any, labels: Scores, scored: Any, limit: float
) -> tuple[Scores, Scores]:
    """(row scores, rows reported); a further word of an attack is ranked by its own, lower limit."""
    from dataset_guard.checks.poisoning.text_context import planted, planted_among
    from dataset_guard.checks.poisoning.triggers import merged

    ranked = _row_scores(len(labels), planted(texts, merged(things, labels, scored, LEAST)))
    named = planted_among(texts, things, labels, scored, limit)
    for trigger in named:
        ranked[trigger.rows] = np.maximum(ranked[trigger.rows], trigger.strength * limit / trigger.limit)
    return ranked, np.unique(np.concatenate([[], *(t.rows for t in named)]).astype(int))


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
    model = network((64,), max_iter=12, random_state=0, early_stopping=False).fit(inputs, labels)
    return np.maximum(inputs @ model.coefs_[0] + model.intercepts_[0], 0.0)


def _updates(corpus: labelled.Texts, seed: int) -> tuple[Any, Any]:
    """4,000 rows as the trusted version and 1,000 as the update (or four fifths and one fifth)."""
    order = np.random.default_rng(seed).permutation(len(corpus.texts))[:5_000]
    cut = len(order) // 5
    parts = [([corpus.texts[i] for i in at], corpus.labels[at]) for at in (order[cut:], order[:cut])]
    return parts[0], parts[1]


TRICKS = (("BadNets words", attacks.WORDS), ("AddSent", attacks.SENTENCE))


def texts(half: str, art: bool, only: str | None) -> Iterator[Measure]:
    """Triggers in texts: 1 % of the whole set, 5 % of an update, and alarms on clean data."""
    for load in {"tuning": labelled.TUNING_TEXTS, "reporting": labelled.REPORTING_TEXTS}[half]:
        if only in (None, load.__name__):
            corpus = load()
            yield from _whole_sets(corpus, art)
            yield from _deltas(corpus)
            yield from _clean_texts(corpus)


def _whole_sets(corpus: labelled.Texts, art: bool) -> Iterator[Measure]:
    for title, phrases in TRICKS:
        done = attacks.text_trigger(corpus.texts, corpus.labels, phrases, rate=0.01, target=TARGET, seed=5)
        truth = np.isin(np.arange(len(done.labels)), done.rows)
        with spent() as cost:
            scores, found = _whole(done.data, done.labels)  # type: ignore[arg-type]
        name = f"{corpus.name}, {title} 1 %"
        yield _ranked(f"{name}: AP", average_precision(truth, scores), 0.98)
        precision, recall = rated(found, done.rows)
        yield Measure(f"{name}: precision", precision, "")
        yield Measure(f"{name}: recall", recall, "")
        yield Measure(f"{name}: cost per 10,000 rows", cost.cpu_seconds / len(truth) * 1e4, "CPU-s")
        if art:
            features = _activations(done.data, done.labels)  # type: ignore[arg-type]
            clusters, signature = peer_art.run(peer_art.environment(corpora.CACHE), features, done.labels)
            yield Measure(f"{name}: AP of spectral signatures", average_precision(truth, signature), "ART")
            precision, recall = rated(np.flatnonzero(clusters), done.rows)
            yield Measure(f"{name}: activation clustering, precision", precision, "ART")
            yield Measure(f"{name}: activation clustering, recall", recall, "ART")


def _ranked(name: str, value: float, least: float, unit: str = "") -> Measure:
    return Measure(name, value, unit, "", None, None, f">= {least}", value >= least)


def _deltas(corpus: labelled.Texts) -> Iterator[Measure]:
    for clean in (False, True):
        for title, phrases in TRICKS:
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
            ap, precision, recall = (median(list(values)) for values in zip(*results, strict=True))
            yield _ranked(f"{name}: AP", ap, 0.98, "median of 3")
            yield _ranked(f"{name}: precision", precision, 0.95, "median of 3")
            yield _ranked(f"{name}: recall", recall, 0.95, "median of 3")


def _clean_texts(corpus: labelled.Texts) -> Iterator[Measure]:
    """How many clean sets get any finding, a warning or more, and a critical one.

    The sets are drawn with another seed than those (0 and 1) on which it was chosen what a warning is.
    """
    random, found, updates = np.random.default_rng(2), [], 0
    for _ in range(70):
        at = random.choice(len(corpus.texts), 800, replace=False)
        found.append(_severities([corpus.texts[i] for i in at], corpus.labels[at]))
    found.append(_severities(corpus.texts, corpus.labels))
    for seed in range(10, 20):
        before, update = _updates(corpus, seed)
        updates += len(_delta(before, *update)[1]) > 0
    kinds = {
        "findings": {"info", "warning", "critical"},
        "warnings or more": {"warning", "critical"},
        "critical findings": {"critical"},
    }
    for title, kind in kinds.items():
        number = sum(bool(severities & kind) for severities in found)
        yield Measure(
            f"{corpus.name}, clean: {title} in {len(found)} sets",
            number,
            "",
            target="<= 1 %",
            met=number <= 0.01 * len(found),
        )
    yield Measure(
        f"{corpus.name}, honest: alarms in 10 updates", updates, "", "", None, None, "0", updates == 0
    )


def _severities(texts: list[str], labels: Scores) -> set[str]:
    """Severities of the triggers that the whole-set search reports."""
    from dataset_guard.checks.poisoning.ngrams import grams_of
    from dataset_guard.checks.poisoning.text_context import planted_among
    from dataset_guard.checks.poisoning.text_seams import Seams
    from dataset_guard.checks.poisoning.text_trigger import CHECK
    from dataset_guard.checks.poisoning.text_trigger_search import score_whole

    given = pa.array(texts)
    things = grams_of(given, written=True)
    scored = score_whole(things, labels, int(labels.max()) + 1, seams=Seams(given))
    found = planted_among(given, things, labels, scored, CHECK.limit)
    return {CHECK.severity(trigger, delta=False).value for trigger in found}


SECTIONS: dict[str, Callable[[str, bool, str | None], Iterator[Measure]]] = {
    "floods": lambda half, _, only: poisoning_cases.floods(half, only),
    "images": lambda half, _, only: poisoning_cases.images(half, only),
    "labels": lambda half, _, only: poisoning_cases.labels(half, only),
    "rates": lambda half, _, only: poisoning_cases.rates(half, only),
    "sources": lambda half, _, only: poisoning_cases.sources(half, only),
    "tables": lambda half, _, only: poisoning_cases.tables(half, only),
    "text": texts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=["tuning", "reporting"], default="reporting")
    parser.add_argument("--only", choices=sorted(SECTIONS), action="append")
    parser.add_argument("--no-art", action="store_true", help="leave the peer out")
    parser.add_argument(
        "--corpus",
        help="one corpus only, by its function in labelled.py (images: whole, updates, pixels, png, jpeg)",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"machine: {machine()}")
    measures: list[Measure] = []
    for name in arguments.only or sorted(SECTIONS):
        for measure in SECTIONS[name](arguments.half, not arguments.no_art, arguments.corpus):
            print(f"{measure.name}: {measure.value:.3f} {measure.unit}", flush=True)  # a run may be cut short
            measures.append(measure)
    report(measures, arguments.json)


if __name__ == "__main__":
    main()
