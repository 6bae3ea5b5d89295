"""Which labels are probably wrong, and how many of those it names are expected to be right after all.

Two situations, two nulls:

* *trusted rows are at hand*: models learn from them only. How probable a model finds the given label of a
  trusted row (held out) is the null distribution; a new row gets its rank in it as a conformal p-value, and
  Benjamini-Hochberg bounds the false discoveries (Bates et al. 2023).
* *no trusted rows*: out-of-fold probabilities are split into what rows say and what noise says
  (:mod:`~dataset_guard.checks.poisoning.label_doubt`), which gives each label a probability of being wrong.
  Named is the list with the highest expected F1, if its expected share of false alarms is at most
  ``MOST_FALSE``. Stated is its upper limit (:mod:`~dataset_guard.checks.poisoning.label_rate`). Where there
  is no such list, rows may still be doubtful (:func:`_doubtful`), and the rate stated is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.base import ClassIndex, counted
from dataset_guard.checks.features import Matrix, matrix_of, texts_of
from dataset_guard.checks.poisoning.aimed_flips import Aimed, aimed
from dataset_guard.checks.poisoning.label_doubt import (
    Channel,
    Channels,
    channels,
    most_useful,
    probably_wrong,
    random_share,
)
from dataset_guard.checks.poisoning.label_rate import false_at_most
from dataset_guard.checks.poisoning.label_views import FOLDS, out_of_fold
from dataset_guard.checks.poisoning.source_flips import SourceFlips, flipped_sources
from dataset_guard.checks.poisoning.sources import source_columns, source_numbers
from dataset_guard.scanning.profile import plain

MOST_FALSE = 0.75
"""A list of which more than this share is expected to be right labels is not worth anybody's time."""

LEAST_WRONG = 2.0
"""Nor is one with fewer wrong labels than these expected in it."""

RECOGNISED = 0.35
"""Share of a class's rows that models must predict to be believed about its labels: where a class cannot be
told from the others, disagreement says something about the models, not about the labels."""

MOSTLY_NOISE = 2.0
"""A class with at most so many times the rows that random labels put into each recognised class need not be
recognised: if it is real at all, it drowns in them."""

NOISE_TOLD = (50, 0.15)
"""Which share of random labels is believed for that: at least so many labels, at most this share. Fewer are
chance, more say that models do not know the classes."""

DOUBTFUL_WRONG = 3.0
"""Where no list is to be believed: so many wrong labels must be expected in one of doubtful rows, ..."""
DOUBTFUL_MOST = 0.15
"""... at most such a share of all rows, ..."""
DOUBTFUL_GAIN = 1.5
"""... whose moves explain the labels better by this (log-likelihood). Labels moved from one class to one
other look like a confusion of the models', so of noisy sets they explain little more."""
DOUBTFUL_FALSE = 0.98
"""Then the most doubtful are named, however many of them are expected to be right."""
UNRECOGNISED_FALSE = 0.5
"""Or else rows of classes that models hardly know, if most of them are expected to be wrong: a rare class may
have been filled, or be hard to tell from the others."""

_MIN_TRUSTED = 200
_FIRST_LOOK = 2_000
_BY_CHANCE = 1e-3
_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WrongLabels:
    """``rows`` are positions in the suspects' table, most doubtful first; ``classes`` their given classes.

    ``expected_fdr`` of them are expected to be right after all, and no more than ``fdr`` are likely to be.
    ``moves`` are ``(likely class, given class, rows)``, most rows first. ``aimed`` are confusions that go
    one way only, ``sources`` those whose labels are contradicted more than
    others'; their rows are positions too.
    """

    rows: _Ints
    classes: tuple[int, ...]
    moves: tuple[tuple[int, int, int], ...]
    examined: int
    expected_fdr: float
    fdr: float
    agreement: float
    trusted_rows: int
    aimed: tuple[Aimed, ...] = ()
    sources: tuple[SourceFlips, ...] = ()


@dataclass(frozen=True, slots=True)
class _Lesson:
    """Suspects first, trusted rows behind them, only classes that can be learnt."""

    table: pa.Table
    codes: _Ints
    position: _Ints  # among the suspects; -1 for a trusted row
    trusted: npt.NDArray[np.bool_] | None
    classes: _Ints
    sources: dict[str, npt.NDArray[np.uint64]]


