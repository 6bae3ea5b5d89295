"""Columns that know the label: what will not be known when a model is asked, or is the answer itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.checks.base import CheckContext, Hashes, Need
from dataset_guard.checks.leakage.columns import microseconds, plain_type
from dataset_guard.checks.sampling import RowSample, priorities
from dataset_guard.scanning.profile import plain
from guard_core.findings import Finding, Severity


@dataclass(frozen=True, slots=True)
class TargetLeakage:
    """LEAK008: one column, its being missing, or the order of two times tells the label.

    Reported from a predictability of ``share`` on (0: no better than guessing, 1: always right), for missing
    values and pairs of times from ``hint_share`` on. A sample of ``row_budget`` rows is looked at. A warning
    at most: whether a column may know the label, only its owner can say.
    """

    share: float = 0.95
    hint_share: float = 0.6
    row_budget: int = 20_000
    least_rows: int = 100
    most_columns: int = 2_000

    name: ClassVar[str] = "target_leakage"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("LEAK008",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a label, and another column."""
        if context.label is None:
            return "no label column is named (--label)"
        return None if len(context.schema) > 1 else "there is no column but the label"

    def start(self, context: CheckContext) -> TargetState:
        """An empty sample."""
        return TargetState(self, context)


class TargetState:
    """Memory: at most twice ``row_budget`` rows of columns that are not nested."""

    def __init__(self, check: TargetLeakage, context: CheckContext) -> None:
        self._check = check
        self._seed = context.seed
        self._label = str(context.label)
        names = [
            f.name for f in context.schema if f.name != self._label and not pt.is_nested(plain_type(f.type))
        ]
        self._columns = names[: check.most_columns]
        self._schema = pa.schema([context.schema.field(n) for n in [*self._columns, self._label]])
        self._sample = RowSample(check.row_budget, context.seed)
        self.skipped: str | None = None
        self.details: dict[str, Any] | None = None

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Offer the rows to the sample."""
        rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
        self._sample.update(batch.select(self._schema.names), rows)

    def merge(self, other: TargetState) -> None:
        """Take in the sample of other rows."""
        self._sample.merge(other._sample)

    def finish(self) -> Iterator[Finding]:
        """Column by column, then pairs of times, then the order of the rows."""
        from dataset_guard.checks.leakage.predictability import binned, target_of

        rows, sample = self._sample.finish(self._schema)
        target = target_of(sample[self._label])
        if target is None or len(rows) < self._check.least_rows:
            few = f"fewer than {self._check.least_rows:,} rows were seen"
            self.skipped = (
                few if len(rows) < self._check.least_rows else "the label is neither classes nor numbers"
            )
            return
        looked = _Looked(self._check, self._seed, rows, target)
        order = looked.power(rows * 32 // (int(rows[-1]) + 1) + 1)
        self.details = {"rows_examined": len(rows), "row_order": round(order, 4)}
        for name in self._columns:
            codes = binned(sample[name])
            if codes is not None:
                yield from self._column(name, codes, looked, order)
        yield from self._times(sample, looked)

    def _column(self, name: str, codes: Any, looked: _Looked, order: float) -> Iterator[Finding]:
        power, missing = looked.power(codes), (codes == 0).astype(np.int64)
        empty = looked.power(missing) if missing.any() and not missing.all() else 0.0
        if empty >= self._check.hint_share and empty >= power - 0.05:
            said = f"Whether column {name!r} is filled in tells the label: it may be filled in afterwards."
            yield looked.finding((name,), said, empty, "missing", missing, Severity.WARNING)
        elif power >= self._check.share:
            in_order = order >= power - 0.02
            how = "as well as the order of the rows does" if in_order else "almost surely"
            severity = Severity.INFO if in_order else Severity.WARNING
            said = f"Column {name!r} alone tells the label {how}."
            yield looked.finding((name,), said, power, "column", codes, severity)

    def _times(self, sample: pa.Table, looked: _Looked) -> Iterator[Finding]:
        times = [n for n in self._columns if pt.is_timestamp(plain(sample[n]).type)][:16]
        ticks = {n: microseconds(sample[n])[0] for n in times}
        for i, one in enumerate(times):
            for two in times[i + 1 :]:
                codes = (np.sign(ticks[one] - ticks[two]) + 1).astype(np.int64)
                power = looked.power(codes)
                if power >= self._check.hint_share:
                    message = (
                        f"Which of {one!r} and {two!r} comes first tells the label: one is an outcome's time."
                    )
                    yield looked.finding((one, two), message, power, "time order", codes, Severity.WARNING)


class _Looked:
    """The sample's label and halves."""

    def __init__(self, check: TargetLeakage, seed: int, rows: Any, target: Any) -> None:
        self._check = check
        self._seed = seed
        self._target = target
        self._rows = len(rows)
        self._halves = priorities(rows, seed + 1) % np.uint64(2) == 0

    def power(self, codes: Any) -> float:
        from dataset_guard.checks.leakage.predictability import predictability

        return predictability(codes, self._target, self._halves)

    def finding(
        self, columns: tuple[str, ...], message: str, power: float, kind: str, codes: Any, severity: Severity
    ) -> Finding:
        from dataset_guard.checks.leakage.predictability import by_chance

        chance = by_chance(codes, self._target, self._halves, power, seed=self._seed)
        return Finding(
            rule_id="LEAK008",
            severity=severity,
            message=message,
            columns=columns,
            count=0,
            score=round(power, 6),
            action="Leave the column out, unless it is known before the label is; then waive this.",
            evidence={"kind": kind, "p_value": chance, "rows_examined": self._rows},
        )


CHECK = TargetLeakage()
