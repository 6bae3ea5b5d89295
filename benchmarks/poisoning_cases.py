"""Images, labels and tables of the poisoning benchmark (texts: :mod:`detect_poisoning`, which prints all).

Images and tables go through the checks as a scan runs them: what is rated are the rows of the findings.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import attacks
import corpora
import labelled
from dataset_guard.checks.base import CheckContext
from dataset_guard.reading import Source, open_source
from dataset_guard.scanning.scan import scan_source
from detect_leakage import ask, edited
from measure import Measure, median, spent

KEY = bytes(32)
TARGET = 1
IMAGES = 4_000
NEW, KNOWN = 1_000, 4_000


class Trusted:
    """A table as a registered version."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.label, self.split, self.ref = table, "label", None, "acme/set@1"
        self.profile: dict[str, Any] = {}

    def _hashes(self) -> list[Any]:
        from dataset_guard.hashing.rowhash import RowHasher

        hasher = RowHasher(self.table.schema, key=KEY, label=self.label)
        return [hasher.hash(b) for b in self.table.combine_chunks().to_batches()]

    def row_hashes(self) -> Any:
        return np.concatenate([h.keyed for h in self._hashes()])

    def feature_hashes(self) -> Any:
        return np.concatenate([h.features for h in self._hashes()])

    def open(self) -> Source:
        return open_source(self.table)


def _named(table: pa.Table, check: str, rule: str) -> np.ndarray:
    """1 for each row that a finding of ``rule`` names."""
    context = CheckContext(schema=table.schema, label="label", name="set", tenant="acme")
    named = np.zeros(table.num_rows)
    for finding in scan_source(open_source(table), context, row_key=KEY, checks=[check]).findings:
        if finding.rule_id == rule:
            named[np.array(list(finding.rows), np.int64)] = 1.0
    return named


def scanned(table: pa.Table, checks: list[str], trusted: pa.Table | None = None) -> np.ndarray:
    """A score per row: that of the strongest finding of these checks that names it, else 0."""
    context = CheckContext(
        schema=table.schema, label="label", name="set", tenant="acme",
        baseline=None if trusted is None else Trusted(trusted),
    )  # fmt: skip
    scores = np.zeros(table.num_rows)
    for finding in scan_source(open_source(table), context, row_key=KEY, checks=checks).findings:
        rows = np.array(list(finding.rows), np.int64)
        scores[rows] = np.maximum(scores[rows], finding.score or 0.0)
    return scores


def _rated(
    name: str, results: list[tuple[np.ndarray, np.ndarray]], target: float | None
) -> Iterator[Measure]:
    """Medians over (scores, poisoned rows): AP of the ranking, precision and recall of what was named."""
    from sklearn.metrics import average_precision_score

    found = []
    for scores, rows in results:
        truth = np.isin(np.arange(len(scores)), rows)
        named = scores > 0
        hits = (named & truth).sum()
        found.append(
            (average_precision_score(truth, scores), hits / max(1, named.sum()), hits / max(1, truth.sum()))
        )
    ap, precision, recall = (median([float(v) for v in values]) for values in zip(*found, strict=True))
    least = "" if target is None else f">= {target}"
    yield Measure(f"{name}: AP", ap, "", "", None, None, least, None if target is None else ap >= target)
    yield Measure(f"{name}: precision", precision, "")
    yield Measure(f"{name}: recall", recall, "")


# --- images ----------------------------------------------------------------------------------------


def _pictures(images: np.ndarray, labels: np.ndarray) -> pa.Table:
    flat = images.reshape(len(images), -1)
    columns = {f"pixel_{i}": flat[:, i] for i in range(flat.shape[1])}
    return pa.table({**columns, "label": labels.astype(np.int64)})


def _files(images: np.ndarray, labels: np.ndarray, *, side: int | None = None) -> pa.Table:
    """As a folder of files is read: PNG as they are, or JPEG (quality 85) of ``side`` x ``side`` pixels."""
    from PIL import Image

    encoded = []
    for pixels in images.astype(np.uint8):
        picture, out = Image.fromarray(pixels), io.BytesIO()
        if side is None:
            picture.save(out, "PNG")
        else:
            picture.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
        encoded.append(out.getvalue())
    return pa.table({"image": pa.array(encoded, pa.binary()), "label": labels.astype(np.int64)})