def wrong_labels(
    suspects: pa.Table, trusted: pa.Table, *, label: str, max_classes: int, fdr_limit: float, seed: int
) -> WrongLabels | str:
    """Examine ``suspects``; a sentence why, when nothing can be learnt.

    Columns that name a source are not learnt from: models would learn how a source labels.
    """
    if not suspects.num_rows:
        return "no row is new since the trusted version"
    lesson = _lesson(suspects, trusted, label, max_classes)
    if isinstance(lesson, str):
        return lesson
    matrix, texts = matrix_of(lesson.table, label), texts_of(lesson.table, label)
    if not matrix.shape[1] and texts is None:
        return "no column but the label holds numbers, categories or text"
    if lesson.trusted is None and _hopeless(matrix, texts, lesson.codes, seed):
        return f"models tell the classes of the label {label!r} no better than guessing would"
    chances = out_of_fold(matrix, texts, lesson.codes, lesson.trusted, seed)
    chances /= chances.sum(axis=1, keepdims=True)
    asked = lesson.position >= 0
    if lesson.trusted is None:
        chosen, expected, fdr = _by_doubt(chances, lesson.codes)
    else:
        chosen, fdr = _conformal(chances, lesson.codes, asked, fdr_limit)
        expected = fdr
    named = np.bincount(lesson.codes[chosen], minlength=len(lesson.classes))
    order = [int(lesson.classes[c]) for c in np.argsort(-named, kind="stable") if named[c]]
    return WrongLabels(
        rows=lesson.position[chosen],
        classes=tuple(order),
        moves=_moves(chances[chosen], lesson.codes[chosen], lesson.classes),
        examined=int(asked.sum()),
        expected_fdr=expected,
        fdr=fdr,
        agreement=float((chances.argmax(axis=1) == lesson.codes).mean()),
        trusted_rows=int((~asked).sum()) if lesson.trusted is not None else 0,
        aimed=() if lesson.trusted is not None else _aimed(chances, lesson, fdr_limit),
        sources=tuple(
            s.at(lesson.position) for s in flipped_sources(chances, lesson.codes, asked, lesson.sources)
        ),
    )


def _hopeless(matrix: Matrix, texts: list[str] | None, codes: _Ints, seed: int) -> bool:
    """Whether models learn nothing at all from a fifth of the rows, so that all rows are not worth the time.

    What they say of a class must rank its rows above the others (:func:`_told`). A class of which a third is
    recognised (``RECOGNISED``) is far beyond that.
    """
    some = np.linspace(0, len(codes) - 1, _FIRST_LOOK).astype(np.int64)
    frequent = np.flatnonzero(np.bincount(codes[some]) >= FOLDS)
    some = some[np.isin(codes[some], frequent)]
    if len(codes) < 2 * _FIRST_LOOK or len(frequent) < 2:
        return False
    few = np.searchsorted(frequent, codes[some])
    chances = out_of_fold(matrix[some], None if texts is None else [texts[i] for i in some], few, None, seed)
    return not _told(chances, few).any()


def _told(chances: _Floats, codes: _Ints) -> npt.NDArray[np.bool_]:
    """Classes whose rows models rank above the others by more than chance.

    Mann-Whitney; among many classes one will stand out, hence Bonferroni.
    """
    from scipy.stats import norm

    classes = chances.shape[1]
    most = np.array([_surpass(chances[:, c], codes == c) for c in range(classes)])
    return np.asarray(most >= norm.isf(_BY_CHANCE / classes))


