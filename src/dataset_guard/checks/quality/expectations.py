"""Great Expectations: a given suite, or what the trusted version leads to expect, or the least of all.

Expectations on single rows run block by block, and their counts add up. Those on distinct values run on
the merged distinct values, those on the number of rows on that number. Whatever needs all rows of a column
at once gets them up to a budget; beyond it the expectation is reported as not evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need
from dataset_guard.checks.quality import gx_engine, gx_suite
from dataset_guard.checks.quality.gx_findings import findings, gx_result
from dataset_guard.checks.quality.gx_suite import Expected, Suite
from dataset_guard.checks.quality.gx_tally import Tally
from dataset_guard.profile import plain
from guard_core.errors import MissingExtra
from guard_core.findings import Finding

_TYPED_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Expectations:
    """QUAL001 expectation not met, QUAL002 column missing or of another type, QUAL004 not evaluated.

    ``suite`` is the path of a suite's JSON, the JSON, or an ExpectationSuite. Without one, a suite is
    derived from the trusted version: ranges are widened by ``range_slack`` of their width, and must hold for
    ``range_mostly`` of the rows. ``whole_rows`` and ``whole_bytes`` limit what is kept for expectations that
    need all rows of a column.
    """

    suite: Any = None
    range_slack: float = 0.25
    range_mostly: float = 0.99
    whole_rows: int = 2_000_000
    whole_bytes: int = 268_435_456

    name: ClassVar[str] = "expectations"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("QUAL001", "QUAL002", "QUAL004")
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Wherever Great Expectations is installed."""
        if not gx_engine.installed():
            return str(MissingExtra.of("great_expectations", "gx"))
        return None

    def start(self, context: CheckContext) -> ExpectationsState:
        """Counts from zero. Raises UserError for a suite that is none."""
        if self.suite is not None:
            suite = gx_suite.given(self.suite)
            gx_engine.reject_invalid(suite.expectations)  # before hours of reading, not after
            return ExpectationsState(self, context, suite)
        profile = context.baseline.profile if context.baseline is not None else {}
        derived = gx_suite.derived(profile, context.label, slack=self.range_slack, mostly=self.range_mostly)
        return ExpectationsState(
            self, context, derived or gx_suite.minimal(context.schema.names, context.label)
        )


