"""How probable it is that two sets share so many rows by chance alone.

A table of few, coarse columns holds equal rows by nature, and a split by chance puts them on both sides. How
often rows repeat *within* a set tells how often they should occur in another one of the same origin. Pure
functions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_MARGIN = 2.0  # the expectation is itself estimated from counts


def chance_of(sizes: npt.NDArray[np.int64], shared_groups: int, reference_rows: int) -> float:
    """P(at least ``shared_groups`` groups of equal rows occur in a reference of ``reference_rows`` rows).

    ``sizes`` are the rows of each group of this set. A group of ``c`` rows among ``n`` comes again ``c / n``
    times per row drawn; one seen once, as often as Good and Turing (1953) say: ``2 N2 / N1`` times in another
    ``n`` rows, where ``N1`` and ``N2`` are the groups of one and of two rows. One pair is added, so that
    "never seen" is not "impossible", and twice the expectation is allowed for. The tail is Poisson's.
    """
    rows = int(sizes.sum())
    if rows == 0 or reference_rows == 0:
        return 1.0
    once, twice = int((sizes == 1).sum()), int((sizes == 2).sum())
    again = np.where(sizes == 1, 2.0 * (twice + 1) / (once + 1), sizes)
    expected = float(-np.expm1(-again * reference_rows / rows).sum())
    return poisson_tail(shared_groups, _MARGIN * expected)


def poisson_tail(at_least: int, mean: float) -> float:
    """P(X >= at_least) for a Poisson number X; 1.0 where ``at_least`` is not above the mean."""
    if at_least <= mean:
        return 1.0
    log_term = at_least * math.log(mean) - mean - math.lgamma(at_least + 1)
    total, term, k = 0.0, 1.0, at_least
    while term > 1e-17 * max(total, 1e-300) and k < at_least + 10_000:
        total += term
        k += 1
        term *= mean / k
    return min(1.0, math.exp(max(log_term, -745.0)) * total)


def group_sizes(first: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Rows of each group, where ``first`` gives each row's first equal."""
    counts = np.bincount(first)
    return counts[counts > 0]