def _surpass(scores: _Floats, own: npt.NDArray[np.bool_]) -> float:
    """By how many standard deviations the scores of ``own`` rows rank above those of the others."""
    from scipy.stats import rankdata

    n, m = int(own.sum()), int((~own).sum())
    above = rankdata(scores)[own].sum() - n * (n + 1) / 2
    return float((above - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


def _aimed(chances: _Floats, lesson: _Lesson, fdr_limit: float) -> tuple[Aimed, ...]:
    """Confusions that go one way only."""
    return tuple(
        replace(one, rows=lesson.position[one.rows], likely=int(lesson.classes[one.likely]),
                given=int(lesson.classes[one.given]))
        for one in aimed(chances, lesson.codes)
        if one.fdr <= fdr_limit
    )  # fmt: skip


def _moves(chances: _Floats, given: _Ints, classes: _Ints) -> tuple[tuple[int, int, int], ...]:
    """From which class to which the labels named were moved, as far as the models can tell."""
    others = chances.copy()
    others[np.arange(len(given)), given] = -1.0
    pairs, counts = np.unique(others.argmax(axis=1) * len(classes) + given, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    ends = [(int(p) // len(classes), int(p) % len(classes)) for p in pairs[order]]
    return tuple(
        (int(classes[a]), int(classes[b]), int(n)) for (a, b), n in zip(ends, counts[order], strict=True)
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
        return f"{counted(len(usable), 'row is', 'rows are')} too few to learn from ({10 * FOLDS} are needed)"
    usable_rows = both.take(pa.array(usable))
    sources = source_columns(both.schema, label)
    return _Lesson(
        table=usable_rows.drop_columns(sources),
        sources={s: source_numbers(usable_rows[s]) for s in sources},
        codes=np.searchsorted(classes, codes[usable]),
        position=np.where(is_trusted, -1, np.arange(len(codes)))[usable],
        trusted=is_trusted[usable] if by_trust else None,
        classes=classes,
    )


def _teaches(codes: _Ints) -> bool:
    """Whether trusted rows suffice to learn from."""
    known = codes[codes >= 0]
    return len(known) >= _MIN_TRUSTED and int((np.bincount(known) >= FOLDS).sum()) >= 2


def _by_doubt(chances: _Floats, codes: _Ints) -> tuple[_Ints, float, float]:
    """(rows named, expected share of false alarms, its upper limit)."""
    believed = _recognised(chances, codes)
    known = believed | _mostly_noise(chances, codes, believed)
    explained = channels(chances, codes)
    for noise in explained.likely:
        named, expected = _useful(noise, codes, known)
        if expected <= MOST_FALSE and len(named) * (1 - expected) >= LEAST_WRONG:
            return named, expected, max(expected, false_at_most(chances, codes, noise[1], named))
    return _doubtful(explained, codes, known, _told(chances, codes)), 1.0, 1.0


def _doubtful(
    explained: Channels, codes: _Ints, known: npt.NDArray[np.bool_], told: npt.NDArray[np.bool_]
) -> _Ints:
    """Rows to look at first, if at any: nothing tells how many of them are wrong."""
    moved = [(known, DOUBTFUL_FALSE)] if explained.gain >= DOUBTFUL_GAIN else []
    for classes, most_false in [*moved, (told, UNRECOGNISED_FALSE)]:
        named, expected = _useful(explained.moved, codes, classes)
        enough = len(named) * (1 - expected) >= DOUBTFUL_WRONG
        if enough and expected <= most_false and len(named) <= DOUBTFUL_MOST * len(codes):
            return named
    return np.empty(0, np.int64)


def _useful(noise: Channel, codes: _Ints, classes: npt.NDArray[np.bool_]) -> tuple[_Ints, float]:
    """(most useful list of rows whose given class is one of ``classes``, expected share of false alarms)."""
    right, moves = noise
    doubt = np.where(classes[codes], probably_wrong(right, codes, moves), 0.0)
    order = np.argsort(-doubt, kind="stable")
    length, expected = most_useful(doubt[order])
    return order[:length], expected


def _recognised(chances: _Floats, codes: _Ints) -> npt.NDArray[np.bool_]:
    """Classes that the models know."""
    right = np.bincount(codes, weights=chances.argmax(axis=1) == codes, minlength=chances.shape[1])
    return np.asarray(right >= RECOGNISED * np.bincount(codes, minlength=chances.shape[1]))


def _mostly_noise(chances: _Floats, codes: _Ints, believed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Classes that random labels alone could have made, as many as they put into a class of ``believed``."""
    known = believed[codes]
    if believed.sum() < 2:
        return np.zeros(len(believed), bool)
    among = chances[known][:, believed] + 1e-6
    among /= among.sum(axis=1, keepdims=True)
    noise, _ = random_share(among, (np.cumsum(believed) - 1)[codes[known]])
    random = noise * known.sum()
    if random < NOISE_TOLD[0] or noise > NOISE_TOLD[1]:
        return np.zeros(len(believed), bool)
    sizes = np.bincount(codes, minlength=len(believed))
    return np.asarray(sizes <= MOSTLY_NOISE * random / believed.sum())


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
