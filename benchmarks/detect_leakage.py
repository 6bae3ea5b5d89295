"""How well leakage and disclosure are found, and at what cost, beside the peers in the same run.

Corpora: :mod:`corpora`, in halves. Thresholds were chosen on the tuning half and are frozen in the checks'
defaults; what is printed is the reporting half. Text of near-duplicates is generated (a Markov chain over
real words), and so is what is planted. Peers run in environments of their own (``requirements-leakage.txt``,
``requirements-deepchecks.txt``; made once with uv in the cache folder).

Usage: python benchmarks/detect_leakage.py [--only PART ...] [--documents N] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import corpora
from dataset_guard.checks.base import CheckContext
from dataset_guard.reading import Source, open_source
from dataset_guard.scanning.scan import scan_source
from measure import Measure, in_child, machine, report

HERE = Path(__file__).parent
KEY = bytes(32)


def peers(name: str) -> Path:
    """The Python of an environment with the peers in ``requirements-NAME.txt``, made once for its content."""
    wanted = HERE / f"requirements-{name}.txt"
    folder = corpora.CACHE / f"peers-{name}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        subprocess.run(["uv", "venv", "-q", "--clear", "--python", "3.11", str(folder)], check=True)
        command = ["uv", "pip", "install", "-q", "--python", str(python), "-r", str(wanted)]
        subprocess.run(command, check=True)
        (folder / ".ready").touch()
    return python


def ask(task: str, *paths: Path, environment: str = "leakage") -> dict[str, Any]:
    """One peer's answer and CPU-seconds."""
    command = [str(peers(environment)), str(HERE / "peers_leakage.py"), task, *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def cpu(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result and CPU-seconds of this process."""
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


# --- near-duplicate text ---------------------------------------------------------------------------------


def edited(words: list[str], share: float, rng: np.random.Generator, spare: list[str]) -> list[str]:
    out = list(words)
    for at in rng.choice(len(out), max(1, round(share * len(out))), replace=False):
        kind = rng.integers(3)
        other = spare[rng.integers(len(spare))]
        out[at] = "" if kind == 0 else other if kind == 1 else f"{out[at]} {other}"
    return [w for w in out if w]


def with_copies(number: int, seed: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Documents, 8 % of them copies with edits of seven kinds; and (original, copy)."""
    rng = np.random.default_rng(seed)
    copies = number * 8 // 100
    texts = corpora.documents(number - copies, seed=seed)
    spare = texts[0].split() + texts[1].split()
    pairs = []
    for i in range(copies):
        original = int(rng.integers(number - copies))
        words = texts[original].split()
        kind = i % 7
        if kind < 4:
            words = edited(words, (0.005, 0.01, 0.02, 0.03)[kind], rng, spare)
        elif kind == 4:
            words = words[: int(0.8 * len(words))]
        elif kind == 5:
            words = [w.upper() for w in words]
        else:
            words = ["Subject:", "forwarded", "message", "follows", *words]
        pairs.append((original, len(texts)))
        texts.append(" ".join(words))
    return texts, pairs


def shingle_sets(texts: list[str]) -> Callable[[int], set[tuple[str, ...]]]:
    import re

    word = re.compile(r"\w+")
    known: dict[int, set[tuple[str, ...]]] = {}

    def of(i: int) -> set[tuple[str, ...]]:
        if i not in known:
            words = word.findall(texts[i].lower())
            known[i] = {tuple(words[k : k + 5]) for k in range(max(1, len(words) - 4))}
        return known[i]

    return of


def near_duplicates(number: int) -> list[Measure]:
    from dataset_guard.checks.leakage.near_duplicate_text import NearDuplicateText

    texts, planted = with_copies(number, 11)
    of = shingle_sets(texts)

    def jaccard(a: int, b: int) -> float:
        return len(of(a) & of(b)) / len(of(a) | of(b))

    truth = [(a, b) for a, b in planted if jaccard(a, b) >= 0.7]
    table = pa.table({"text": texts})
    check = NearDuplicateText(memory_bytes=4 << 30)
    context = CheckContext(schema=table.schema)

    def ours() -> Any:
        state = check.start(context)
        for n, batch in enumerate(table.to_batches(max_chunksize=65_536)):
            state.update(batch, n * 65_536, None, None)
        return list(state.finish())

    small = CheckContext(schema=table.schema)
    warm = check.start(small)
    warm.update(table.slice(0, 500).to_batches()[0], 0, None, None)
    list(warm.finish())
    found, spent = cpu(ours)
    rows = set(found[0].rows) if found else set()
    recall = sum(b in rows for _, b in truth) / len(truth)
    families: dict[int, list[int]] = {}
    for original, copy in planted:
        families.setdefault(original, [original]).append(copy)
    kin = {copy: families[original] for original, copy in planted}
    # A row that no copy was planted in counts as wrong, so what is printed is a lower bound.
    wrong = sum(all(jaccard(row, k) < 0.7 for k in kin.get(row, ()) if k != row) for row in rows)
    precision = 1 - wrong / max(1, len(rows))
    rate = number / spent
    measures = [
        Measure(
            "near-duplicate text, documents per CPU-s", rate, "docs", target=">= 78,000", met=rate >= 78_000
        ),
        Measure("  recall at J >= 0.7", recall, "", target=">= 0.995", met=recall >= 0.995),
        Measure("  precision at J >= 0.7", precision, "", target=">= 0.995", met=precision >= 0.995),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for peer, share in (("gaoya", 0.2), ("rensa", 0.2), ("datasketch", 0.05)):
            some = int(share * number)
            path = Path(folder) / f"{peer}.parquet"
            order = sorted({*range(max(0, some - 1000)), *(i for p in planted[:1000] for i in p)})
            at = {i: n for n, i in enumerate(order)}
            pq.write_table(pa.table({"text": [texts[i] for i in order]}), path)
            told = ask(peer, path)
            pairs = {(order[a], order[b]) for a, b in told["answer"]}
            asked = [(a, b) for a, b in truth if a in at and b in at]
            sample = random.Random(0).sample(sorted(pairs), min(2_000, len(pairs)))
            their_rate = len(order) / told["cpu_seconds"]
            their_recall = sum((a, b) in pairs for a, b in asked) / max(1, len(asked))
            their_precision = sum(jaccard(a, b) >= 0.7 for a, b in sample) / max(1, len(sample))
            name = f"{peer}: recall {their_recall:.3f}, precision {their_precision:.3f}"
            measures.append(
                Measure(
                    f"  beside {peer}, {len(order):,} documents",
                    rate,
                    "docs",
                    name,
                    their_rate,
                    rate / their_rate,
                )
            )
    return measures


# --- contamination ---------------------------------------------------------------------------------------


def contamination(number: int) -> list[Measure]:
    from dataset_guard.checks.leakage.contamination import Contamination
    from dataset_guard.checks.leakage.suite_index import index_of, search
    from dataset_guard.checks.leakage.tokens import cut

    rng = np.random.default_rng(3)
    items = corpora.suite_items("mmlu") + corpora.suite_items("gsm8k")
    units = [i["question"] for i in items if corpora.half_of(i["question"]) == "reporting"]
    sizes = np.diff(cut(pa.array(units), 512)[0], prepend=0)
    docs = corpora.documents(number, seed=23)
    spare = docs[0].split() + docs[1].split()
    kinds: dict[str, Callable[[list[str]], list[str]]] = {
        "verbatim": lambda w: w,
        "case and punctuation": lambda w: [x.upper().strip(".,?") for x in w],
        "5 % edits": lambda w: edited(w, 0.05, rng, spare),
        "10 % edits": lambda w: edited(w, 0.1, rng, spare),
        "20 % edits": lambda w: edited(w, 0.2, rng, spare),
        "first 80 %": lambda w: w[: int(0.8 * len(w))],
    }
    chosen = rng.choice(np.flatnonzero(sizes >= 12), 2_100, replace=False)
    rows = rng.choice(number, 2_100, replace=False)
    truth: dict[int, str] = {}
    for n, (u, r) in enumerate(zip(chosen.tolist(), rows.tolist(), strict=True)):
        kind = list(kinds)[n % len(kinds)]
        words = docs[r].split()
        at = int(rng.integers(len(words)))
        docs[r] = " ".join([*words[:at], *kinds[kind](units[u].split()), *words[at:]])
        truth[r] = kind
    check = Contamination()
    index, indexing = cpu(lambda: index_of(pa.array(units), check.least_tokens))
    texts = pa.array(docs)
    list(search(index, texts.slice(0, 50), check.share))
    hits, spent = cpu(lambda: list(search(index, texts, check.share)))
    ours = set(np.concatenate([h.texts for h in hits]).tolist())

    def thirteen() -> set[int]:
        import re

        word = re.compile(r"\w+")
        known = set()
        for unit in units:
            words = word.findall(unit.lower())
            known.update(tuple(words[i : i + 13]) for i in range(len(words) - 12))
        found = set()
        for r, doc in enumerate(docs):
            words = word.findall(doc.lower())
            if any(tuple(words[i : i + 13]) in known for i in range(len(words) - 12)):
                found.add(r)
        return found

    theirs, their_time = cpu(thirteen)

    def recall(found: set[int], kind: str | None = None) -> float:
        asked = [r for r, k in truth.items() if kind is None or k == kind]
        return sum(r in found for r in asked) / len(asked)

    def precision(found: set[int]) -> float:
        return sum(r in truth for r in found) / max(1, len(found))

    us = spent / number * 1e6
    out = [
        Measure(
            "contamination, us per document",
            us,
            "us",
            "13-gram (Python)",
            their_time / number * 1e6,
            None,
            "<= 15",
            us <= 15,
        ),
        Measure(f"  indexing {len(units):,} items", indexing, "CPU-s"),
        Measure(
            "  precision",
            precision(ours),
            "",
            "13-gram",
            precision(theirs),
            None,
            ">= 0.95",
            precision(ours) >= 0.95,
        ),
    ]
    for kind in kinds:
        target = ">= 0.95" if kind == "10 % edits" else ""
        met = recall(ours, kind) >= 0.95 if target else None
        out.append(
            Measure(
                f"  recall, {kind}",
                recall(ours, kind),
                "",
                "13-gram",
                recall(theirs, kind),
                None,
                target,
                met,
            )
        )
    return out


# --- pictures --------------------------------------------------------------------------------------------


def pictures() -> list[Measure]:
    from dataset_guard.checks.leakage.image_descriptors import thumbnails
    from dataset_guard.checks.leakage.near_duplicate_image import CHECK, pairs

    rng = np.random.default_rng(1)
    images, _ = corpora.fashion_mnist("train")
    base = images[30_000:][rng.choice(30_000, 3_000, replace=False)].astype(np.float32)
    kinds: dict[str, Callable[[Any], Any]] = {
        "brightness": lambda i: i * 0.7 + 30,
        "noise": lambda i: np.clip(i + rng.normal(0, 8, i.shape), 0, 255),
        "mirrored": lambda i: i[:, ::-1],
        "shifted by one": lambda i: np.roll(i, 1, axis=1),
    }
    thumbs, made = cpu(lambda: thumbnails(base))
    copies, truth = [], []
    for kind, change in kinds.items():
        for i in rng.choice(len(base), 100, replace=False).tolist():
            truth.append((len(base) + len(copies), i, kind))
            copies.append(thumbnails(change(base[i])[None])[0])
    every = np.concatenate([thumbs, np.array(copies)])
    pictures_ = every.astype(np.float32) / 255
    (one, two, _), spent = cpu(lambda: pairs(pictures_, pictures_, CHECK, within=True))
    found = set(zip(one.tolist(), two.tolist(), strict=True))
    alike = len({a for a in one.tolist() if a < len(base)}) / len(base)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "thumbs.parquet"
        pq.write_table(pa.table({"thumb": [t.tobytes() for t in every]}), path)
        told = ask("imagehash", path)
    hashes = told["answer"]

    def near(a: int, b: int) -> bool:
        return (hashes[a] ^ hashes[b]).bit_count() <= 8

    out = [
        Measure(
            "pictures per CPU-s",
            len(every) / (spent + made),
            "pictures",
            "imagehash pHash",
            len(every) / told["cpu_seconds"],
        ),
        Measure("  other pictures called copies (look-alikes)", alike, "of pictures"),
    ]
    for kind in kinds:
        asked = [(a, b) for a, b, k in truth if k == kind]
        ours = sum(p in found for p in asked) / len(asked)
        theirs = sum(near(a, b) for a, b in asked) / len(asked)
        out.append(Measure(f"  recall, {kind}", ours, "", "pHash, distance <= 8", theirs))
    return out


# --- personal data and secrets ---------------------------------------------------------------------------


def personal(mails: int) -> list[Measure]:
    from dataset_guard.checks.privacy import personal_data, secrets
    from dataset_guard.checks.privacy.text_buffers import text_buffers

    for folder in ("tests/dataset_guard", "tests/dataset_guard/checks/privacy"):
        sys.path.insert(0, str(HERE.parent / folder))
    from test_personal_data import make_card, make_iban

    rng = random.Random(7)
    every = [text for kind, text in corpora.mails() if corpora.half_of(text[:200]) == "reporting"]
    some = every[:mails]
    for i in range(0, len(some), 2):
        number = make_card(rng) if i % 4 else make_iban(rng)
        some[i] += f"\nplease use {number} for this\n"
    big = pa.array(every)
    size = sum(len(t.encode()) for t in every) / 1e6

    def first(module: Any) -> int:
        return sum(1 for b in text_buffers(big) for _ in module.find(b))

    first(personal_data), first(secrets)
    _, spent = cpu(lambda: first(personal_data))
    _, more = cpu(lambda: first(secrets))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mails.parquet"
        pq.write_table(pa.table({"text": some}), path)
        told = ask("presidio", path)
        spied = ask("detect_secrets", path)
    part = sum(len(t.encode()) for t in some) / 1e6
    names = {"CREDIT_CARD": "payment_card", "IBAN_CODE": "bank_account", "CRYPTO": "wallet_address"}
    theirs = {(i, names[k], v.upper() if k == "IBAN_CODE" else v) for i, k, v in told["answer"] if k in names}
    ours = {
        (item, kind, value.decode().replace("-", "").replace(" ", ""))
        for b in text_buffers(pa.array(some))
        for item, kind, right, value in personal_data.find(b)
        if right and kind in names.values()
    }
    both = len(theirs & ours) / max(1, len(theirs))
    rate, their_rate = size / (spent + more), part / told["cpu_seconds"]
    return [
        Measure(
            "personal data and secrets, MB per CPU-s",
            rate,
            "MB",
            "Presidio, patterns only",
            their_rate,
            rate / their_rate,
            ">= 20, 100x",
            rate >= 20 and rate >= 100 * their_rate,
        ),
        Measure("  personal data alone", size / spent, "MB"),
        Measure(
            "  secrets alone",
            size / more,
            "MB",
            "detect-secrets",
            part / spied["cpu_seconds"],
            size / more / (part / spied["cpu_seconds"]),
        ),
        Measure(
            "  of Presidio's hits with check digits",
            both,
            f"of {len(theirs)}",
            target=">= 0.99",
            met=both >= 0.99,
        ),
        Measure("  that Presidio has not", len(ours - theirs), "hits"),
        *_two_stages(every, some, theirs, spent + more, their_rate),
    ]


def _two_stages(
    every: list[str], some: list[str], theirs: set[Any], first: float, their_rate: float
) -> list[Measure]:
    """Our first stage over all mails and Presidio over what it found (PRIV011), beside Presidio over all."""
    from dataset_guard.checks.privacy.second_opinion import SecondOpinion

    check = SecondOpinion(most_values=10_000)

    def opinions(texts: list[str]) -> dict[str, int]:
        batch = pa.record_batch({"text": texts})
        state = check.start(CheckContext(schema=batch.schema))
        state.update(batch, 0, None, None)
        return {f.evidence["kind"]: f.count or 0 for f in state.finish()}

    opinions(some[:2])  # imports are not charged
    confirmed = opinions(some)
    _, spent = cpu(lambda: opinions(every))
    asked = {kind for _, kind, _ in theirs}
    checked = sum(confirmed.get(kind, 0) for kind in asked)
    distinct = len({(kind, value) for _, kind, value in theirs})
    size = sum(len(t.encode()) for t in every) / 1e6
    rate = size / (first + spent)
    return [
        Measure(
            "two stages, MB per CPU-s (Presidio is asked about every value)", rate, "MB",
            "Presidio, patterns only", their_rate, rate / their_rate, ">= 100x", rate >= 100 * their_rate,
        ),
        Measure(
            "  of Presidio's values with check digits, confirmed", checked / max(1, distinct),
            f"of {distinct}", target=">= 0.99", met=checked >= 0.99 * distinct,
        ),
    ]  # fmt: skip


# --- names of persons ------------------------------------------------------------------------------------

NAME_COLUMNS = {
    ("Stat2Data-AHCAvote2017", "Member"), ("Stat2Data-AlitoConfirmation", "Senator"),
    ("Stat2Data-Kershaw", "Batter"), ("bakeoff-bakers_raw", "baker_full"),
    ("openintro-nyc_marathon", "name"), ("stevedata-fakeAPI", "county"),
}  # fmt: skip
"""Columns of the reporting half that hold names of persons (surname and given name), judged by a person."""


def names() -> list[Measure]:
    """Columns of clean tables that PRIV012 reports, and whether they hold names of persons."""
    from dataset_guard.checks.privacy.person_names import PersonNames
    from dataset_guard.scanning.profile import is_text

    check, columns, found = PersonNames(most_rows=5_000), 0, set()

    def look() -> None:
        nonlocal columns
        for corpus in corpora.clean_tables("reporting"):
            context = CheckContext(schema=corpus.table.schema)
            columns += sum(is_text(f.type) for f in corpus.table.schema)
            if check.applies(context) is None:
                state = check.start(context)
                for n, batch in enumerate(corpus.table.combine_chunks().to_batches(max_chunksize=65_536)):
                    state.update(batch, n * 65_536, None, None)
                found.update((corpus.name, f.columns[0]) for f in state.finish())

    _, spent = cpu(look)
    print(f"columns of names: {sorted(found)}")
    right = len(found & NAME_COLUMNS)
    return [
        Measure(
            "columns of names: precision", right / max(1, len(found)), f"{len(found)} of {columns} columns"
        ),
        Measure("  recall", right / len(NAME_COLUMNS), f"of {len(NAME_COLUMNS)}"),
        Measure("  cost", spent / columns * 1e3, "CPU-ms per column"),
    ]


# --- exact overlap ---------------------------------------------------------------------------------------


def overlap() -> list[Measure]:
    from dataset_guard.checks.hash_index import HashIndex
    from dataset_guard.hashing.rowhash import RowHasher

    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(9)]

    def made(rows: int) -> pa.Table:
        return pa.table({**{n: rng.normal(size=rows) for n in names}, "label": rng.integers(0, 2, rows)})

    train = made(500_000)
    test = pa.concat_tables([made(100_000), train.slice(0, 5_000)])

    def ours() -> int:
        hasher = RowHasher(train.schema, key=KEY)
        one, two = (
            np.concatenate([hasher.hash(b).keyed for b in t.to_batches(max_chunksize=65_536)])
            for t in (train, test)
        )
        return int(HashIndex(two).contains(one).sum())

    ours()
    shared, spent = cpu(ours)
    assert shared == 5_000
    rate = 605_000 / spent
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{n}.parquet" for n in ("train", "test")]
        for path, table in zip(paths, (train, test), strict=True):
            pq.write_table(table, path)
        try:
            their = 605_000 / ask("deepchecks", *paths, environment="deepchecks")["cpu_seconds"]
        except subprocess.CalledProcessError as error:
            print(f"deepchecks did not run: {error.stderr.splitlines()[-1:]}")
            return [Measure("exact overlap, rows per CPU-s", rate, "rows")]
    return [
        Measure(
            "exact overlap, rows per CPU-s",
            rate,
            "rows",
            "Deepchecks",
            their,
            rate / their,
            ">= 80x",
            rate >= 80 * their,
        )
    ]


# --- clean tables ----------------------------------------------------------------------------------------


def clean_tables(limit: int | None, skipped: int) -> list[Measure]:
    """Each clean table halved by chance into train and test, scanned with every default check.

    The first ``skipped`` tables of the half are left out: rules were tuned once they had been looked at.
    """

    class Test:
        """The other half, as a registered version."""

        def __init__(self, table: pa.Table, label: str | None) -> None:
            self.table, self.label, self.split, self.ref = table, label, "test", "acme/test@1"
            self.profile: dict[str, Any] = {}

        def _hashes(self) -> Any:
            from dataset_guard.hashing.rowhash import RowHasher

            hasher = RowHasher(self.table.schema, key=KEY, label=self.label)
            return [hasher.hash(b) for b in self.table.combine_chunks().to_batches()]

        def row_hashes(self) -> Any:
            return np.concatenate([h.keyed for h in self._hashes()])

        def feature_hashes(self) -> Any:
            return np.concatenate([h.features for h in self._hashes()]) if self.label else None

        def open(self) -> Source:
            return open_source(self.table)

    critical: dict[str, list[str]] = {}
    warned: dict[str, int] = {}
    number = 0
    wanted = None if limit is None else skipped + limit
    for corpus in islice(corpora.clean_tables("reporting", limit=wanted), skipped, None):
        number += 1
        chosen = np.random.default_rng(number).random(corpus.table.num_rows) < 0.75
        train, test = corpus.table.filter(pa.array(chosen)), corpus.table.filter(pa.array(~chosen))
        context = CheckContext(
            schema=train.schema,
            label=corpus.label,
            split="train",
            against=(Test(test, corpus.label),),
            name="train",
            tenant="acme",
        )
        for finding in scan_source(open_source(train), context, row_key=KEY).findings:
            if finding.severity.value == "critical":
                critical.setdefault(finding.rule_id, []).append(corpus.name)
            elif finding.severity.value == "warning":
                warned[finding.rule_id] = warned.get(finding.rule_id, 0) + 1
        if number % 10 == 0:  # a run may be cut short
            print(f"tables {skipped} to {skipped + number - 1}: critical {critical}, {warned}", flush=True)
    bad = {name for names in critical.values() for name in names}
    print(f"critical: {critical}\nwarnings: {dict(sorted(warned.items()))}")
    share = len(bad) / number
    from scipy.stats import beta

    return [
        Measure(
            "clean tables with a critical finding", share, f"of {number}", target="< 0.01", met=share < 0.01
        ),
        Measure(
            "  at most, with 95 % confidence", float(beta.ppf(0.95, len(bad) + 1, number - len(bad))), ""
        ),
    ]


# --- scale -----------------------------------------------------------------------------------------------


EMBEDDING = 224


class Generated(Source):
    """A stream of generated rows that is never held: 13 columns, 170 bytes a row.

    ``wide`` adds an embedding, to make a kilobyte of a row.
    """

    def __init__(self, rows: int, *, wide: bool = False) -> None:
        from tables import batches

        self._made = list(batches(1_000_000, batch_rows=65_536))
        if wide:
            values = np.random.default_rng(5).random(65_536 * EMBEDDING, np.float32)
            column = pa.FixedSizeListArray.from_arrays(values, EMBEDDING)
            self._made = [b.append_column("embedding", column.slice(0, b.num_rows)) for b in self._made]
        self.schema, self.num_rows, self.uri, self.kind = self._made[0].schema, rows, "generated", "memory"

    def stream(
        self, *, columns: Any = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Blocks of the first million rows with ids and users of their own."""
        assert first_row == 0
        assert rows is None
        done = number = 0
        while done < (self.num_rows or 0):
            batch = self._made[number % len(self._made)]
            at = batch.schema.get_field_index("id")
            ids = pa.array(np.arange(done, done + batch.num_rows, dtype=np.int64))
            batch = batch.set_column(at, batch.schema.field(at), ids).slice(0, (self.num_rows or 0) - done)
            yield batch if columns is None else batch.select(columns)
            done, number = done + batch.num_rows, number + 1


def scale(sizes: list[int], *, wide: bool) -> list[Measure]:
    out = []
    for rows in sizes:

        def work(rows: int = rows) -> dict[str, float]:
            source = Generated(rows, wide=wide)
            before = resource.getrusage(resource.RUSAGE_SELF)
            context = CheckContext(schema=source.schema, label="label", name="s", tenant="acme")
            found = scan_source(source, context, row_key=KEY)
            after = resource.getrusage(resource.RUSAGE_SELF)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return {"cpu": spent, "bytes": float(found.fingerprint.bytes or 0)}

        child = in_child(work)
        per_row = child.answer["cpu"] / rows * 1e6
        gb = child.answer["bytes"] / 1e9
        peak = child.peak_bytes / 2**30
        out.append(Measure(f"scan of {rows:,} rows ({gb:.1f} GB): us per row", per_row, "us"))
        out.append(Measure("  peak memory", peak, "GiB", target="< 2", met=peak < 2))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--mails", type=int, default=200)
    parser.add_argument("--tables", type=int, help="how many clean tables")
    parser.add_argument(
        "--tables-from", type=int, default=210, help="the first are those rules were tuned on"
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 5_000_000, 20_000_000, 50_000_000])
    parser.add_argument("--wide", action="store_true", help="scale: rows of a kilobyte (50 M are 52 GB)")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], list[Measure]]] = {
        "near-duplicates": lambda: near_duplicates(arguments.documents),
        "contamination": lambda: contamination(max(5_000, arguments.documents // 4)),
        "pictures": pictures,
        "personal": lambda: personal(arguments.mails),
        "names": names,
        "overlap": overlap,
        "clean": lambda: clean_tables(arguments.tables, arguments.tables_from),
        "scale": lambda: scale(arguments.rows, wide=arguments.wide),
    }
    print(f"machine: {machine()}")
    measures = []
    for name, part in parts.items():
        if arguments.only is None or name in arguments.only:
            measures += part()
    report(measures, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
