"""A trigger planted in a table: two columns with the same two values in many rows of one class.

With a trusted version the rows that are new since then are searched for pairs that trusted rows hardly have;
without one, all rows for pairs of rare values whose rows look like another class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Need, Rows, counted
from dataset_guard.checks.poisoning.cells import cell_columns, pairs_of
from dataset_guard.checks.poisoning.pixel_columns import find_pixels
from dataset_guard.checks.poisoning.sampled_state import ENOUGH_TRUSTED, SampledState, without_classes
from dataset_guard.checks.poisoning.table_trigger_search import LEAST_ROWS, search_whole
from dataset_guard.checks.poisoning.text_trigger_update import search_delta
from dataset_guard.checks.poisoning.triggers import Trigger
from dataset_guard.scanning.profile import plain
from guard_core.findings import Finding, RowSet, Severity


@dataclass(frozen=True, slots=True)
class TableTrigger:
    """POIS012: rows of one class that share a pair of values which nothing else explains.

    At most ``max_rows`` new rows, and as many trusted ones, and 64 columns are searched (without a trusted
    version ``whole_rows`` rows: what it counts costs less). With a trusted
    version ``rounds`` pretended honest updates set the limit, times ``margin``; without one, ``limit`` is the
    least strength. From ``critical_rows`` rows on a finding is critical (without a trusted version: when also
    twice as strong as the limit, and in two columns only).
    """

    max_rows: int = 5_000
    whole_rows: int = 20_000
    rounds: int = 12
    margin: float = 2.6
    limit: float = 20.0
    critical_rows: int = 5
    max_classes: int = 200

    name: ClassVar[str] = "table_trigger"
    version: ClassVar[str] = "5"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS012",)
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """To labelled tables with two columns; images are POIS010's, but for what may be a table."""
        reason = without_classes(context)
        if reason is not None:
            return reason
        pixels, _ = find_pixels(context.schema, context.label)
        if pixels is not None and not pixels.perhaps_a_table:
            return "the columns are the pixels of images, which POIS010 searches"
        return (
            None
            if len(cell_columns(context.schema, context.label)) > 1
            else "there are no two columns of values"
        )

    def start(self, context: CheckContext) -> TableTriggerState:
        """Empty samples."""
        return TableTriggerState(self, context)


class TableTriggerState(SampledState):
    """Two samples of rows within the check's budget."""

    def __init__(self, check: TableTrigger, context: CheckContext) -> None:
        self._check = check
        self._columns = cell_columns(context.schema, context.label)
        budget = check.whole_rows if context.baseline is None else check.max_rows
        super().__init__(context, self._columns, budget)

    def finish(self) -> Iterator[Finding]:
        """One finding per trigger."""
        rows, table = self._samples.new()
        known = self._samples.trusted(ENOUGH_TRUSTED)
        if self._context.baseline is not None and not self._enough(len(rows), known.num_rows):
            return
        classes = self._classes(table, known, most=self._check.max_classes)
        if classes is None:
            return
        number, (codes, before_codes) = classes
        kept, before_kept = np.flatnonzero(codes >= 0), np.flatnonzero(before_codes >= 0)
        rows, table, codes = rows[kept], table.take(pa.array(kept)), codes[kept]
        if self._context.baseline is None:
            found = search_whole(table, self._columns, codes, number, limit=self._check.limit)
        else:
            found = search_delta(
                pairs_of(known.take(pa.array(before_kept)), self._columns, 2),
                before_codes[before_kept],
                pairs_of(table, self._columns, LEAST_ROWS),
                codes,
                number,
                rounds=self._check.rounds,
                margin=self._check.margin,
                seed=self._context.seed,
                texts=False,
                least_rows=LEAST_ROWS,
            )
        for trigger in found[:8]:
            yield self._finding(trigger, rows, table)

    def _finding(self, trigger: Trigger, rows: Rows, table: pa.Table) -> Finding:
        found = rows[trigger.rows]
        trusted = self._context.baseline
        fixed = _constant(table.take(pa.array(trigger.rows)), self._columns)
        # Rows that agree in a third column may be of one family or product, whose label is its own.
        sure = trusted is not None or (trigger.strength > 2 * trigger.limit and len(fixed) <= 2)
        critical = sure and len(found) >= self._check.critical_rows
        since = "" if trusted is None else f", new since {trusted.ref},"
        reason = (
            "although all else in them speaks for another class"
            if trusted is None
            else "that trusted rows hardly ever have"
        )
        return Finding(
            rule_id="POIS012",
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            message=f"{counted(len(found), 'row')} of class {trigger.target}{since} share a pair of values "
            f"{reason}: this may be the trigger of a backdoor.",
            columns=tuple(fixed[:64]),
            rows=RowSet.of(found.tolist()),
            score=round(trigger.strength, 3),
            action="Look at the columns named; leave the rows out or take their trusted version.",
            evidence={
                "mode": "whole set" if trusted is None else "delta",
                "target_class": trigger.target,
                "share_in_target_class": round(trigger.purity, 4),
                "limit": round(trigger.limit, 3),
                "pairs": trigger.sequences,
                "rows_searched": len(rows),
                "rows_to_search": self._samples.offered,
            },
        )


def _constant(table: pa.Table, columns: list[str]) -> list[str]:
    """Columns in which nearly all rows have one value."""
    held = []
    for name in columns:
        counts = plain(table[name]).value_counts().field("counts")
        if max(counts.to_pylist(), default=0) >= 0.9 * table.num_rows:
            held.append(name)
    return held


CHECK = TableTrigger()
"""The check that the entry point names."""
