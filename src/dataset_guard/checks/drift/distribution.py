"""Whether new rows are distributed as the trusted ones: column by column, all columns together, row by row.

*DRFT001*: a two-sample test per column (Kolmogorov-Smirnov for numbers and for lengths of text, chi-square
for categories and the label), with the false discovery rate over all columns kept by Benjamini and Hochberg
(1995), and a least effect: with many rows every difference is significant. *DRFT002*: a classifier tries to
tell new rows from trusted ones (Lopez-Paz and Oquab 2017); what it gets right on rows it has not seen is the
joint drift. *DRFT003*: rows that are farther from the trusted ones than trusted rows are from each other, by
conformal p-values (Bates et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, counted
from dataset_guard.checks.features import matrix_of
from dataset_guard.checks.poisoning.delta_samples import DeltaSamples
from dataset_guard.scanning.profile import is_number, is_text, plain
from guard_core.errors import MissingExtra
from guard_core.findings import Finding, RowSet, Severity

_LEAST = 100
_MAX_CATEGORIES = 200
_NEIGHBOURS = 5
_DIRECTIONS = 32
_JOINT_ROWS = 2_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Distribution:
    """DRFT001 to DRFT003: new rows that are distributed otherwise than trusted ones.

    ``max_rows`` new rows and as many trusted ones are compared. A column drifts when its test survives at the
    false discovery rate ``fdr`` and its effect (largest difference of the distribution functions, or total
    variation) is at least ``least_effect``; from ``warning_effect`` on it is a warning, else information.
    ``least_auc``: what the joint classifier has to reach. ``outlier_fdr``: false alarms among DRFT003's rows.
    """

    max_rows: int = 5_000
    fdr: float = 0.01
    least_effect: float = 0.1
    warning_effect: float = 0.25
    least_auc: float = 0.65
    outlier_fdr: float = 0.05

    name: ClassVar[str] = "distribution"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("DRFT001", "DRFT002", "DRFT003")
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Needs a trusted version, and scikit-learn (which brings SciPy)."""
        if context.baseline is None:
            return "no trusted version is named (--trusted)"
        return None if find_spec("sklearn") else str(MissingExtra.of("scikit-learn", "labels"))

    def start(self, context: CheckContext) -> DriftState:
        """Empty samples."""
        return DriftState(self, context)


