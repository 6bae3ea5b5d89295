"""Texts that are nearly another row's, within the set and in other sets: edits do not hide a copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.base import CheckContext, Hashes, Need, Reference, Rows, counted, set_name
from dataset_guard.checks.leakage.chance import chance_of, group_sizes
from dataset_guard.checks.shared_work import OfBatch
from dataset_guard.scanning.profile import is_text, plain
from guard_core.findings import Finding, RowSet, Severity

if TYPE_CHECKING:
    from dataset_guard.checks.leakage.folding import Cells

_WINDOW_BYTES = 4 << 20
_SIGNATURE_BYTES = 512  # made at the end only, but counted from the start
_WHOLE = 2**64 - 1

TEXT_RANKS: OfBatch[npt.NDArray[np.uint64]] = OfBatch()
"""The rank of each text of a column, where another check has made them: 0 for one too short to tell. Texts
above the limit need no second look then."""


@dataclass(frozen=True, slots=True)
class NearDuplicateText:
    """LEAK003: texts whose shingle sets have a Jaccard similarity of at least ``similarity``.

    ``columns``: text columns to look at; none named means all. Texts shorter than ``least_bytes`` are not
    compared: names and codes resemble each other by nature. ``memory_bytes`` bounds what is kept of a
    column: beyond it, texts are sampled by content, so that near-duplicates stay together. Repeats within
    the set are a warning from ``warning_share`` on; above ``category_share`` the column is one of
    categories, and repeats are its nature.
    """

    similarity: float = 0.7
    columns: tuple[str, ...] = ()
    least_bytes: int = 32
    memory_bytes: int = 192 << 20
    warning_share: float = 0.02
    category_share: float = 0.9
    chance_critical: float = 1e-3

    name: ClassVar[str] = "near_duplicate_text"
    version: ClassVar[str] = "4"
    rule_ids: ClassVar[tuple[str, ...]] = ("LEAK003",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column of text that is not the label."""
        return None if self.chosen(context) else "there is no text column"

    def chosen(self, context: CheckContext) -> list[str]:
        """The columns to look at."""
        texts = [f.name for f in context.schema if holds_plain_text(f.type) and f.name != context.label]
        return [n for n in texts if not self.columns or n in self.columns]

    def start(self, context: CheckContext) -> NearDuplicateState:
        """Nothing seen."""
        return NearDuplicateState(self, context)


def holds_plain_text(kind: pa.DataType) -> bool:
    """Whether a column of this type is text, one per row."""
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


