"""Training rows from the time that a test set is to stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need, Reference, Rows, counted, set_name
from dataset_guard.checks.leakage.columns import is_time, microseconds, plain_type
from guard_core.findings import Finding, RowSet, Severity

_LISTED = 100_000
_SAMPLED = 200_000


@dataclass(frozen=True, slots=True)
class TemporalLeakage:
    """LEAK007: rows of this set lie in the time of a test or validation set that was to come after it.

    A set counts as split by time when ``ordered_share`` of its rows lie before the test set's middle; then
    rows after the test set's start (its earliest ``start_quantile``, so that one stray date decides nothing)
    are reported, as a warning from ``warning_share`` of the rows on. Sets that cover the same time are
    information.
    """

    ordered_share: float = 0.8
    start_quantile: float = 0.01
    warning_share: float = 0.0005

    name: ClassVar[str] = "temporal_leakage"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("LEAK007",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a time column, and a test or validation set to compare with."""
        if not self.chosen(context):
            return "there is no column of times"
        return None if self.tests(context) else "no test or validation set was named (--against)"

    def chosen(self, context: CheckContext) -> list[str]:
        """Columns of dates and timestamps."""
        return [f.name for f in context.schema if is_time(plain_type(f.type)) and f.name != context.label]

    def tests(self, context: CheckContext) -> list[Reference]:
        """The sets to compare with."""
        own = f"{context.tenant}/{context.name}"
        if context.split in ("test", "validation"):
            return []
        return [r for r in context.against if r.split in ("test", "validation") and set_name(r) != own]

    def start(self, context: CheckContext) -> TemporalState:
        """Reads the other sets' times."""
        return TemporalState(self, context)


@dataclass(slots=True)
class _Side:
    """One column against one test set: its start and middle, and what was counted of ours."""

    column: str
    reference: Reference
    start: int
    middle: int
    rows: int = 0
    before_middle: int = 0
    after_start: int = 0
    listed: list[Rows] | None = None

    def count(self, ticks: Any, known: Any, first_row: int) -> None:
        late = known & (ticks >= self.start)
        self.rows += int(known.sum())
        self.before_middle += int((known & (ticks < self.middle)).sum())
        self.after_start += int(late.sum())
        self.keep([*(self.listed or []), np.flatnonzero(late) + first_row])

    def keep(self, parts: list[Rows]) -> None:
        if sum(map(len, parts)) > _LISTED:
            parts = [np.sort(np.concatenate(parts))[:_LISTED]]
        self.listed = parts

    def merge(self, other: _Side) -> None:
        self.rows += other.rows
        self.before_middle += other.before_middle
        self.after_start += other.after_start
        self.keep([*(self.listed or []), *(other.listed or [])])


class TemporalState:
    """Memory: the first 100,000 late rows of each time column and test set, 8 bytes each."""

    def __init__(self, check: TemporalLeakage, context: CheckContext) -> None:
        self._check = check
        self._sides = [s for r in check.tests(context) for s in sides(check, context, r)]
        self.skipped: str | None = None if self._sides else "the test sets hold no such column, or are gone"

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Count the rows that lie in the test sets' time."""
        times = {s.column: microseconds(batch.column(s.column)) for s in self._sides}
        for side in self._sides:
            side.count(*times[side.column], first_row)

    def merge(self, other: TemporalState) -> None:
        """Add the counts of other rows."""
        for mine, theirs in zip(self._sides, other._sides, strict=True):
            mine.merge(theirs)

    def finish(self) -> Iterator[Finding]:
        """One finding for each column and test set that this set reaches into."""
        for side in self._sides:
            if not side.after_start:
                continue
            ordered = side.before_middle / side.rows >= self._check.ordered_share
            share = side.after_start / side.rows
            what = "although most of them lie before it" if ordered else "as both sets cover the same time"
            yield Finding(
                rule_id="LEAK007",
                severity=Severity.WARNING
                if ordered and share >= self._check.warning_share
                else Severity.INFO,
                message=f"{counted(side.after_start, 'row')} lie, by {side.column!r}, in the time of the "
                f"{side.reference.split} set {side.reference.ref}, {what}.",
                columns=(side.column,),
                rows=RowSet.of(np.concatenate(side.listed or []).tolist()) if ordered else RowSet(),
                count=side.after_start,
                score=round(share, 6),
                action="Remove these rows, or cut both sets at one moment."
                if ordered
                else "If the model is to predict the future, split by time instead of by chance.",
                evidence={
                    "reference": side.reference.ref,
                    "share": round(share, 6),
                    "split_by_time": ordered,
                },
            )


def sides(check: TemporalLeakage, context: CheckContext, reference: Reference) -> Iterator[_Side]:
    """The time columns that this set and ``reference`` share, with the reference's start and middle."""
    source = reference.open()
    if source is None:
        return
    shared = [
        n
        for n in check.chosen(context)
        if n in source.schema.names and is_time(plain_type(source.schema.field(n).type))
    ]
    if not shared:
        return
    step = max(1, (source.num_rows or 0) // _SAMPLED)
    seen: dict[str, list[Any]] = {n: [] for n in shared}
    for batch in source.batches(columns=shared):
        for name in shared:
            ticks, known = microseconds(batch.column(name))
            seen[name].append(ticks[known][::step])
    for name in shared:
        ticks = np.sort(np.concatenate(seen[name]))
        if len(ticks):
            start = int(ticks[int(check.start_quantile * (len(ticks) - 1))])
            yield _Side(name, reference, start, int(ticks[len(ticks) // 2]))


CHECK = TemporalLeakage()