class DriftState:
    """Memory: two samples of at most twice ``max_rows`` rows."""

    def __init__(self, check: Distribution, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._samples = DeltaSamples(context, context.schema.names, check.max_rows)
        self.skipped: str | None = None

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Sample the rows that changed, and those that did not."""
        self._samples.update(batch, first_row, hashes)

    def merge(self, other: DriftState) -> None:
        """Take in the samples of other rows."""
        self._samples.merge(other._samples)

    def finish(self) -> Iterator[Finding]:
        """Columns, then all of them together, then rows."""
        rows, new = self._samples.new()
        known = self._samples.trusted(_LEAST)
        if min(len(rows), known.num_rows) < _LEAST:
            self.skipped = (
                f"{counted(len(rows), 'new row')} and {counted(known.num_rows, 'trusted one')} are too few "
                f"({_LEAST} of each are needed)"
            )
            return
        yield from self._columns(new, known)
        both = pa.concat_tables([new, known]).combine_chunks()
        matrix = matrix_of(both, self._context.label)
        if matrix.shape[1]:
            from threadpoolctl import threadpool_limits

            with threadpool_limits(1):
                inputs = _standardised(matrix, len(rows))
                yield from self._joint(inputs, len(rows))
                yield from self._outliers(inputs, rows)

    def _columns(self, new: pa.Table, known: pa.Table) -> Iterator[Finding]:
        tested = []
        for name in new.schema.names:
            found = compared(plain(new[name]), plain(known[name]))
            if found is not None:
                tested.append((name, *found))
        survivors = _survivors(np.array([p for _, p, _ in tested]), self._check.fdr)
        for (name, p, effect), survives in zip(tested, survivors, strict=True):
            if survives and effect >= self._check.least_effect:
                strong = effect >= self._check.warning_effect
                yield Finding(
                    rule_id="DRFT001",
                    severity=Severity.WARNING if strong else Severity.INFO,
                    message=f"New rows are distributed otherwise than trusted ones in column {name!r}: the "
                    f"distributions differ by {effect:.0%}.",
                    columns=(name,),
                    count=new.num_rows,
                    score=round(effect, 4),
                    fdr=self._check.fdr,
                    action="Find out what changed at the source; a model trained on both learns both.",
                    evidence={"p_value": float(f"{p:.3g}"), **self._compared_rows(new, known)},
                )

    def _compared_rows(self, new: pa.Table, known: pa.Table) -> dict[str, int]:
        return {"new_rows": new.num_rows, "trusted_rows": known.num_rows}

    def _joint(self, inputs: Floats, new: int) -> Iterator[Finding]:
        auc, p = told_apart(inputs, new, self._context.seed)
        if auc >= self._check.least_auc and p < self._check.fdr:
            yield Finding(
                rule_id="DRFT002",
                severity=Severity.WARNING,
                message=f"New rows can be told from trusted ones by their values: a classifier that has not "
                f"seen them ranks {auc:.0%} of pairs rightly.",
                count=new,
                score=round(auc, 4),
                action="See DRFT001 for the columns; when no single column drifts, their combination does.",
                evidence={"p_value": float(f"{p:.3g}")},
            )

    def _outliers(self, inputs: Floats, rows: Rows) -> Iterator[Finding]:
        strange, expected = out_of_domain(inputs, len(rows), self._check.outlier_fdr)
        if len(strange):
            yield Finding(
                rule_id="DRFT003",
                severity=Severity.WARNING,
                message=f"{counted(len(strange), 'new row is', 'new rows are')} farther from all "
                "trusted rows than trusted rows are from each other.",
                rows=RowSet.of(rows[strange].tolist()),
                score=round(len(strange) / len(rows), 6),
                fdr=round(expected, 4),
                action="Look at these rows: another source, a broken unit or recording, or data made up.",
                evidence={"rows_compared": len(rows), "rows_to_compare": self._samples.offered},
            )


def compared(new: Any, known: Any) -> tuple[float, float] | None:
    """(p-value, effect) of the difference between two arrays of one column; None if it cannot be tested."""
    from scipy.stats import chi2_contingency, ks_2samp

    kind = new.type
    if is_text(kind) and not _few(new, known):
        new, known = pc.utf8_length(new), pc.utf8_length(known)
        kind = new.type
    if (is_number(kind) or pa.types.is_temporal(kind)) and not _few(new, known):
        values = [_finite(a) for a in (new, known)]
        if min(map(len, values)) < _LEAST // 2:
            return None
        found = ks_2samp(*values, method="asymp")
        return float(found.pvalue), float(found.statistic)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or not _few(new, known):
        return None
    table = _counted_values(new, known)
    if table.shape[1] < 2:
        return None
    shares = table / table.sum(axis=1, keepdims=True)
    return float(chi2_contingency(table).pvalue), float(np.abs(shares[0] - shares[1]).sum() / 2)


def _few(new: Any, known: Any) -> bool:
    """Whether the values are categories: few of them, most of which repeat."""
    if pa.types.is_nested(new.type):
        return False
    distinct = len(pa.chunked_array([new, known]).unique())
    return distinct <= min(_MAX_CATEGORIES, (len(new) + len(known)) // 20)


def _finite(array: Any) -> Floats:
    ticks = (
        array
        if is_number(array.type)
        else array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    )
    values = np.asarray(ticks.drop_null().cast(pa.float64(), safe=False))
    return np.asarray(values[np.isfinite(values)], np.float64)


def _counted_values(new: Any, known: Any) -> Floats:
    """Rows per value (missing ones are a value), shape (2, values); rare values are one."""
    encoded = pa.chunked_array([new, known]).combine_chunks().dictionary_encode()
    codes = np.asarray(encoded.indices.fill_null(len(encoded.dictionary))).astype(np.int64)
    width = len(encoded.dictionary) + 1
    table = np.stack([np.bincount(part, minlength=width) for part in (codes[: len(new)], codes[len(new) :])])
    rare = table.sum(axis=0) < 10
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)]).astype(np.float64)
    return np.asarray(table[:, table.sum(axis=0) > 0], np.float64)


def _survivors(p: Floats, fdr: float) -> npt.NDArray[np.bool_]:
    """Benjamini-Hochberg."""
    order = np.argsort(p)
    within = np.flatnonzero(p[order] <= fdr * np.arange(1, len(p) + 1) / max(1, len(p)))
    survives = np.zeros(len(p), bool)
    if len(within):
        survives[order[: within[-1] + 1]] = True
    return survives


def _standardised(matrix: npt.NDArray[np.float32], new: int) -> Floats:
    """By mean and deviation of the trusted rows, which come last; wide matrices by principal directions."""
    known = matrix[new:].astype(np.float64)
    inputs = (matrix - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-9)
    # A column that never varied among trusted rows must not outweigh all others.
    inputs = np.clip(inputs, -20.0, 20.0)
    if inputs.shape[1] > _DIRECTIONS:
        directions = np.linalg.svd(inputs[new:] - inputs[new:].mean(axis=0), full_matrices=False)[2]
        inputs = inputs @ directions[:_DIRECTIONS].T
    return np.asarray(inputs)


def told_apart(inputs: Floats, new: int, seed: int) -> tuple[float, float]:
    """(AUC, p-value) of a forest that tells the first ``new`` rows from the others, on held-out rows."""
    from scipy.stats import norm
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    random = np.random.default_rng(seed)
    parts = [np.arange(new), np.arange(new, len(inputs))]
    picked = np.concatenate([np.sort(random.permutation(part)[:_JOINT_ROWS]) for part in parts])
    truth = picked < new
    forest = ExtraTreesClassifier(
        40, min_samples_leaf=5, class_weight="balanced", random_state=seed, n_jobs=1
    )
    scores = cross_val_predict(forest, inputs[picked], truth, cv=3, method="predict_proba")[:, 1]
    auc = float(roc_auc_score(truth, scores))
    first, second = int(truth.sum()), int((~truth).sum())
    # Mann and Whitney (1947): the deviation of the statistic when both come from one distribution.
    deviation = np.sqrt((first + second + 1) / (12 * first * second))
    return auc, float(norm.sf((auc - 0.5) / deviation))


def out_of_domain(inputs: Floats, new: int, fdr: float) -> tuple[Rows, float]:
    """(positions among the first ``new`` rows, expected share of false alarms)."""
    from sklearn.neighbors import NearestNeighbors

    known = inputs[new:]
    half = len(known) // 2
    # Half of the trusted rows are the neighbourhood, the other half says which distances are ordinary.
    search = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, half)).fit(known[:half])
    ordinary = np.sort(search.kneighbors(known[half:])[0][:, -1])
    distance = search.kneighbors(inputs[:new])[0][:, -1]
    p = (1 + len(ordinary) - np.searchsorted(ordinary, distance, side="left")) / (1 + len(ordinary))
    order = np.argsort(p, kind="stable")
    expected = p[order] * new / np.arange(1, new + 1)
    within = np.flatnonzero(expected <= fdr)
    if not len(within):
        return np.empty(0, np.int64), 1.0
    return np.sort(order[: within[-1] + 1]), float(expected[within[-1]])


CHECK = Distribution()
"""The check that the entry point names."""