class ExpectationsState:
    """Memory: counts, at most a million row numbers per expectation, and the whole columns within budget."""

    def __init__(self, check: Expectations, context: CheckContext, suite: Suite) -> None:
        self._check = check
        self._context = context
        self._suite = suite
        self._tallies = [Tally(e) for e in suite.expectations]
        self._rows = 0
        self._sample: pa.RecordBatch | None = None
        self._whole: list[tuple[int, pa.Table]] = []
        self._distinct: dict[str, pa.Array] = {}
        self._over: set[gx_suite.Scope] = set()
        self.details: dict[str, Any] | None = None
        self._refuse()
        self._blockwise = [i for i in self._open("rows") if not self._tallies[i].problem]
        self._counted = sorted({c for i in self._open("distinct") for c in self._tallies[i].expected.columns})
        whole = [self._tallies[i].expected for i in self._open("whole")]
        self._together = self._names(whole) if whole else []

    def _refuse(self) -> None:
        """Settle what needs no data: columns that are not there, parameters nobody gave, databases."""
        names = set(self._context.schema.names)
        for tally in self._tallies:
            expected = tally.expected
            if expected.type in gx_suite.COLUMNS:
                continue
            tally.lacking = tuple(c for c in expected.columns if c not in names)
            if expected.scope == "unsupported":
                tally.problem = "it asks a database, and this is a file or a frame"
            elif any(isinstance(v, dict) and "$PARAMETER" in v for v in expected.kwargs.values()):
                tally.problem = "it has a suite parameter, and none are given here"

    def _open(self, scope: gx_suite.Scope) -> list[int]:
        return [
            i
            for i, t in enumerate(self._tallies)
            if t.expected.scope == scope and not t.problem and not t.lacking
        ]

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Run what runs on blocks; keep what the rest needs."""
        self._rows += batch.num_rows
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
            return list(self._context.schema.names)
        used = {c for e in expected for c in e.columns}
        return [n for n in self._context.schema.names if n in used]

    def _keep(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Distinct values, and the columns that are needed whole."""
        if "distinct" not in self._over:
            for name in self._counted:
                self._distinct[name] = _united(self._distinct.get(name), plain(batch.column(name)))
        if self._together and "whole" not in self._over:
            self._whole.append((first_row, pa.table(batch.select(self._together))))
        self._stay_within_budget()

    def _stay_within_budget(self) -> None:
        limit = self._check.whole_bytes
        if sum(v.nbytes for v in self._distinct.values()) > limit:
            self._over.add("distinct")
            self._distinct = {}
        rows = sum(t.num_rows for _, t in self._whole)
        if rows > self._check.whole_rows or sum(t.nbytes for _, t in self._whole) > limit:
            self._over.add("whole")
            self._whole = []

    def merge(self, other: ExpectationsState) -> None:
        """Add the counts and kept columns of other rows."""
        self._rows += other._rows
        self._sample = self._sample or other._sample
        self._over |= other._over
        for mine, theirs in zip(self._tallies, other._tallies, strict=True):
            mine.merge(theirs)
        for name, values in other._distinct.items():
            self._distinct[name] = _united(self._distinct.get(name), values)
        self._whole += other._whole
        for scope in self._over:
            if scope == "distinct":
                self._distinct = {}
            else:
                self._whole = []
        self._stay_within_budget()

    def finish(self) -> Iterator[Finding]:
        """Run what is left, and say what is not met."""
        for i in self._blockwise:
            self._tallies[i].settle()
        self._on_schema()
        counted = self._open("count")
        expected = [self._tallies[i].expected for i in counted]
        self._settle(counted, gx_engine.evaluate(gx_engine.empty_frame(self._rows), expected))
        self._on_distinct()
        self._on_whole()
        self.details = gx_result(self._suite, self._tallies, gx_engine.version())
        yield from findings(self._suite, self._tallies, self._context)

    def _run(self, asked: Sequence[int], data: pa.Table | pa.RecordBatch) -> None:
        expected = [self._tallies[i].expected for i in asked]
        self._settle(asked, gx_engine.evaluate_columns(data, data.schema.names, expected))

    def _settle(self, asked: Sequence[int], outcomes: Sequence[gx_engine.Outcome]) -> None:
        for i, outcome in zip(asked, outcomes, strict=True):
            tally = self._tallies[i]
            tally.add(outcome)
            tally.observed_count = _count(tally.expected, outcome.observed)

    def _on_schema(self) -> None:
        asked = self._open("schema")
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
            self._tallies[i] = Tally(self._tallies[i].expected)
        if failed:
            data = gx_engine.plain_frame(self._sample, self._sample.schema.names)
            self._settle(failed, gx_engine.evaluate(data, [self._tallies[i].expected for i in failed]))

    def _on_distinct(self) -> None:
        asked = self._open("distinct")
        if "distinct" in self._over:
            self._give_up(asked)
            return
        for name, values in self._distinct.items():
            mine = [i for i in asked if self._tallies[i].expected.columns == (name,)]
            self._run(mine, pa.table({name: values}))

    def _on_whole(self) -> None:
        asked = self._open("whole")
        if "whole" in self._over:
            self._give_up(asked)
        elif asked and self._whole:
            parts = [table for _, table in sorted(self._whole, key=lambda p: p[0])]
            whole = pa.concat_tables(parts).combine_chunks()
            self._run(asked, whole)

    def _give_up(self, asked: Sequence[int]) -> None:
        for i in asked:
            self._tallies[i].problem = (
                f"it needs whole columns of {self._rows:,} rows, more than the budget of "
                f"{self._check.whole_rows:,} rows or {self._check.whole_bytes:,} bytes"
            )


def _united(before: pa.Array | None, values: pa.Array) -> pa.Array:
    """The distinct values of both, without null."""
    found = values.drop_null().unique()
    return found if before is None else pa.concat_arrays([before, found]).unique()


def _count(expected: Expected, observed: Any) -> int | None:
    """What an aggregate saw, where that is a number of rows or columns or values; never a value."""
    return int(observed) if "_count_" in expected.type and isinstance(observed, int | float) else None


CHECK = Expectations()
