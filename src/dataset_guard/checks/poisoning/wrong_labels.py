"""Which labels are probably wrong, and how many of those it names are expected to be right after all.

Two situations, two nulls:

* *trusted rows are at hand*: models learn from them only. How probable a model finds the given label of a
  trusted row (held out) is the null distribution; a new row gets its rank in it as a conformal p-value, and
  Benjamini-Hochberg bounds the false discoveries (Bates et al. 2023).
* *no trusted rows*: confident learning (Northcutt et al. 2021, cleanlab, ``filter_by="both"``) on out-of-fold
  probabilities names candidates; of these the most doubtful are taken as long as the expected share of false
  alarms (:mod:`~dataset_guard.checks.poisoning.false_alarms`, and ``CLEAN_RATE`` times all rows, for those
  that are merely odd) stays within the limit. Where no list does, one within twice the limit is handed out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.base import ClassIndex, counted
from dataset_guard.checks.features import matrix_of, texts_of
from dataset_guard.checks.poisoning.false_alarms import calibrated, doubts, expected_false_alarms
from dataset_guard.checks.poisoning.label_views import FOLDS, out_of_fold
from dataset_guard.profile import plain

CLEAN_RATE = 0.002
"""Share of the rows of clean sets that confident learning names all the same: on iris, wine, breast cancer
and digits 2 of 2,694 rows, and nearly three times that here."""

RECOGNISED = 0.6
"""Share of a class's rows that models must predict to be believed about its labels."""

_MIN_TRUSTED = 200
_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WrongLabels:
    """``rows`` are positions in the suspects' table, most doubtful first; ``classes`` their given classes."""

    rows: _Ints
    classes: tuple[int, ...]
    examined: int
    fdr: float
    agreement: float
    trusted_rows: int


@dataclass(frozen=True, slots=True)
class _Lesson:
    """Suspects first, trusted rows behind them, only classes that can be learnt."""

    table: pa.Table
    codes: _Ints
    position: _Ints  # among the suspects; -1 for a trusted row
    trusted: npt.NDArray[np.bool_] | None
    classes: _Ints


def wrong_labels(
    suspects: pa.Table, trusted: pa.Table, *, label: str, max_classes: int, fdr_limit: float, seed: int
) -> WrongLabels | str:
    """Examine ``suspects``; a sentence why, when nothing can be learnt."""
    if not suspects.num_rows:
        return "no row is new since the trusted version"
    lesson = _lesson(suspects, trusted, label, max_classes)
    if isinstance(lesson, str):
        return lesson
    matrix, texts = matrix_of(lesson.table, label), texts_of(lesson.table, label)
    if not matrix.shape[1] and texts is None:
        return "no column but the label holds numbers, categories or text"
    chances = out_of_fold(matrix, texts, lesson.codes, lesson.trusted, seed)
    chances /= chances.sum(axis=1, keepdims=True)
    asked = lesson.position >= 0
    if lesson.trusted is None:
        chosen, fdr = _confident(chances, lesson.codes, fdr_limit)
    else:
        chosen, fdr = _conformal(chances, lesson.codes, asked, fdr_limit)
    named = np.bincount(lesson.codes[chosen], minlength=len(lesson.classes))
    order = [int(lesson.classes[c]) for c in np.argsort(-named, kind="stable") if named[c]]
    return WrongLabels(
        rows=lesson.position[chosen],
        classes=tuple(order),
        examined=int(asked.sum()),
        fdr=fdr,
        agreement=float((chances.argmax(axis=1) == lesson.codes).mean()),
        trusted_rows=int((~asked).sum()) if lesson.trusted is not None else 0,
    )