def images(half: str, only: str | None) -> Iterator[Measure]:
    """The same attacks on pixels in columns, on PNG files, and on JPEG files eight times as large."""
    forms: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], pa.Table]]] = {
        "pixels": ("images", _pictures),
        "png": ("PNG files", _files),
        "jpeg": ("JPEG files of 224 x 224", partial(_files, side=224)),
    }
    for form, (name, made) in forms.items():
        if only in (None, form, "whole", "updates"):
            yield from _images(half, only, name, made)


def _images(
    half: str, only: str | None, kind: str, made: Callable[[np.ndarray, np.ndarray], pa.Table]
) -> Iterator[Measure]:
    """Patches, located and roaming, labels changed or right, and blended pictures; halves share no image."""
    every, every_label = corpora.fashion_mnist("train" if half == "tuning" else "test")
    pixels, labels = every[:IMAGES], every_label[:IMAGES].astype(np.int64)
    later, later_label = every[IMAGES : IMAGES + NEW], every_label[IMAGES : IMAGES + NEW].astype(np.int64)
    checks = ["trigger_patch", "roaming_patch", "blended_image"]
    cases: list[tuple[str, float | None, Callable[[Any, Any], attacks.Poisoned]]] = [
        ("located patch, 1 %", 0.95, lambda x, y: attacks.patch(x, y, rate=0.01, target=TARGET, seed=5)),
        ("patch at a random place, 1 %", 0.8,
         lambda x, y: attacks.patch(x, y, rate=0.01, target=TARGET, seed=5, random_place=True)),
        ("located patch, labels right, 5 %", 0.95,
         lambda x, y: attacks.patch(x, y, rate=0.05, target=TARGET, seed=5, clean=True)),
        ("blended over the whole image, 5 %", None,
         lambda x, y: attacks.blend(x, y, rate=0.05, target=TARGET, seed=5)),
    ]  # fmt: skip
    for name, target, attack in cases:
        if only == "updates":
            break
        done = attack(pixels, labels)
        with spent() as cost:
            scores = scanned(made(done.data, done.labels), checks)  # type: ignore[arg-type]
        yield from _rated(f"{kind}, {name}", [(scores, done.rows)], target)
        yield Measure(f"{kind}, {name}: cost", cost.cpu_seconds / IMAGES * 1e4, "CPU-s per 10,000")
    trusted = made(pixels, labels)
    for name, target, attack in cases if only != "whole" else ():
        if "1 %" in name and "random" not in name:
            continue
        done = attack(later, later_label)
        new = made(done.data, done.labels)  # type: ignore[arg-type]
        scores = scanned(pa.concat_tables([trusted, new]), checks, trusted)[IMAGES:]
        yield from _rated(f"{kind}, update of {NEW:,}, {name}", [(scores, done.rows)], target and 0.98)
    honest = int(scanned(pa.concat_tables([trusted, made(later, later_label)]), checks, trusted).any())
    alarms = int(scanned(trusted, checks).any())
    yield Measure(
        f"{kind}, clean: alarms in 1 set and 1 update",
        alarms + honest,
        "",
        target="0",
        met=not alarms + honest,
    )


# --- labels ----------------------------------------------------------------------------------------


