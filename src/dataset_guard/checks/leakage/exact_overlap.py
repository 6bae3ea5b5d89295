"""Rows that occur twice, rows that are also in another set, and equal rows with unequal labels.

All by 128-bit row hashes. Whether rows shared with a test set are an accident is a question of
numbers: see :func:`chance_of` and docs/rules/LEAK002.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need, Reference, Rows, counted, set_name
from dataset_guard.checks.leakage.chance import chance_of, group_sizes
from dataset_guard.hashing.hash_store import joined
from guard_core.findings import Finding, RowSet, Severity

FirstRows = npt.NDArray[np.int32]
"""For each row the first row that equals it."""


@dataclass(frozen=True, slots=True)
class ExactOverlap:
    """LEAK001 duplicates within, LEAK002 rows of another set, QUAL003 equal rows with unequal labels.

    ``duplicates_warning`` and ``conflicts_warning`` are shares of rows below which a finding is only
    information. ``chance_critical``: an overlap less probable than this by chance is critical.
    """

    duplicates_warning: float = 0.02
    conflicts_warning: float = 0.01
    chance_critical: float = 1e-3

    name: ClassVar[str] = "exact_overlap"
    version: ClassVar[str] = "3"
    rule_ids: ClassVar[tuple[str, ...]] = ("LEAK001", "LEAK002", "QUAL003")
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes", "feature_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Always: any table can hold a row twice."""
        return None

    def start(self, context: CheckContext) -> OverlapState:
        """An empty state."""
        return OverlapState(self, context)


class OverlapState:
    """Memory: keeps the driver's hash arrays (in memory or mapped); at the end 100 MB and 4 bytes per row."""

    def __init__(self, check: ExactOverlap, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._parts: list[tuple[int, Hashes, Hashes | None]] = []

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Remember the hashes."""
        assert hashes is not None
        self._parts.append((first_row, hashes, feature_hashes))

    def merge(self, other: OverlapState) -> None:
        """Remember the other rows' hashes too."""
        self._parts += other._parts

    def finish(self) -> Iterator[Finding]:
        """Within the set first, then each set to compare with."""
        from dataset_guard.checks.leakage.repeats import first_of

        self._parts.sort(key=lambda p: p[0])
        if not self._parts:
            return
        hashes = joined([h for _, h, _ in self._parts])
        labelled = self._context.label is not None
        features = joined([f for _, _, f in self._parts if f is not None]) if labelled else None
        self._parts = []
        own = f"{self._context.tenant}/{self._context.name}"
        against = [r for r in self._context.against if set_name(r) != own]
        first, repeats = first_of(hashes)
        if repeats:
            yield self._within(first, repeats)
        if features is not None:
            yield from self._conflicts(hashes, features)
        if against and features is not None:
            first, _ = first_of(features)  # a row that comes again with another label comes again
        for reference in against:
            yield from self._shared(reference, hashes, features, first)

    def _within(self, first: FirstRows, repeats: int) -> Finding:
        again = _later(first)
        share = repeats / len(first)
        _, copies = np.unique(first[again], return_counts=True)
        return Finding(
            rule_id="LEAK001",
            severity=Severity.WARNING if share >= self._check.duplicates_warning else Severity.INFO,
            message=f"{counted(repeats, 'exact copy', 'exact copies')} of an earlier row among "
            f"{len(first):,} rows.",
            rows=RowSet.of(again.tolist()),
            score=share,
            action="Remove the repeats, or split the set so that equal rows stay on one side.",
            evidence={"groups": len(copies), "largest_group": int(copies.max()) + 1},
        )

    def _conflicts(self, hashes: Hashes, features: Hashes) -> Iterator[Finding]:
        """Rows whose features occur with more than one label."""
        from dataset_guard.checks.leakage.repeats import first_of

        first, repeats = first_of(features)
        if not repeats:
            return
        again = _later(first)
        differs = (hashes[again] != hashes[first[again]]).any(axis=1)
        mixed = np.zeros(len(first), bool)
        mixed[first[again[differs]]] = True
        rows = np.flatnonzero(mixed[first])
        if not len(rows):
            return
        share = len(rows) / len(hashes)
        yield Finding(
            rule_id="QUAL003",
            severity=Severity.WARNING if share >= self._check.conflicts_warning else Severity.INFO,
            message=f"{counted(len(rows), 'row')} have the same features as another row but another label.",
            columns=(str(self._context.label),),
            rows=RowSet.of(rows.tolist()),
            score=share,
            action="Decide which label is right; a model cannot learn both.",
            evidence={"groups": int(mixed.sum())},
        )

    def _shared(
        self, reference: Reference, hashes: Hashes, features: Hashes | None, first: FirstRows
    ) -> Iterator[Finding]:
        context = self._context
        whole = context.rows_of(reference)
        equal = whole.contains(hashes)
        other_label = np.zeros(len(hashes), bool)
        if features is not None:
            other_label = context.features_of(reference).contains(features) & ~equal
        shared = equal | other_label
        if not shared.any():
            return
        other = whole if features is None else context.features_of(reference)
        at = np.unique(other.positions((hashes if features is None else features)[shared]))
        # From both sides: whoever copies rows twice makes this set look repetitive, but not the other one.
        chance = min(
            chance_of(group_sizes(first), len(np.unique(first[shared])), whole.total),
            chance_of(other.sizes, int((at >= 0).sum()), len(hashes)),
        )
        same_split = context.split is not None and context.split == reference.split
        critical = chance < self._check.chance_critical and not same_split
        copies = int(equal.sum())
        covered = np.unique(whole.positions(hashes[equal])).size / max(1, len(whole))
        kind = f"the {reference.split} set" if reference.split else "the set"
        yield Finding(
            rule_id="LEAK002",
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            message=f"{counted(int(shared.sum()), 'row is', 'rows are')} also in {kind} {reference.ref}, so "
            "a score measured there would be too good.",
            rows=RowSet.of(np.flatnonzero(shared).tolist()),
            score=float(shared.sum() / len(hashes)),
            action=f"Remove the rows from this set (or from {reference.ref}) before training.",
            evidence={
                "reference": reference.ref,
                "same_label_or_none": copies,
                "other_label": int(other_label.sum()),
                "share_of_reference": round(covered, 6),
                "chance": chance,
                "splits": f"{context.split or 'unknown'} / {reference.split or 'unknown'}",
            },
        )


def _later(first: FirstRows) -> Rows:
    """The rows that equal an earlier one."""
    return np.flatnonzero(first != np.arange(len(first), dtype=first.dtype))


CHECK = ExactOverlap()
