"""Great Expectations' suites: a given one, or what the trusted version leads to expect, or the least of all.

The common expectations are compiled (:mod:`dataset_guard.checks.quality.compiled`): one vectorised pass over
the blocks, without importing Great Expectations. The rest it evaluates itself: expectations on single rows
block by block, their counts added; those on distinct values on the merged distinct values. Whatever needs
all rows of a column at once gets them up to a budget; beyond it the expectation is reported as not evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need
from dataset_guard.checks.quality import gx_engine, gx_suite
from dataset_guard.checks.quality.compiled import Compiled, compiled
from dataset_guard.checks.quality.compiled_pass import CompiledPass
from dataset_guard.checks.quality.gx_findings import MOST_RESULTS, findings, gx_result, in_order
from dataset_guard.checks.quality.gx_pass import GreatExpectationsPass
from dataset_guard.checks.quality.gx_suite import Suite
from dataset_guard.checks.quality.gx_tally import Tally
from guard_core.findings import Finding, RowSet


@dataclass(frozen=True, slots=True)
class Expectations:
    """QUAL001 expectation not met, QUAL002 column missing or of another type, QUAL004 not evaluated.

    ``suite`` is the path of a suite's JSON, the JSON, or an ExpectationSuite. Without one, a suite is
    derived from the trusted version: ranges are widened by ``range_slack`` of their width, and must hold for
    ``range_mostly`` of the rows. ``column_bytes`` limits what compiled expectations on whole columns keep,
    ``whole_rows`` and ``whole_bytes`` what is kept for those that Great Expectations evaluates.
    """

    suite: Any = None
    range_slack: float = 0.25
    range_mostly: float = 0.99
    whole_rows: int = 2_000_000
    whole_bytes: int = 268_435_456
    column_bytes: int = 536_870_912

    name: ClassVar[str] = "expectations"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("QUAL001", "QUAL002", "QUAL004")
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Always; without Great Expectations, what is not compiled is reported as not evaluated."""
        return None

    def start(self, context: CheckContext) -> ExpectationsState:
        """Counts from zero. Raises UserError for a suite that is none."""
        if self.suite is not None:
            return ExpectationsState(self, context, gx_suite.given(self.suite))
        profile = context.baseline.profile if context.baseline is not None else {}
        derived = gx_suite.derived(profile, context.label, slack=self.range_slack, mostly=self.range_mostly)
        return ExpectationsState(
            self, context, derived or gx_suite.minimal(context.schema.names, context.label)
        )


class ExpectationsState:
    """Memory: counts, row numbers and the columns within budget that the two passes keep."""

    def __init__(self, check: Expectations, context: CheckContext, suite: Suite) -> None:
        self._context = context
        self._suite = suite
        self._tallies = [Tally(e) for e in suite.expectations]
        self._rows = 0
        self.details: dict[str, Any] | None = None
        self._refuse()
        found = {i: compiled(suite.expectations[i], context.schema) for i in self._open()}
        rules = {i: rule for i, rule in found.items() if rule is not None}
        self._compiled = CompiledPass(rules, self._tallies, check.column_bytes)
        self._rest = GreatExpectationsPass(
            self._left_to_great_expectations(rules),
            self._tallies,
            context.schema,
            whole_rows=check.whole_rows,
            whole_bytes=check.whole_bytes,
        )

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

    def _open(self) -> list[int]:
        return [i for i, t in enumerate(self._tallies) if not t.problem and not t.lacking]

    def _left_to_great_expectations(self, rules: Mapping[int, Compiled]) -> list[int]:
        """The numbers of what is not compiled. Raises UserError for a given suite that it would refuse."""
        if not gx_engine.installed():
            for i in self._open():
                if i not in rules:
                    self._tallies[i].problem = "it needs Great Expectations: pip install 'trainguard[gx]'"
            return []
        if self._suite.origin == "given":
            # Before hours of reading, not after; what lacks a column may be nonsense in other ways, too.
            unread = {i: e for i, e in enumerate(self._suite.expectations) if i not in rules}
            if unread:
                gx_engine.reject_invalid(unread)
        left = [i for i in self._open() if i not in rules]
        for i in left:
            self._tallies[i].engine = "great_expectations"
        return left

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Take one block."""
        self._rows += batch.num_rows
        self._compiled.update(batch, first_row)
        self._rest.update(batch, first_row)

    def merge(self, other: ExpectationsState) -> None:
        """Add the counts and kept columns of other rows."""
        self._rows += other._rows
        for mine, theirs in zip(self._tallies, other._tallies, strict=True):
            mine.merge(theirs)
        self._compiled.merge(other._compiled)
        self._rest.merge(other._rest)

    def finish(self) -> Iterator[Finding]:
        """Run what is left, and say what is not met."""
        self._compiled.finish(self._rows)
        self._rest.finish(self._rows)
        self.details = self.result()
        yield from findings(self._suite, self._tallies, self._context)

    def result(self, *, most: int | None = MOST_RESULTS) -> dict[str, Any]:
        """After :meth:`finish`: the validation result with at most ``most`` results."""
        return gx_result(self._suite, self._tallies, gx_engine.version(), most=most)

    def unexpected_rows(self) -> Iterator[RowSet]:
        """After :meth:`finish`: the rows of each result, in its order; at most a million each."""
        for tally in in_order(self._tallies):
            yield RowSet.of(np.unique(np.concatenate(tally.rows)).tolist() if tally.rows else ())


CHECK = Expectations()
