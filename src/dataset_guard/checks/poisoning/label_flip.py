"""Labels that changed since the trusted version, while everything else in the row stayed.

Exact, by hashes: the row's features are in the trusted version, the row with this label is not. Features
that the trusted version holds with several labels may take any of those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, ClassIndex, Hashes, Need, Rows, counted
from dataset_guard.checks.poisoning.changes import (
    ClassCounts,
    changed_rows,
    incomparable,
    natural_conflicts,
    relabelled_rows,
)
from dataset_guard.checks.poisoning.sampled_state import without_classes
from dataset_guard.scanning.profile import plain
from guard_core.findings import Finding, RowSet, Severity


@dataclass(frozen=True, slots=True)
class LabelFlip:
    """POIS001: rows whose label is not the trusted one.

    Critical from ``critical_rows`` rows or from a share of ``critical_share`` on, else a warning. Where equal
    features carry unequal labels by nature, in more than ``natural_share`` of such rows of the trusted
    version itself, a new label proves nothing: then a warning at most.
    """

    critical_rows: int = 5
    critical_share: float = 0.005
    natural_share: float = 0.01

    name: ClassVar[str] = "label_flip"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS001",)
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes", "feature_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Only where a trusted version with the same columns and label says what the labels were."""
        trusted = context.baseline
        if trusted is None:
            return "there is no trusted version whose labels could be compared (--trusted)"
        reason = without_classes(context)
        if reason is not None:
            return reason
        if trusted.label != context.label:
            said = f"the label {trusted.label!r}" if trusted.label else "no label"
            return f"the trusted version {trusted.ref} has {said}, not {context.label!r}"
        return incomparable(context, trusted)

    def start(self, context: CheckContext) -> FlipState:
        """An empty state."""
        return FlipState(self, context)


class FlipState:
    """Memory: the number and the label of each row found, and rows per class."""

    def __init__(self, check: LabelFlip, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._found: list[Rows] = []
        self._labels: list[pa.Array] = []
        self._classes = ClassCounts()
        self._rows = 0
        self._changed = 0

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Compare each row with the trusted version."""
        assert hashes is not None
        assert feature_hashes is not None
        labels = plain(batch.column(batch.schema.get_field_index(str(self._context.label))))
        changed = changed_rows(self._context, hashes)
        # A label that went missing is QUAL011's business: no wrong class is taught by it.
        at = np.flatnonzero(
            relabelled_rows(self._context, changed, feature_hashes) & np.asarray(labels.is_valid())
        )
        self._rows += batch.num_rows
        self._changed += int(changed.sum())
        self._classes.update(labels)
        if len(at):
            self._found.append(at + first_row)
            self._labels.append(labels.take(pa.array(at)))

    def merge(self, other: FlipState) -> None:
        """Take in other rows."""
        self._found += other._found
        self._labels += other._labels
        self._classes.merge(other._classes)
        self._rows += other._rows
        self._changed += other._changed

    def finish(self) -> Iterator[Finding]:
        """One finding over all rows."""
        trusted = self._context.baseline
        assert trusted is not None
        if not self._found:
            return
        rows = np.concatenate(self._found)
        share = len(rows) / self._rows
        twins, conflicts = natural_conflicts(trusted)
        natural = conflicts / twins if twins else 0.0
        many = len(rows) >= self._check.critical_rows or share >= self._check.critical_share
        critical = many and natural <= self._check.natural_share
        yield Finding(
            rule_id="POIS001",
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            message=f"{counted(len(rows), 'row')} of {self._rows:,} {'has' if len(rows) == 1 else 'have'} "
            f"the features of a row in the trusted version {trusted.ref}, but another label.",
            columns=(str(self._context.label),),
            rows=RowSet.of(rows.tolist()),
            score=share,
            fdr=natural,
            action=f"Find out who changed the labels; take them back from {trusted.ref}, or waive the rule "
            "if they were corrected on purpose.",
            evidence={
                "trusted": trusted.ref,
                "changed_rows": self._changed,
                "natural_share": round(natural, 6),
                "now_in_class": self._now_in_class(),
            },
        )

    def _now_in_class(self) -> dict[str, int]:
        """Rows found per class they are now in; classes are told by their index in sorted order."""
        if self._classes.overflowed:
            return {}
        index = ClassIndex(self._classes.counts)
        codes = np.concatenate([index.codes(labels) for labels in self._labels])
        found, counts = np.unique(codes[codes >= 0], return_counts=True)
        return {str(c): int(n) for c, n in zip(found, counts, strict=True)}


CHECK = LabelFlip()
