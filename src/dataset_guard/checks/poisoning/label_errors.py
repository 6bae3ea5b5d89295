"""Labels that are probably wrong, by what cheap models say of them. Changed labels are ``label_flip``'s."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, counted
from dataset_guard.checks.encoded_pictures import opening
from dataset_guard.checks.features import texts_of
from dataset_guard.checks.hash_index import HashIndex
from dataset_guard.checks.poisoning.aimed_flips import Aimed
from dataset_guard.checks.poisoning.image_state import pictures_of
from dataset_guard.checks.poisoning.source_flips import SourceFlips
from dataset_guard.checks.poisoning.sources import salted_source
from dataset_guard.checks.poisoning.wrong_labels import MOST_FALSE, WrongLabels, wrong_labels
from dataset_guard.checks.sampling import RowSample
from guard_core.errors import MissingExtra
from guard_core.findings import Finding, RowSet, Severity

WARNED_MOST = 0.4
"""Largest upper limit of the share of false alarms of a warning: most of its rows are wrong for certain."""


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """POIS002: labels that are probably wrong; POIS003: rows given one class that are probably one other;
    POIS004: a source whose labels the models contradict far more than other sources'.

    ``row_budget`` and ``text_budget``: rows that models look at (a uniform sample by row number).
    ``fdr_limit``: the expected share of false alarms up to which a list is a warning, unless more than
    ``WARNED_MOST`` may be false; beyond it is information. A warning at most, unless ``critical_share`` is
    given: then critical from ``critical_rows`` rows that are also that share of those examined. A label of
    more than ``max_classes`` classes is not examined.
    """

    row_budget: int = 10_000
    text_budget: int = 10_000
    fdr_limit: float = 0.3
    critical_share: float | None = None
    critical_rows: int = 10
    max_classes: int = 200

    name: ClassVar[str] = "label_errors"
    version: ClassVar[str] = "11"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS002", "POIS003", "POIS004")
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes", "feature_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Needs a label to doubt, and the library to doubt it with."""
        if context.label is None:
            return "no label column is named (--label)"
        if find_spec("sklearn") is None:
            return str(MissingExtra.of("scikit-learn", "labels"))
        return None

    def start(self, context: CheckContext) -> ErrorState:
        """Empty samples."""
        return ErrorState(self, context)


