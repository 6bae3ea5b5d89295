"""One source that repeats itself: near-copies of few texts, sent in to weigh more than they should.

Every text has a key that near-copies share with the probability of their similarity (the least of its
shingle hashes). A source floods when far more of its texts repeat an earlier key than the other sources'
do. Which column is the source is found by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, counted
from dataset_guard.checks.features import TEXT_MEAN_BYTES
from dataset_guard.checks.leakage.near_duplicate_text import TEXT_RANKS, holds_plain_text
from dataset_guard.checks.poisoning.changes import changed_rows
from dataset_guard.checks.poisoning.patch_search import surprise
from dataset_guard.checks.poisoning.sources import salted_source, source_columns, source_numbers
from dataset_guard.scanning.profile import plain
from guard_core.findings import Finding, RowSet, Severity


@dataclass(frozen=True, slots=True)
class Flooding:
    """POIS024: rows of one source whose texts are near-copies of one another.

    ``sources``: columns that say where a row is from; none named means those whose name says so. ``copies``
    and ``share`` are the least number of a source's texts that repeat one of its own, and their share of its
    texts; ``times`` how much larger that share must be than the other sources'. Chance (a Chernoff bound over
    all sources) must be below ``chance``. At most ``max_rows`` texts are looked at, sampled by their keys, so
    that copies stay together.
    """

    sources: tuple[str, ...] = ()
    copies: int = 10
    share: float = 0.05
    times: float = 5.0
    chance: float = 1e-6
    max_rows: int = 2_000_000

    name: ClassVar[str] = "flooding"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS024",)
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column of sources, and one of text."""
        if not self.of(context):
            return "no column says by its name where a row is from (source, site, author, ...)"
        return None if self.texts(context) else "no other column holds text"

    def of(self, context: CheckContext) -> list[str]:
        """The columns of sources."""
        return source_columns(context.schema, context.label, self.sources)

    def texts(self, context: CheckContext) -> list[str]:
        """The columns of text."""
        taken = {*self.of(context), context.label}
        return [f.name for f in context.schema if holds_plain_text(f.type) and f.name not in taken]

    def start(self, context: CheckContext) -> FloodingState:
        """Nothing seen."""
        return FloodingState(self, context)


class FloodingState:
    """Memory: 24 bytes for each of twice ``max_rows`` texts, for each pair of source and text column."""

    def __init__(self, check: Flooding, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._kept = {(s, t): Kept(check.max_rows) for s in check.of(context) for t in check.texts(context)}

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Take the key and the source of each text that is new since the trusted version."""
        chosen = np.arange(batch.num_rows)
        if self._context.baseline is not None:
            assert hashes is not None
            chosen = np.flatnonzero(changed_rows(self._context, hashes))
        if not len(chosen):
            return
        picked = batch if len(chosen) == batch.num_rows else batch.take(pa.array(chosen))
        keys = {t: TEXT_RANKS.get(picked, t, _keys) for t in self._check.texts(self._context)}
        sources = {s: source_numbers(picked.column(s)) for s in self._check.of(self._context)}
        for (source, text), kept in self._kept.items():
            kept.add(keys[text], sources[source], chosen + first_row)

    def merge(self, other: FloodingState) -> None:
        """Take in other rows."""
        for pair, kept in self._kept.items():
            kept.merge(other._kept[pair])

    def finish(self) -> Iterator[Finding]:
        """One finding for each source that floods."""
        for (source, text), kept in sorted(self._kept.items()):
            keys, names, rows = kept.all()
            for name, copies, size, others in flooders(keys, names, self._check):
                mine = np.flatnonzero(names == name)
                yield self._finding(source, text, rows[mine[_copied(keys[mine])]], name, copies, size, others)

    def _finding(
        self, source: str, text: str, rows: Rows, name: np.uint64, copies: int, size: int, others: float
    ) -> Finding:
        since = "" if self._context.baseline is None else f" new since {self._context.baseline.ref}"
        return Finding(
            rule_id="POIS024",
            severity=Severity.WARNING,
            message=f"{counted(len(rows), 'row')}{since} of one source ({source}) are near-copies of one "
            f"another: {copies / size:.0%} of its texts repeat one of its own, of the other sources' "
            f"{others:.1%}.",
            columns=(text, source),
            rows=RowSet.of(rows.tolist()),
            score=round(copies / size, 6),
            action="Keep one row of each text, and find out why this source sent the others.",
            evidence={
                "source_hash": salted_source(int(name), self._context.tenant),
                "texts_of_the_source": size,
                "repeats": copies,
                "share_of_other_sources": round(others, 6),
            },
        )  # fmt: skip


class Kept:
    """Keys, sources and rows of texts; beyond ``most`` those of the least keys: copies stay together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = np.uint64(2**64 - 1)
        self._held = 0
        self._parts: list[tuple[Any, Any, Rows]] = []

    def add(self, keys: npt.NDArray[np.uint64], names: npt.NDArray[np.uint64], rows: Rows) -> None:
        """Take texts; a key of 0 is no text."""
        kept = np.flatnonzero((keys > 0) & (keys <= self._limit))
        self._parts.append((keys[kept], names[kept], rows[kept]))
        self._held += len(kept)
        if self._held > 2 * self._most:
            self._narrow()

    def _narrow(self) -> None:
        if self._held <= self._most:
            return
        keys = np.concatenate([p[0] for p in self._parts])
        self._limit = np.partition(keys, self._most - 1)[self._most - 1]
        parts, self._parts, self._held = self._parts, [], 0
        for part in parts:
            self.add(*part)

    def merge(self, other: Kept) -> None:
        """Take in the texts of other rows."""
        self._limit = min(self._limit, other._limit)
        parts, self._parts, self._held = [*self._parts, *other._parts], [], 0
        for part in parts:
            self.add(*part)

    def all(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], Rows]:
        """Everything kept, by row number."""
        self._narrow()
        if not self._parts:
            return np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64)
        keys, names, rows = (np.concatenate([p[i] for p in self._parts]) for i in range(3))
        order = np.argsort(rows)
        return keys[order], names[order], rows[order]


