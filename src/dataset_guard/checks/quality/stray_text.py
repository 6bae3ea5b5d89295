"""Columns of numbers that are text because a few of their values are not numbers.

One ``NA``, ``?`` or ``12 kg`` makes a CSV reader take a whole column as text. Trainers then treat each number
as a category of its own, or stop; and the checks that compare numbers see none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, counted
from dataset_guard.scanning.profile import is_text, plain
from guard_core.findings import Finding, RowSet, Severity

LISTED = 10_000
"""Rows of one column that a finding names, the first ones; the others are counted."""


@dataclass(frozen=True, slots=True)
class StrayText:
    """QUAL014: text in a column of numbers.

    A column is one of numbers when at least ``least_numbers`` of its values are, and ``least_share`` of those
    that are not words for "no value". Those words alone are an ``info``; other text is a ``warning``.
    """

    least_numbers: int = 20
    least_share: float = 0.95

    name: ClassVar[str] = "stray_text"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("QUAL014",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column of text."""
        return None if self.columns(context) else "there is no column of text"

    def columns(self, context: CheckContext) -> list[str]:
        """Columns whose values are text, in dictionaries or not."""
        return [f.name for f in context.schema if is_text(_values(f.type))]

    def start(self, context: CheckContext) -> StrayTextState:
        """Counts from zero."""
        return StrayTextState(self, context)


@dataclass(slots=True)
class _Tally:
    """``counts``: values by kind (:mod:`number_words`); ``strays``: the first rows that are no number."""

    counts: Any = field(default_factory=lambda: np.zeros(4, np.int64))
    strays: Rows = field(default_factory=lambda: np.zeros(0, np.int64))

    def keep(self, rows: Rows) -> None:
        self.strays = np.sort(np.concatenate([self.strays, rows]))[:LISTED]


class StrayTextState:
    """Memory: four counts and at most :data:`LISTED` row numbers per column of text."""

    def __init__(self, check: StrayText, context: CheckContext) -> None:
        self._check = check
        self._tallies = {name: _Tally() for name in check.columns(context)}

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Count each column's values by kind."""
        from dataset_guard.checks.quality.number_words import NO_VALUE

        for name, tally in self._tallies.items():
            kinds = _kinds(batch.column(name))
            tally.counts += np.bincount(kinds, minlength=4)
            if len(tally.strays) < LISTED or first_row < tally.strays[-1]:
                rows = np.flatnonzero(kinds >= NO_VALUE)
                if len(rows):
                    tally.keep(rows + first_row)

    def merge(self, other: StrayTextState) -> None:
        """Add the counts, and keep the first rows of both."""
        for name, tally in self._tallies.items():
            theirs = other._tallies[name]
            tally.counts += theirs.counts
            tally.keep(theirs.strays)

    def finish(self) -> Iterator[Finding]:
        """One finding for each column of numbers that is text."""
        for name, tally in self._tallies.items():
            _, numbers, no_value, other = (int(n) for n in tally.counts)
            many = numbers >= max(self._check.least_numbers, self._check.least_share * (numbers + other))
            if many and (no_value or other):
                yield self._finding(name, tally, numbers, no_value, other)

    def _finding(self, name: str, tally: _Tally, numbers: int, no_value: int, other: int) -> Finding:
        strays = no_value + other
        said = [f'{counted(no_value, "word")} for "no value"'] if no_value else []
        said += [f"{counted(other, 'value')} of other text"] if other else []
        return Finding(
            rule_id="QUAL014",
            severity=Severity.WARNING if other else Severity.INFO,
            message=f"Column {name!r} is text although {numbers:,} of its values are numbers: it also has "
            f"{' and '.join(said)}.",
            columns=(name,),
            rows=RowSet.of(tally.strays.tolist()),
            count=strays,
            score=strays / (numbers + strays),
            action="Leave cells without a value empty, correct the other ones, and write the file again: "
            "then the column is read as numbers.",
            evidence={"numbers": numbers, "no_value": no_value, "other": other},
        )


def _values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pt.is_dictionary(kind) else kind


def _kinds(column: Any) -> Any:
    """The kind of each value of a batch's column; a dictionary's entries are looked at once."""
    from dataset_guard.checks.quality.number_words import ABSENT, kinds_of

    if not pt.is_dictionary(column.type):
        return kinds_of(plain(column))
    entries = np.append(kinds_of(plain(column.dictionary)), np.uint8(ABSENT))  # the last one is for null
    return entries[np.asarray(column.indices.fill_null(len(entries) - 1))]


CHECK = StrayText()