def _noise(kind: str, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if kind == "uniform":
        return attacks.flipped(labels, rate=0.05, seed=seed)
    if kind == "next class":
        return attacks.paired(labels, rate=0.05, seed=seed)
    return attacks.targeted(labels, rate=0.05, seed=seed)


def labels(half: str, only: str | None) -> Iterator[Measure]:
    """5 % of the labels moved, by three plans; F1 of the rows named, beside cleanlab's defaults."""
    from dataset_guard.checks.poisoning.wrong_labels import wrong_labels

    better, held = [], []
    for load in LABELLED[half]:
        if only not in (None, load.__name__):
            continue
        table = _as_table(load())
        for kind in ("uniform", "next class", "one class to one other"):
            given, rows = _noise(kind, table.labels, 1)
            suspects = table.features.append_column("label", pa.array(given))
            with spent() as cost:
                found = wrong_labels(
                    suspects, suspects.slice(0, 0), label="label", max_classes=200, fdr_limit=0.3, seed=0
                )
            named = np.empty(0, np.int64)
            if not isinstance(found, str):  # what POIS002 and POIS003 name together
                named = np.unique(np.concatenate([found.rows, *(a.rows for a in found.aimed)])).astype(
                    np.int64
                )
            ours, false = _f1(named, rows)
            theirs, _ = _f1(np.array(_cleanlab(table.features, given), np.int64), rows)
            better.append(ours - theirs)
            lists: list[Any] = [] if isinstance(found, str) else [found, *found.aimed]
            stated = max((one.fdr for one in lists if len(one.rows)), default=1.0)
            held.append(false <= stated + 0.05 or not len(named))
            yield Measure(
                f"labels, {table.name}, {kind}: F1", ours, "", "cleanlab defaults", theirs, None, ">= peer",
                ours >= theirs,
            )  # fmt: skip
            yield Measure(
                "  false alarms, true", false, f"stated {stated:.2f}", target="<= stated + .05", met=held[-1]
            )
            yield Measure("  cost", cost.cpu_seconds, "CPU-s")
    mean = float(np.mean(better))
    yield Measure("labels: F1 above cleanlab, mean", mean, "", target=">= 0.07", met=mean >= 0.07)


def rates(half: str, only: str | None) -> Iterator[Measure]:
    """Does the rate that POIS002 states hold? Many tables of R packages, unchanged and with 5 % flipped.

    At most 2,500 rows of each table that has 600 and four columns or more and a label that varies.
    """
    from dataset_guard.checks.poisoning.label_errors import WARNED_MOST
    from dataset_guard.checks.poisoning.wrong_labels import wrong_labels

    tables, unchanged, warned, lists, f1 = 0, 0, 0, [], []
    for corpus in corpora.clean_tables(half):  # type: ignore[arg-type]
        table, label = corpus.table, corpus.label
        if label is None or table.num_rows < 600 or table.num_columns < 4 or only not in (None, corpus.name):
            continue
        table = table.take(pa.array(np.sort(np.random.default_rng(0).permutation(table.num_rows)[:2_500])))
        table = table.filter(table[label].is_valid())
        codes = np.unique([str(v) for v in table[label].to_pylist()], return_inverse=True)[1]
        if len(codes) < 600 or np.bincount(codes).max() > 0.95 * len(codes):
            continue
        for given, rows in ((codes, np.empty(0, np.int64)), attacks.flipped(codes, rate=0.05, seed=1)):
            suspects = table.drop_columns([label]).append_column("label", pa.array(given))
            found = wrong_labels(
                suspects, suspects.slice(0, 0), label="label", max_classes=200, fdr_limit=0.3, seed=0
            )
            if isinstance(found, str):
                break
            score, false = _f1(found.rows, rows)
            if not len(rows):
                tables, unchanged = tables + 1, unchanged + bool(len(found.rows))
                warned += bool(len(found.rows)) and found.expected_fdr <= 0.3 and found.fdr <= WARNED_MOST
                continue
            f1.append(score)
            if len(found.rows):
                lists.append((false, found.expected_fdr, found.fdr))
    true, expected, stated = np.array(lists).T
    telling = stated <= 0.75  # a list that states more says that nothing is known of it
    yield Measure("rates: tables", tables, "")
    yield Measure("rates: of them unchanged, with any label named", unchanged, "")
    yield Measure("rates: and as a warning", warned, "")
    yield Measure("rates: lists on tables with 5 % flipped", len(true), "")
    yield Measure("rates: true rate less the expected one, mean", float(np.mean(true - expected)), "")
    yield Measure("rates: true rate less the stated one, mean", float(np.mean(true - stated)), "")
    for name, some in (("", np.ones(len(true), bool)), (" that state .75 or less", telling)):
        held = float(np.mean(true[some] <= stated[some] + 0.05))
        yield Measure(f"rates: true rate at most 5 points above, of the {some.sum()} lists{name}", held, "")
    yield Measure("rates: F1, mean over all tables", float(np.mean(f1)), "")


LABELLED: dict[str, tuple[Callable[[], labelled.Table | labelled.Texts], ...]] = {
    "tuning": (*labelled.TUNING_TABLES, *labelled.TUNING_TEXTS),
    "reporting": (*labelled.REPORTING_TABLES, *labelled.REPORTING_TEXTS),
}


def _as_table(corpus: labelled.Table | labelled.Texts) -> labelled.Table:
    """Texts as a table of one column: 4,000 of them, drawn by a fixed seed."""
    if isinstance(corpus, labelled.Table):
        return corpus
    some = np.sort(np.random.default_rng(0).permutation(len(corpus.texts))[:4_000])
    return labelled.Table(
        corpus.name, pa.table({"text": [corpus.texts[i] for i in some]}), corpus.labels[some]
    )


def _f1(named: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    hits = len(np.intersect1d(named, rows))
    return 2 * hits / max(1, len(named) + len(rows)), 1 - hits / max(1, len(named))


def _cleanlab(features: pa.Table, given: np.ndarray) -> list[int]:
    """What cleanlab's ``find_label_issues`` names on out-of-fold chances.

    They are those of a random forest, or of a logistic regression on the words of texts.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    from dataset_guard.checks.features import matrix_of

    model, inputs = RandomForestClassifier(100, random_state=0), matrix_of(features, None)
    if features.schema.names == ["text"]:
        bag = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        model, inputs = LogisticRegression(max_iter=300), bag.fit_transform(features["text"].to_pylist())
    chances = cross_val_predict(model, inputs, given, cv=5, method="predict_proba")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chances.parquet"
        columns = {f"c{i}": chances[:, i] for i in range(chances.shape[1])}
        pq.write_table(pa.table({**columns, "given": given}), path)
        return list(ask("cleanlab", path)["answer"])


# --- tables ----------------------------------------------------------------------------------------


def tables(half: str, only: str | None) -> Iterator[Measure]:
    """Two columns set to ordinary values in 1 and 5 % of a set, and 5 % of an update; and nothing set."""
    alarms = updates = 0
    for load in labelled.TUNING_TABLES if half == "tuning" else labelled.REPORTING_TABLES:
        if only not in (None, load.__name__) or load is labelled.digits:  # pixels are the images' business
            continue
        table = load()
        names = [n for n in table.features.schema.names if _numeric(table.features.schema.field(n).type)]
        features = np.stack([table.features[n].to_numpy().astype(np.float64) for n in names], axis=1)
        if sum(len(np.unique(c)) > 10 for c in features.T) < 2:
            continue
        for rate in (0.01, 0.05):
            results = []
            for seed in (1, 2, 3):
                done = attacks.pair_trigger(features, table.labels, rate=rate, target=TARGET, seed=seed)
                scores = scanned(_columns(names, done.data, done.labels), ["table_trigger"])
                results.append((scores, done.rows))
            yield from _rated(f"tables, {table.name}, whole set, pair of values {rate:.0%}", results, 0.98)
        alone = scanned(_columns(names, features, table.labels), ["table_trigger"]).any()
        yield Measure(f"tables, {table.name}, clean: alarm", int(alone), "", target="0", met=not alone)
        for clean in (False, True):
            results = []
            for seed in (1, 2, 3):
                before, after = _halved(len(features), seed)
                done = attacks.pair_trigger(
                    features[after], table.labels[after], rate=0.05, target=TARGET, seed=seed, clean=clean
                )
                results.append(
                    (_update(names, features, table.labels, before, done.data, done.labels), done.rows)
                )
            title = f"tables, {table.name}, update, pair of values 5 %{', labels right' if clean else ''}"
            yield from _rated(title, results, 0.98)
        for seed in range(10, 15):
            before, after = _halved(len(features), seed)
            updates += 1
            alarms += int(
                _update(names, features, table.labels, before, features[after], table.labels[after]).any()
            )
    yield Measure(f"tables, honest: alarms in {updates} updates", alarms, "", target="0", met=alarms == 0)


# --- floods ----------------------------------------------------------------------------------------


def floods(half: str, only: str | None) -> Iterator[Measure]:
    """One of 20 sources sends edited copies of three of its texts, 1 % of the set; and sets without one."""
    for load in labelled.TUNING_TEXTS if half == "tuning" else labelled.REPORTING_TEXTS:
        if only not in (None, load.__name__):
            continue
        corpus = load()
        alarms = 0
        for edits in (0.02, 0.05, 0.1, None):
            results = []
            for seed in range(3 if edits is not None else 20):
                random = np.random.default_rng(seed)
                at = random.choice(len(corpus.texts), min(4_000, len(corpus.texts)), replace=False)
                texts = [corpus.texts[i] for i in at]
                sources = random.integers(0, 20, len(texts))
                if edits is not None:
                    spare = " ".join(texts[:50]).split()
                    some = [i for i in range(len(texts)) if len(texts[i].split()) >= 12][:3]
                    count = len(texts) // 100
                    texts += [
                        " ".join(edited(texts[some[i % 3]].split(), edits, random, spare))
                        for i in range(count)
                    ]
                    sources = np.concatenate([sources, np.full(count, 7)])
                table = pa.table({"text": texts, "source": sources, "label": np.zeros(len(texts), np.int64)})
                scores = scanned(table, ["flooding"])
                results.append((scores, np.arange(len(at), len(texts))))
                alarms += edits is None and bool(scores.any())
            if edits is not None:
                yield from _rated(f"floods, {corpus.name}, {edits:.0%} of the words edited", results, None)
        yield Measure(
            f"floods, {corpus.name}: alarms in 20 sets without", alarms, "", target="0", met=alarms == 0
        )


# --- sources ---------------------------------------------------------------------------------------


def sources(half: str, only: str | None) -> Iterator[Measure]:
    """Half of the labels of one of 20 sources moved, at random or to one class; and none moved."""
    loads = labelled.TUNING_TABLES if half == "tuning" else labelled.REPORTING_TABLES
    for load in loads:
        if only not in (None, load.__name__):
            continue
        table = load()
        classes = int(table.labels.max()) + 1
        alarms = 0
        for plan in ("at random", "to one class", None):
            results = []
            for seed in range(2 if plan else 5):
                random = np.random.default_rng(seed)
                at = np.sort(random.permutation(len(table.labels))[:2_000])
                given, source = table.labels[at].copy(), random.integers(0, 20, len(at))
                moved = np.flatnonzero(source == 7)[::2]
                if plan == "at random":
                    given[moved] = (given[moved] + random.integers(1, classes, len(moved))) % classes
                elif plan:
                    moved = moved[given[moved] != TARGET]
                    given[moved] = TARGET
                whole = table.features.take(pa.array(at)).append_column("source", pa.array(source))
                found = _named(whole.append_column("label", pa.array(given)), "label_errors", "POIS004")
                alarms += plan is None and bool(found.any())
                results.append((found, moved))
            if plan:
                yield from _rated(f"sources, {table.name}, half of one's labels moved {plan}", results, None)
        yield Measure(
            f"sources, {table.name}: alarms in 5 sets without", alarms, "", target="0", met=alarms == 0
        )


def _halved(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(rows)[: NEW + KNOWN]
    cut = len(order) // 5
    return order[cut:], order[:cut]


def _update(
    names: list[str], features: np.ndarray, labels: np.ndarray, before: np.ndarray, new: Any, given: Any
) -> np.ndarray:
    """Scores of the new rows, beside the trusted ones."""
    trusted = _columns(names, features[before], labels[before])
    whole = pa.concat_tables([trusted, _columns(names, new, given)])
    return scanned(whole, ["table_trigger"], trusted)[len(before) :]


def _columns(names: list[str], values: Any, classes: np.ndarray) -> pa.Table:
    return pa.table({**{n: values[:, i] for i, n in enumerate(names)}, "label": classes.astype(np.int64)})


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
