"""Items of evaluation suites inside longer texts: questions a model has read do not measure it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, Suite, counted, set_name
from dataset_guard.checks.leakage.near_duplicate_text import holds_plain_text
from dataset_guard.scanning.profile import plain
from guard_core.errors import UserError
from guard_core.findings import Finding, RowSet, Severity

_SHOWN_PAIRS = 100


@dataclass(frozen=True, slots=True)
class Contamination:
    """LEAK004: a text of this set contains an item of a suite named with ``--eval``, edited or not.

    ``share`` of an item's weight must be found in order. ``least_tokens``: shorter items are not looked for,
    since any text may hold them. ``most_items`` of a suite are looked for. From ``critical_items`` different
    items on, or a ``critical_share`` of the suite, a finding is critical.
    """

    share: float = 0.55
    least_tokens: int = 8
    most_items: int = 500_000
    critical_items: int = 3
    critical_share: float = 0.01
    columns: tuple[str, ...] = ()

    name: ClassVar[str] = "contamination"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("LEAK004",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column of text, and a suite."""
        if not self.chosen(context):
            return "there is no text column"
        return None if context.suites else "no evaluation suite was named (--eval)"

    def chosen(self, context: CheckContext) -> list[str]:
        """The columns to look at."""
        texts = [f.name for f in context.schema if holds_plain_text(f.type) and f.name != context.label]
        return [n for n in texts if not self.columns or n in self.columns]

    def start(self, context: CheckContext) -> ContaminationState:
        """Indexes the suites."""
        return ContaminationState(self, context)


@dataclass(frozen=True, slots=True)
class _Suite:
    """One suite, indexed: ``items`` is the row of each unit, ``size`` how many rows there are."""

    ref: str
    size: int
    units: Any
    items: npt.NDArray[np.int64]


@dataclass(slots=True)
class _Found:
    """What one column holds of one suite. Memory: 20 bytes for each row that holds an item."""

    rows: list[Rows] = field(default_factory=list)
    items: list[npt.NDArray[np.int64]] = field(default_factory=list)
    scores: list[npt.NDArray[np.float32]] = field(default_factory=list)
    runs: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def merge(self, other: _Found) -> None:
        for name in ("rows", "items", "scores", "runs"):
            getattr(self, name).extend(getattr(other, name))

    def best(self) -> tuple[Rows, npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Row, item, score and run of the best item of each row; rows ascend."""
        rows, items = np.concatenate(self.rows), np.concatenate(self.items)
        scores, runs = np.concatenate(self.scores), np.concatenate(self.runs)
        order = np.lexsort((items, -scores, rows))
        chosen = order[np.unique(rows[order], return_index=True)[1]]
        return rows[chosen], items[chosen], scores[chosen], runs[chosen]

    def different_items(self) -> int:
        return len(np.unique(np.concatenate(self.items)))


def indexed(check: Contamination, suite: Suite) -> _Suite:
    """``suite`` in its looked-up form. Raises UserError for one without texts, or that is gone."""
    from dataset_guard.checks.leakage.suite_index import index_of

    source = suite.open()
    if source is None:
        raise UserError(f"the data of the evaluation suite {suite.ref} is gone; put it back or name its file")
    names = [f.name for f in source.schema if holds_plain_text(f.type)]
    if not names:
        raise UserError(f"the evaluation suite {suite.ref} has no column of text, so it names no items")
    texts: list[Any] = []
    items: list[npt.NDArray[np.int64]] = []
    row = 0
    for batch in source.batches(columns=names):
        room = check.most_items - row
        for column in batch.slice(0, room).columns:
            texts.append(plain(column).cast(pa.large_string()))
            items.append(np.arange(row, row + len(texts[-1])))
        row += batch.num_rows
        if row >= check.most_items:
            break
    whole = pa.concat_arrays(texts) if texts else pa.array([], pa.large_string())
    return _Suite(
        suite.ref,
        row,
        index_of(whole, check.least_tokens),
        np.concatenate(items) if items else np.empty(0, int),
    )


class ContaminationState:
    """Memory: the suites' indexes (about 1 KB an item), and 20 bytes for each row that holds an item."""

    def __init__(self, check: Contamination, context: CheckContext) -> None:
        self._check = check
        self._context = context
        own = f"{context.tenant}/{context.name}"
        self._suites = [indexed(check, s) for s in context.suites if set_name(s) != own]
        self._columns = check.chosen(context)
        self._found: dict[tuple[str, int], _Found] = {}
        self._rows = 0
        self.details: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without the suites' indexes, which the state that absorbs this one has too."""
        return {**self.__dict__, "_suites": []}

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Look the suites' items up in the texts."""
        from dataset_guard.checks.leakage.suite_index import search

        self._rows += batch.num_rows
        for name in self._columns:
            texts = plain(batch.column(name))
            for number, suite in enumerate(self._suites):
                for hits in search(suite.units, texts, self._check.share):
                    found = self._found.setdefault((name, number), _Found())
                    found.rows.append(hits.texts + first_row)
                    found.items.append(suite.items[hits.units])
                    found.scores.append(hits.scores)
                    found.runs.append(hits.runs)

    def merge(self, other: ContaminationState) -> None:
        """Take in what other rows hold."""
        self._rows += other._rows
        for key, found in other._found.items():
            self._found.setdefault(key, _Found()).merge(found)

    def finish(self) -> Iterator[Finding]:
        """One finding for each column and suite of which it holds items."""
        self.details = {"suites": [{"suite": s.ref, "items": s.size} for s in self._suites]}
        for (name, number), found in sorted(self._found.items()):
            yield self._finding(name, self._suites[number], found)

    def _finding(self, name: str, suite: _Suite, found: _Found) -> Finding:
        rows, items, scores, runs = found.best()
        different = found.different_items()
        share = different / max(1, suite.size)
        critical = different >= self._check.critical_items or share >= self._check.critical_share
        return Finding(
            rule_id="LEAK004",
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            message=f"{counted(len(rows), 'row')} {'holds' if len(rows) == 1 else 'hold'} items of the "
            f"evaluation suite {suite.ref} ({different:,} of its {suite.size:,}), so a score there would be "
            "too good.",
            columns=(name,),
            rows=RowSet.of(rows.tolist()),
            score=share,
            action="Remove the rows before training, or leave the items out of the evaluation and say so.",
            evidence={
                "suite": suite.ref,
                "items": different,
                "share_of_suite": round(share, 6),
                "verbatim_rows": int((scores >= 0.999).sum()),
                "longest_run_tokens": int(runs.max()),
                "least_share": round(float(scores.min()), 4),
                "pairs": [[int(r), int(i)] for r, i in zip(rows[:_SHOWN_PAIRS], items, strict=False)],
            },
        )


CHECK = Contamination()
