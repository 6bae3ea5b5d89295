"""Labels moved from one class to one other: a confusion that goes one way only.

Honest mistakes of models are as likely in either direction once each class has the same weight: threes taken
for fives, and fives for threes. Labels that somebody moved make rows *given* five which models call three,
and no rows the other way. The reverse count says how many there would be by nature, so no model of the noise
is needed, and flips that all go into one class are seen, which look like the class itself to POIS002.

A rare class may consist of them (:func:`filled`). Then its rows are rows of the other class in all respects:
models tell every other class, and this one from that one no better than a coin would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_CLASSES = 4
"""Of two or three classes, one is often partly like another by nature (in 5 of 40 clean tables)."""
ONE_WAY = 2 / 3
"""Least share of a class's rows called otherwise that are called by one name."""
RECOGNISED = 0.8
"""Least share of either class, without the rows in question, that models call by its name."""
MOST_OF_CLASS = 0.35
"""Largest share of the given class: beyond it, nobody can say which rows are the class."""
LEAST_ROWS = 8
TIMES = 3.0
"""So many times as many rows as nature would give."""
CHANCE = 1e-3
"""Probability that any pair of classes is this one-sided by chance (binomial, Bonferroni)."""

UNKNOWN = 0.35
"""A class of which models call fewer rows by its name is a suspect to consist of moved labels."""
KNOWN_MOST = 0.9
"""Then models have to know so large a share of all other rows, or they do not know much."""
TOLD_MOST = 0.15
"""Of a class that was filled, at most so large a share can be told from the class it came from. Of rare
classes that models never name in clean tables at least 0.21 can."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Aimed:
    """``rows`` given class ``given`` that models call ``likely``; ``fdr`` is nature's share of them.

    ``whole``: they are all rows of that class.
    """

    rows: Ints
    likely: int
    given: int
    fdr: float
    whole: bool = False


def aimed(chances: Floats, codes: Ints) -> list[Aimed]:
    """One-sided confusions, most rows first; ``chances`` (rows, classes) are out-of-fold."""
    from scipy.stats import binom

    classes = chances.shape[1]
    if classes < LEAST_CLASSES:
        return []
    sizes = np.bincount(codes, minlength=classes)
    found = filled(chances, codes, sizes)
    called = (chances / np.maximum(sizes, 1)).argmax(axis=1)
    counts = np.bincount(called * classes + codes, minlength=classes**2).reshape(classes, classes)
    for likely, given in zip(*np.nonzero(counts >= LEAST_ROWS), strict=True):
        rows, back = int(counts[likely, given]), int(counts[given, likely])
        told = min(counts[likely, likely] / sizes[likely], counts[given, given] / max(1, sizes[given] - rows))
        astray = sizes[given] - counts[given, given]
        if (
            likely == given
            or told < RECOGNISED
            or not ONE_WAY * astray <= rows <= MOST_OF_CLASS * sizes[given]
        ):
            continue
        weight = sizes[given] / sizes[likely]
        by_nature = (back + 1) * weight
        p = binom.sf(rows - 1, rows + back, weight / (1 + weight)) * classes * (classes - 1)
        if rows >= TIMES * by_nature and p <= CHANCE:
            at = np.flatnonzero((called == likely) & (codes == given))
            found.append(Aimed(at, int(likely), int(given), float(min(1.0, by_nature / rows))))
    return sorted(found, key=lambda a: -len(a.rows))


def filled(chances: Floats, codes: Ints, sizes: Ints) -> list[Aimed]:
    """Classes that consist of rows of one other class.

    How well models rank the rows of both by the class's probability (area under the curve) bounds how many of
    its rows can be told from the other's: its upper limit is the stated share of honest ones.
    """
    right = np.bincount(codes, chances.argmax(axis=1) == codes, minlength=len(sizes))
    found = []
    for given in np.flatnonzero((sizes >= LEAST_ROWS) & (right < UNKNOWN * sizes)):
        own = codes == given
        if right.sum() - right[given] < KNOWN_MOST * (len(codes) - sizes[given]):
            continue
        others = chances[own].copy()
        others[:, given] = -1.0
        called = np.bincount(others.argmax(axis=1), minlength=len(sizes))
        likely = int(called.argmax())
        if called[likely] < RECOGNISED * sizes[given] or sizes[likely] < sizes[given]:
            continue
        told = _told_apart(chances[own, given], chances[codes == likely, given])
        if told <= TOLD_MOST:
            found.append(Aimed(np.flatnonzero(own), likely, int(given), told, whole=True))
    return found


def _told_apart(own: Floats, other: Floats) -> float:
    """Largest share of ``own`` that may rank above ``other`` for a reason: 0.0 none, 1.0 all."""
    from scipy.stats import rankdata

    n, m = len(own), len(other)
    area = (rankdata(np.concatenate([own, other]))[:n].sum() - n * (n + 1) / 2) / (n * m)
    error = np.sqrt((n + m + 1) / (12 * n * m))
    return float(np.clip(2 * (area + 2 * error - 0.5), 0.0, 1.0))