class Collected:
    """What is kept of one text column: 512 bytes and 4 per shingle for each text, within ``memory_bytes``.

    Beyond that, the limit for a text's rank (a mix of its least shingle hash) is halved until the rest fits.
    The limit depends on the texts alone, not on their order or their batches.
    """

    def __init__(self, memory_bytes: int, least_bytes: int, limit: int = _WHOLE) -> None:
        self._memory = memory_bytes
        self._least = least_bytes
        self.limit = limit
        self._held = 0
        self._parts: list[tuple[Rows, npt.NDArray[np.uint64], npt.NDArray[np.int64], Any]] = []

    def update(self, column: Any, first_row: int, ranks: npt.NDArray[np.uint64] | None = None) -> None:
        """Take the texts of an Arrow array; ``ranks`` are theirs, where somebody knows them."""
        from dataset_guard.checks.leakage.folding import cells_of, offsets_of
        from dataset_guard.checks.leakage.tokens import windows_of

        texts = plain(column)
        wanted = np.asarray(pc.binary_length(texts).fill_null(0)) >= self._least
        if ranks is not None and self.limit < _WHOLE:
            wanted &= ranks <= np.uint64(self.limit)
        chosen = np.flatnonzero(wanted)
        if not len(chosen):
            return
        picked = (texts if wanted.all() else texts.take(pa.array(chosen))).cast(pa.large_string())
        for start, stop in windows_of(offsets_of(picked), _WINDOW_BYTES):
            # Brought to their form window by window: a window stays in the cache, a batch does not.
            self._window(cells_of(picked.slice(start, stop - start)), chosen[start:stop] + first_row)

    def _window(self, cells: Cells, rows: Rows) -> None:
        from dataset_guard.checks.leakage.shingles import shingle
        from dataset_guard.checks.leakage.tokens import longest_of

        offsets, data, fold = cells
        n, longest = len(offsets) - 1, longest_of(offsets)
        shingles = np.empty(int(offsets[-1] - offsets[0]) + 1, np.uint32)
        ends = np.empty(n, np.int64)
        rank = np.empty(n, np.uint64)
        tokens, text = np.empty(longest, np.uint64), np.empty(longest, np.uint8)
        hashes = np.empty(longest, np.uint64)
        limit = np.uint64(self.limit)
        shingle(offsets, data, fold, limit, tokens, text, hashes, shingles, ends, rank)
        sizes = np.diff(ends, prepend=0)
        self._add(rows, rank, sizes, shingles[: ends[-1]], own=False)

    def _add(self, rows: Any, rank: Any, sizes: Any, shingles: Any, *, own: bool) -> None:
        keep = (rank <= np.uint64(self.limit)) & (sizes > 0)
        if not keep.all():
            shingles = shingles[np.repeat(keep, sizes)]
            rows, rank, sizes = rows[keep], rank[keep], sizes[keep]
        elif not own:
            shingles = shingles.copy()  # the window's buffer is as long as its text
        if not len(rows):
            return
        self._parts.append((rows, rank, sizes, shingles))
        self._held += _SIGNATURE_BYTES * len(rows) + shingles.nbytes
        while self._held > self._memory:
            self._halve(self.limit // 2)

    def _halve(self, limit: int) -> None:
        parts, self._parts, self._held, self.limit = self._parts, [], 0, limit
        for part in parts:
            self._add(*part, own=True)

    def merge(self, other: Collected) -> None:
        """Take in the texts of other rows."""
        if other.limit < self.limit:
            self._halve(other.limit)
        for part in other._parts:
            self._add(*part, own=True)

    def narrowed(self, limit: int) -> None:
        """Keep what a collection with ``limit`` would have kept."""
        if limit < self.limit:
            self._halve(limit)

    def texts(self, *, keep: bool = False) -> Any:
        """Everything kept, by row number. Unless ``keep``, it is handed over: the collection is empty then.

        Returns a :class:`~dataset_guard.checks.leakage.lsh.Texts`.
        """
        from dataset_guard.checks.leakage.lsh import Texts
        from dataset_guard.checks.leakage.minhash import BINS, sign

        parts = sorted(self._parts, key=lambda p: int(p[0][0]))
        if not keep:
            self._parts = []
        total, size = sum(len(p[0]) for p in parts), sum(len(p[3]) for p in parts)
        rows, ends = np.empty(total, np.int64), np.empty(total, np.int64)
        signatures, shingles = np.empty((total, BINS), np.uint32), np.empty(size, np.uint32)
        at = end = 0
        while parts:  # each part is given up when it is copied, so that memory is not held twice
            own_rows, _, sizes, own_shingles = parts.pop(0)
            stop = at + len(own_rows)
            rows[at:stop] = own_rows
            ends[at:stop] = end + np.cumsum(sizes)
            shingles[end : end + len(own_shingles)] = own_shingles
            at, end = stop, end + len(own_shingles)
        sign(ends, shingles, signatures)
        return Texts(rows, signatures, ends, shingles)


class NearDuplicateState:
    """Memory: ``memory_bytes`` for each text column, and as much again for one reference at a time."""

    def __init__(self, check: NearDuplicateText, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._columns = {
            name: Collected(check.memory_bytes, check.least_bytes) for name in check.chosen(context)
        }
        self._rows = 0

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Shingle the texts."""
        self._rows += batch.num_rows
        for name, collected in self._columns.items():
            collected.update(batch.column(name), first_row, TEXT_RANKS.known(batch, name))

    def merge(self, other: NearDuplicateState) -> None:
        """Take in other rows."""
        self._rows += other._rows
        for name, collected in self._columns.items():
            collected.merge(other._columns[name])

    def finish(self) -> Iterator[Finding]:
        """Column by column: within, then each other set."""
        own = f"{self._context.tenant}/{self._context.name}"
        for name, collected in self._columns.items():
            yield from self._column(name, collected, [r for r in self._context.against if set_name(r) != own])
        self._columns = {}

    def _column(self, name: str, collected: Collected, against: list[Reference]) -> Iterator[Finding]:
        from dataset_guard.checks.leakage.lsh import clusters

        texts = collected.texts(keep=bool(against))
        if not len(texts):
            return
        first = clusters(texts, self._check.similarity)
        repeats = np.flatnonzero(first != np.arange(len(texts)))
        if len(repeats):
            yield self._within(name, collected, texts, first, repeats)
        for reference in against:
            yield from self._shared(name, collected, texts, reference)

    def _within(self, name: str, collected: Collected, texts: Any, first: Any, repeats: Any) -> Finding:
        share = len(repeats) / len(texts)
        sizes = np.bincount(first)
        telling = self._check.warning_share <= share <= self._check.category_share
        return Finding(
            rule_id="LEAK003",
            severity=Severity.WARNING if telling else Severity.INFO,
            message=f"{counted(len(repeats), 'row holds', 'rows hold')} nearly the same text as an "
            "earlier row.",
            columns=(name,),
            rows=RowSet.of(texts.rows[repeats].tolist()),
            score=share,
            fdr=0.0,
            action="Keep one row of each group, or split the set so that a group stays on one side.",
            evidence={
                "groups": int((sizes > 1).sum()),
                "largest_group": int(sizes.max()),
                **self._scope(collected, texts),
            },
        )

    def _scope(self, collected: Collected, texts: Any) -> dict[str, Any]:
        return {
            "similarity": self._check.similarity,
            "compared_rows": len(texts),
            "sampled_share": round((collected.limit + 1) / 2**64, 6),
        }

    def _shared(self, name: str, collected: Collected, texts: Any, reference: Reference) -> Iterator[Finding]:
        from dataset_guard.checks.leakage.lsh import clusters, matches

        source = reference.open()
        if (
            source is None
            or name not in source.schema.names
            or not holds_plain_text(source.schema.field(name).type)
        ):
            why = "its data is gone" if source is None else "it has no such text column"
            yield Finding(
                rule_id="LEAK003",
                severity=Severity.INFO,
                message=f"Texts could not be compared with those of {reference.ref}: {why}.",
                columns=(name,),
                count=0,
                action="Put the data back where it was registered from, or register it again.",
            )
            return
        other = Collected(self._check.memory_bytes, self._check.least_bytes, collected.limit)
        row = 0
        for batch in source.batches(columns=[name]):
            other.update(batch.column(0), row)
            row += batch.num_rows
        if other.limit < collected.limit:  # the larger set decides what both keep
            collected.narrowed(other.limit)
            texts = collected.texts(keep=True)
        theirs = other.texts()
        partner = matches(texts, theirs, self._check.similarity)
        found = np.flatnonzero(partner >= 0)
        if not len(found):
            return
        groups = clusters(texts, self._check.similarity)
        others = clusters(theirs, self._check.similarity)
        chance = min(
            chance_of(group_sizes(groups), len(np.unique(groups[found])), len(theirs)),
            chance_of(group_sizes(others), len(np.unique(others[partner[found]])), len(texts)),
        )
        same = self._context.split is not None and self._context.split == reference.split
        critical = chance < self._check.chance_critical and not same
        kind = f"the {reference.split} set" if reference.split else "the set"
        yield Finding(
            rule_id="LEAK003",
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            message=f"{counted(len(found), 'row holds', 'rows hold')} nearly the same text as a row of "
            f"{kind} {reference.ref}.",
            columns=(name,),
            rows=RowSet.of(texts.rows[found].tolist()),
            score=len(found) / len(texts),
            fdr=0.0,
            action=f"Remove the rows from this set (or from {reference.ref}) before training.",
            evidence={
                "reference": reference.ref,
                "pairs": [[int(texts.rows[i]), int(theirs.rows[partner[i]])] for i in found[:100]],
                "chance": chance,
                **self._scope(collected, texts),
            },
        )


CHECK = NearDuplicateText()
