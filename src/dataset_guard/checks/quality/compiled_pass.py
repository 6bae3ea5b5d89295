"""The compiled part of a suite over one table: blocks in, tallies out."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from dataset_guard.checks.quality.compiled import Block, Compiled
from dataset_guard.checks.quality.gx_tally import Tally


class CompiledPass:
    """``rules`` by the number of the expectation in the suite; ``tallies`` are the suite's, written to here.

    Memory: row numbers of unexpected rows (a million per expectation at most), and what rules over whole
    columns keep: up to ``column_bytes`` together, beyond which the largest is given up.
    """

    def __init__(self, rules: Mapping[int, Compiled], tallies: list[Tally], column_bytes: int) -> None:
        self._tallies = tallies
        self._limit = column_bytes
        self._of_rows = {i: r.rows for i, r in rules.items() if r.rows is not None}
        self._of_columns = {i: r.column() for i, r in rules.items() if r.column is not None}
        self._of_table = {i: r.table for i, r in rules.items() if r.table is not None}
        self._given_up: set[int] = set()

    def update(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Take the rows ``first_row ...``; each column is looked at once for all rules that need it."""
        block = Block(batch, first_row)
        for i, judge in self._of_rows.items():
            self._tallies[i].add(judge(block))
        for column in self._of_columns.values():
            column.update(block)
        self._stay_within_budget()

    def _stay_within_budget(self) -> None:
        while sum(rule.nbytes for rule in self._of_columns.values()) > self._limit:
            largest = max(self._of_columns, key=lambda i: self._of_columns[i].nbytes)
            del self._of_columns[largest]
            self._given_up.add(largest)

    def merge(self, other: CompiledPass) -> None:
        """Absorb the state of other rows of the same table; the tallies are merged by their owner."""
        self._given_up |= other._given_up
        for i in self._given_up:
            self._of_columns.pop(i, None)
        for i, rule in self._of_columns.items():
            rule.merge(other._of_columns[i])
        self._stay_within_budget()

    def finish(self, rows: int) -> None:
        """Settle every tally; ``rows`` is the number of all rows."""
        for i in self._of_rows:
            self._tallies[i].settle()
        for i in sorted(self._of_columns):
            # One by one, and each forgotten at once: sorting one takes as much again.
            self._tallies[i].conclude(self._of_columns.pop(i).finish())
        for i, rule in self._of_table.items():
            self._tallies[i].conclude(rule(rows))
        for i in self._given_up:
            self._tallies[
                i
            ].problem = f"the values of {rows:,} rows need more than the budget of {self._limit:,} bytes"
