"""Labels moved from one class to one other: a confusion that goes one way only.

Honest mistakes of models are as likely in either direction once each class has the same weight: threes taken
for fives, and fives for threes. Labels that somebody moved make rows *given* five which models call three,
and no rows the other way. The reverse count says how many there would be by nature, so no model of the noise
is needed, and flips that all go into one class are seen, which look like the class itself to POIS002.
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

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Aimed:
    """``rows`` given class ``given`` that models call ``likely``; ``fdr`` is nature's share of them."""

    rows: Ints
    likely: int
    given: int
    fdr: float


def aimed(chances: Floats, codes: Ints) -> list[Aimed]:
    """One-sided confusions, most rows first; ``chances`` (rows, classes) are out-of-fold."""
    from scipy.stats import binom

    classes = chances.shape[1]
    if classes < LEAST_CLASSES:
        return []
    sizes = np.bincount(codes, minlength=classes)
    called = (chances / np.maximum(sizes, 1)).argmax(axis=1)
    counts = np.bincount(called * classes + codes, minlength=classes**2).reshape(classes, classes)
    found = []
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