class ErrorState:
    """Memory: two samples of at most twice ``row_budget`` rows, of encoded pictures 1 KiB each.

    With a trusted version its unchanged rows are what models learn from, rows with features that it never
    held are what they judge, and rows with a changed label are left to POIS001, which is exact.
    """

    def __init__(self, check: LabelErrors, context: CheckContext) -> None:
        assert context.label is not None
        self._check = check
        self._context = context
        self._label: str = context.label
        self._trusted_rows: HashIndex | None = None
        self._trusted_features: HashIndex | None = None
        if context.baseline is not None and context.baseline.label == context.label:
            self._trusted_rows = context.rows_of(context.baseline)
            self._trusted_features = context.features_of(context.baseline)
        kept_as = opening(pictures_of(context))
        self._suspects = RowSample(check.row_budget, context.seed, kept_as)
        self._trusted = RowSample(check.row_budget, context.seed, kept_as)
        self.skipped: str | None = None

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Offer each row to its sample."""
        rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
        if self._trusted_rows is None or self._trusted_features is None:
            self._suspects.update(batch, rows)
            return
        assert hashes is not None
        assert feature_hashes is not None
        known = self._trusted_rows.contains(hashes)
        new = ~known & ~self._trusted_features.contains(feature_hashes)
        for sample, chosen in ((self._trusted, known), (self._suspects, new)):
            if chosen.any():
                picked = np.flatnonzero(chosen)
                sample.update(batch.take(pa.array(picked)), rows[picked])

    def merge(self, other: ErrorState) -> None:
        """Take in other rows."""
        self._suspects.merge(other._suspects)
        self._trusted.merge(other._trusted)

    def finish(self) -> Iterator[Finding]:
        """One finding over the examined rows, and one for each confusion that goes one way only."""
        rows, table = self._suspects.finish(self._context.schema)
        _, known = self._trusted.finish(self._context.schema)
        budget = self._check.row_budget
        if texts_of(table.slice(0, 200), self._label) is not None:
            budget = min(budget, self._check.text_budget)
        found = wrong_labels(
            table.slice(0, budget),
            known.slice(0, budget),
            label=self._label,
            max_classes=self._check.max_classes,
            fdr_limit=self._check.fdr_limit,
            seed=self._context.seed,
        )
        if isinstance(found, str):
            self.skipped = found
            return
        for one in found.aimed:
            yield self._one_way(one, rows, found.examined)
        for source in found.sources[:8]:
            yield self._source(source, rows, found.examined)
        if not len(found.rows):
            return
        share = len(found.rows) * (1 - found.expected_fdr) / found.examined
        yield Finding(
            rule_id="POIS002",
            severity=self._severity(found, share),
            message=f"{counted(len(found.rows), 'row')} of {found.examined:,} examined probably have a wrong "
            f"label{', or are merely hard: nothing here tells which' if found.fdr > MOST_FALSE else ''}.",
            columns=(self._label,),
            rows=RowSet.of(rows[found.rows].tolist()),
            score=share,
            fdr=round(found.fdr, 4),
            action="Have a person look at these rows; drop or relabel those that are wrong.",
            evidence={
                "examined_rows": found.examined,
                "offered_rows": self._suspects.seen,
                "trusted_rows_learnt_from": found.trusted_rows,
                "expected_false_share": round(found.expected_fdr, 4),
                "models_agree_with_labels": round(found.agreement, 4),
                "given_classes": list(found.classes[:8]),
                "likely_moves": [list(m) for m in found.moves[:8]],
            },
        )

    def _one_way(self, aimed: Aimed, rows: Rows, examined: int) -> Finding:
        why = (
            f", all there are, cannot be told from class {aimed.likely}"
            if aimed.whole
            else f" look like class {aimed.likely}, and hardly any the other way"
        )
        return Finding(
            rule_id="POIS003",
            severity=Severity.WARNING,
            message=f"{counted(len(aimed.rows), 'row')} given class {aimed.given}{why}: "
            "their labels may have been moved.",
            columns=(self._label,),
            rows=RowSet.of(rows[aimed.rows].tolist()),
            score=len(aimed.rows) / examined,
            fdr=round(aimed.fdr, 4),
            action="Have a person look at these rows; drop or relabel the wrong ones, and find who set them.",
            evidence={
                "given_class": aimed.given,
                "likely_class": aimed.likely,
                "examined_rows": examined,
                "offered_rows": self._suspects.seen,
            },
        )

    def _source(self, flips: SourceFlips, rows: Rows, examined: int) -> Finding:
        return Finding(
            rule_id="POIS004",
            severity=Severity.WARNING,
            message=f"{counted(len(flips.rows), 'row')} of one source ({flips.column}) probably have a wrong "
            f"label: models contradict {flips.contradicted:.0%} of its {flips.size:,} examined rows, of the "
            f"other sources' {flips.others:.1%}.",
            columns=(self._label, flips.column),
            rows=RowSet.of(rows[flips.rows].tolist()),
            score=round(len(flips.rows) / flips.size, 6),
            fdr=round(flips.fdr, 4),
            action="Have a person look at these rows, and find who labels for this source; drop or relabel.",
            evidence={
                "source_hash": salted_source(flips.number, self._context.tenant),
                "rows_of_the_source": flips.size,
                "contradicted_share": round(flips.contradicted, 6),
                "share_of_other_sources": round(flips.others, 6),
                "examined_rows": examined,
                "offered_rows": self._suspects.seen,
            },
        )

    def _severity(self, found: WrongLabels, share: float) -> Severity:
        if found.expected_fdr > self._check.fdr_limit or found.fdr > WARNED_MOST:
            return Severity.INFO
        limit = self._check.critical_share
        enough = limit is not None and share >= limit and len(found.rows) >= self._check.critical_rows
        return Severity.CRITICAL if enough else Severity.WARNING


CHECK = LabelErrors()