def flooders(
    keys: npt.NDArray[np.uint64], names: npt.NDArray[np.uint64], check: Flooding
) -> Iterator[tuple[np.uint64, int, int, float]]:
    """``(source, repeats, texts, share of repeats among the other sources' texts)``, most repeats first."""
    if not len(keys) or _most_repeats(keys, names) < check.copies:
        return
    found, which = np.unique(names, return_inverse=True)
    order = np.lexsort((keys, which))
    again = np.zeros(len(keys), bool)
    again[order[1:]] = (keys[order][1:] == keys[order][:-1]) & (which[order][1:] == which[order][:-1])
    sizes = np.bincount(which, minlength=len(found))
    repeats = np.bincount(which, weights=again, minlength=len(found)).astype(np.int64)
    rest = len(keys) - sizes
    others = (repeats.sum() - repeats) / np.maximum(rest, 1)
    expected = np.clip(np.maximum(others, 1 / len(keys)) * check.times, 0.0, 0.99)
    told = surprise(repeats, sizes, expected) - np.log(len(found))
    floods = (
        (rest > 0)
        & (repeats >= check.copies)
        & (repeats >= check.share * sizes)
        & (told > -np.log(check.chance))
    )
    for i in sorted(np.flatnonzero(floods), key=lambda i: -repeats[i]):
        yield found[i], int(repeats[i]), int(sizes[i]), float(others[i])


def _most_repeats(keys: npt.NDArray[np.uint64], names: npt.NDArray[np.uint64]) -> int:
    """How many texts of one source repeat one of its own, at most: half of a key and of a name tell it nearly
    always, never too few, and at a tenth of what counting all sources costs.
    """
    half = np.uint64(32)
    pairs = np.sort(names >> half << half | keys >> half)
    again = (pairs[1:] >> half)[pairs[1:] == pairs[:-1]]  # the sources of repeats, in order
    ends = np.flatnonzero(np.diff(again, append=~again[-1:]))
    return int(np.diff(ends, prepend=-1).max(initial=0))


def _copied(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which keys occur more than once."""
    _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[which] > 1)


def _keys(column: Any) -> npt.NDArray[np.uint64]:
    """A key per text, shared by near-copies; 0 for a text too short to tell."""
    from dataset_guard.checks.leakage.folding import cells_of
    from dataset_guard.checks.leakage.shingles import ranks

    texts = plain(column)
    keys = np.zeros(len(texts), np.uint64)
    long_enough = np.flatnonzero(np.asarray(pc.binary_length(texts).fill_null(0)) >= TEXT_MEAN_BYTES)
    if len(long_enough):
        whole = len(long_enough) == len(texts)
        keys[long_enough] = ranks(cells_of(texts if whole else texts.take(pa.array(long_enough))))
    return keys


CHECK = Flooding()
"""The check that the entry point names."""