def _lesson(suspects: pa.Table, trusted: pa.Table, label: str, max_classes: int) -> _Lesson | str:
    both = pa.concat_tables([suspects, trusted]).combine_chunks()
    labels = plain(both[label])
    if pa.types.is_nested(labels.type):
        return f"the label {label!r} is nested, so it names no classes"
    codes = ClassIndex(labels.unique().to_pylist()).codes(labels)
    is_trusted = np.arange(both.num_rows) >= suspects.num_rows
    by_trust = _teaches(codes[is_trusted])
    learners = is_trusted if by_trust else np.ones(len(codes), bool)
    sizes = np.bincount(codes[learners & (codes >= 0)], minlength=int(codes.max(initial=0)) + 1)
    usable = np.flatnonzero((codes >= 0) & (sizes[np.maximum(codes, 0)] >= FOLDS))
    classes = np.flatnonzero(sizes >= FOLDS)
    if not 2 <= len(classes) <= max_classes:
        return (
            f"the label {label!r} has {counted(len(classes), 'class', 'classes')} of at least {FOLDS} rows, "
            f"not 2 to {max_classes}"
        )
    if len(usable) < 10 * FOLDS:
        return f"{counted(len(usable), 'row')} are too few to learn from ({10 * FOLDS} are needed)"
    return _Lesson(
        table=both.take(pa.array(usable)),
        codes=np.searchsorted(classes, codes[usable]),
        position=np.where(is_trusted, -1, np.arange(len(codes)))[usable],
        trusted=is_trusted[usable] if by_trust else None,
        classes=classes,
    )


def _teaches(codes: _Ints) -> bool:
    """Whether trusted rows suffice to learn from."""
    known = codes[codes >= 0]
    return len(known) >= _MIN_TRUSTED and int((np.bincount(known) >= FOLDS).sum()) >= 2


def _confident(chances: _Floats, codes: _Ints, fdr_limit: float) -> tuple[_Ints, float]:
    from cleanlab.filter import find_label_issues

    issues: Any = find_label_issues(codes, chances, filter_by="both", n_jobs=1)
    issues &= _recognised(chances, codes)[codes]
    sharpened = calibrated(chances, codes)
    doubt = doubts(sharpened)[np.arange(len(codes)), codes]
    chosen = np.flatnonzero(issues)
    chosen = chosen[np.argsort(doubt[chosen], kind="stable")]
    alarms = expected_false_alarms(sharpened, doubt[chosen]) + CLEAN_RATE * len(codes)
    share = alarms / np.arange(1, len(chosen) + 1)
    for limit in (fdr_limit, 2 * fdr_limit):
        within = np.flatnonzero(share <= limit)
        if len(within):
            return chosen[: within[-1] + 1], float(share[within[-1]])
    return chosen[:0], 1.0


def _recognised(chances: _Floats, codes: _Ints) -> npt.NDArray[np.bool_]:
    """Classes that the models know: most rows labelled so are predicted so.

    Where a class cannot be told from the others, disagreement says something about the models, not about
    the labels: on labels drawn at random, confident learning alone names a seventh of the rows.
    """
    right = np.bincount(codes, weights=chances.argmax(axis=1) == codes, minlength=chances.shape[1])
    return np.asarray(right >= RECOGNISED * np.bincount(codes, minlength=chances.shape[1]))


def _conformal(
    chances: _Floats, codes: _Ints, asked: npt.NDArray[np.bool_], fdr_limit: float
) -> tuple[_Ints, float]:
    score = _margin(chances, codes)
    null = np.sort(score[~asked])
    suspects = np.flatnonzero(asked)
    p = (1 + np.searchsorted(null, score[suspects], side="right")) / (1 + len(null))
    order = np.argsort(p, kind="stable")
    expected = p[order] * len(p) / np.arange(1, len(p) + 1)
    within = np.flatnonzero(expected <= fdr_limit / 3)
    if not len(within):
        return np.empty(0, np.int64), 1.0
    return suspects[order[: within[-1] + 1]], float(expected[within[-1]])


def _margin(chances: _Floats, codes: _Ints) -> _Floats:
    """How much more probable the given class is than the best other one."""
    rows = np.arange(len(chances))
    others = chances.copy()
    others[rows, codes] = -1.0
    return np.asarray(chances[rows, codes] - others.max(axis=1))
