"""What of a suite Great Expectations itself evaluates, over one table.

Expectations on single rows run block by block, and their counts add up. Those on distinct values run on
the merged distinct values, those on the number of rows on that number. Whatever needs all rows of a column
at once gets them up to a budget.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dataset_guard.checks.quality import gx_engine, gx_suite
from dataset_guard.checks.quality.gx_suite import Expected
from dataset_guard.checks.quality.gx_tally import Tally
from dataset_guard.scanning.profile import plain

_TYPED_ROWS = 1_000


class GreatExpectationsPass:
    """The expectations numbered ``asked`` of a suite; ``tallies`` are the suite's, written to here.

    Memory: the distinct values and the whole columns that are needed, each up to ``whole_bytes``, the latter
    also up to ``whole_rows`` rows.
    """

    def __init__(
        self,
        asked: Sequence[int],
        tallies: list[Tally],
        schema: pa.Schema,
        *,
        whole_rows: int,
        whole_bytes: int,
    ) -> None:
        self._asked = asked
        self._tallies = tallies
        self._schema = schema
        self._whole_rows, self._whole_bytes = whole_rows, whole_bytes
        self._sample: pa.RecordBatch | None = None
        self._whole: list[tuple[int, pa.Table]] = []
        self._distinct: dict[str, pa.Array] = {}
        self._over: set[gx_suite.Scope] = set()
        self._blockwise = self._of("rows")
        self._counted = sorted({c for i in self._of("distinct") for c in tallies[i].expected.columns})
        whole = [tallies[i].expected for i in self._of("whole")]
        self._together = self._names(whole) if whole else []

    def _of(self, scope: gx_suite.Scope) -> list[int]:
        return [i for i in self._asked if self._tallies[i].expected.scope == scope]

    def update(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Run what runs on blocks; keep what the rest needs."""
        if self._sample is None:
            self._sample = batch.slice(0, _TYPED_ROWS)
        self._keep(batch, first_row)
        asked = [i for i in self._blockwise if not self._tallies[i].problem]
        if not asked:
            return
        expected = [self._tallies[i].expected for i in asked]
        outcomes = gx_engine.evaluate_columns(batch, self._names(expected), expected, first_row)
        for i, outcome in zip(asked, outcomes, strict=True):
            self._tallies[i].add(outcome)

    def _names(self, expected: Sequence[Expected]) -> list[str]:
        """Columns that ``expected`` need: all, where one has a condition on other columns."""
        if any(e.kwargs.get("row_condition") for e in expected):
            return list(self._schema.names)
        used = {c for e in expected for c in e.columns}
        return [n for n in self._schema.names if n in used]

    def _keep(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Distinct values, and the columns that are needed whole."""
        if "distinct" not in self._over:
            for name in self._counted:
                self._distinct[name] = _united(self._distinct.get(name), plain(batch.column(name)))
        if self._together and "whole" not in self._over:
            self._whole.append((first_row, pa.table(batch.select(self._together))))
        self._stay_within_budget()

    def _stay_within_budget(self) -> None:
        limit = self._whole_bytes
        if sum(v.nbytes for v in self._distinct.values()) > limit:
            self._over.add("distinct")
            self._distinct = {}
        rows = sum(t.num_rows for _, t in self._whole)
        if rows > self._whole_rows or sum(t.nbytes for _, t in self._whole) > limit:
            self._over.add("whole")
            self._whole = []

    def merge(self, other: GreatExpectationsPass) -> None:
        """Absorb what other rows left; the tallies are merged by their owner."""
        self._sample = self._sample or other._sample
        self._over |= other._over
        for name, values in other._distinct.items():
            self._distinct[name] = _united(self._distinct.get(name), values)
        self._whole += other._whole
        if "distinct" in self._over:
            self._distinct = {}
        if "whole" in self._over:
            self._whole = []
        self._stay_within_budget()

    def finish(self, rows: int) -> None:
        """Run what is left; ``rows`` is the number of all rows."""
        for i in self._blockwise:
            self._tallies[i].settle()
        self._on_schema()
        counted = self._of("count")
        expected = [self._tallies[i].expected for i in counted]
        self._settle(counted, gx_engine.evaluate(gx_engine.empty_frame(rows), expected) if counted else [])
        self._on_distinct(rows)
        self._on_whole(rows)

    def _run(self, asked: Sequence[int], data: pa.Table | pa.RecordBatch) -> None:
        expected = [self._tallies[i].expected for i in asked]
        self._settle(asked, gx_engine.evaluate_columns(data, data.schema.names, expected))

    def _settle(self, asked: Sequence[int], outcomes: Sequence[gx_engine.Outcome]) -> None:
        for i, outcome in zip(asked, outcomes, strict=True):
            self._tallies[i].conclude(outcome)

    def _on_schema(self) -> None:
        asked = self._of("schema")
        if not asked or self._sample is None:
            return
        self._run(asked, self._sample)
        # A suite may name numpy's types, which Arrow columns do not have: either name will do.
        failed = [
            i
            for i in asked
            if not self._tallies[i].success and self._tallies[i].expected.type in gx_suite.TYPES
        ]
        for i in failed:
            self._tallies[i] = Tally(self._tallies[i].expected, engine="great_expectations")
        if failed:
            data = gx_engine.plain_frame(self._sample, self._sample.schema.names)
            self._settle(failed, gx_engine.evaluate(data, [self._tallies[i].expected for i in failed]))

    def _on_distinct(self, rows: int) -> None:
        asked = self._of("distinct")
        if "distinct" in self._over:
            self._give_up(asked, rows)
            return
        for name, values in self._distinct.items():
            mine = [i for i in asked if self._tallies[i].expected.columns == (name,)]
            self._run(mine, pa.table({name: values}))

    def _on_whole(self, rows: int) -> None:
        asked = self._of("whole")
        if "whole" in self._over:
            self._give_up(asked, rows)
        elif asked and self._whole:
            parts = [table for _, table in sorted(self._whole, key=lambda p: p[0])]
            whole = pa.concat_tables(parts).combine_chunks()
            self._run(asked, whole)

    def _give_up(self, asked: Sequence[int], rows: int) -> None:
        for i in asked:
            self._tallies[i].problem = (
                f"it needs whole columns of {rows:,} rows, more than the budget of "
                f"{self._whole_rows:,} rows or {self._whole_bytes:,} bytes"
            )


def _united(before: pa.Array | None, values: pa.Array) -> pa.Array:
    """The distinct values of both, without null."""
    found = values.drop_null().unique()
    return found if before is None else pa.concat_arrays([before, found]).unique()
