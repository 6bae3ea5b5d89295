"""The search for a located trigger patch: pixels that many rows of one class share, against all expectation.

Values are cut into bins; a *cell* is a pixel with a bin. A patch is a set of cells that occur together in
rows of one class, where the trusted rows (:func:`search_delta`) or the rest of the same images
(:mod:`~dataset_guard.checks.poisoning.patch_context`) say they should hardly occur. The strength of a cell
is a log-likelihood ratio, and what counts as strong is what the strongest cell of honest rows reaches.
After BadNets (Gu et al. 2017, arXiv 1708.06733) for the attack; the statistic is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
"""Bins per row and pixel, shape (rows, pixels)."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BINS = 16
LEVELS = BINS + 3  # below and above the range of the trusted rows, and missing
_BELOW, _ABOVE, _MISSING = BINS, BINS + 1, BINS + 2

MIN_ROWS = 3
"""Fewer rows than this share cells by accident."""

SHARED = 0.8
"""A pixel belongs to the patch when this share of the rows that carry it agree on the bin."""

CARRIES = 0.75
"""A row carries the patch when this share of its cells agree."""

MOVED = 0.25
"""From this share of pixels on that are strong in several classes, the update as a whole looks different."""

_TRIES = 64
RARE = 0.2
"""A cell more common than this in any trusted class belongs to no patch."""

CHANCE = 1e-3
"""Probability that chance alone makes any one cell strong enough (Bonferroni over all cells and classes)."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch found. ``rows`` index the rows searched; ``target`` is a class code.

    ``strength`` is the log-likelihood ratio of its strongest cell, ``limit`` what honest rows reach,
    ``purity`` the share of the rows that are in the target class, ``fdr`` the expected share of rows that
    agree by accident.
    """

    rows: Ints
    pixels: Ints
    target: int
    strength: float
    limit: float
    p_value: float
    purity: float
    fdr: float


def value_range(*parts: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Smallest and largest finite value of ``parts``; (0, 1) when there is none."""
    ends = [(float(p[ok].min()), float(p[ok].max())) for p in parts if (ok := np.isfinite(p)).any()]
    if not ends:
        return 0.0, 1.0
    return min(e[0] for e in ends), max(e[1] for e in ends)


def quantise(pixels: npt.NDArray[np.float32], low: float, high: float) -> Codes:
    """Bins of equal width over ``low .. high``; smaller, larger and missing values have bins of their own."""
    width = (high - low) / BINS or 1.0
    with np.errstate(invalid="ignore"):
        scaled = np.clip(np.floor((pixels - low) / width), 0, BINS - 1)
        codes = np.where(pixels < low, _BELOW, np.where(pixels > high, _ABOVE, scaled))
    return np.where(np.isnan(pixels), _MISSING, codes).astype(np.uint8)


def cell_counts(codes: Codes, classes: Ints, number: int) -> Ints:
    """Rows per class and cell, shape (number, pixels, LEVELS)."""
    pixels = codes.shape[1]
    counts = np.zeros((number, pixels, LEVELS), np.int64)
    place = np.arange(pixels) * LEVELS
    step = max(1, (4 << 20) // max(1, pixels))
    for c in range(number):
        mine = np.flatnonzero(classes == c)
        for start in range(0, len(mine), step):
            cells = codes[mine[start : start + step]] + place
            counts[c] += np.bincount(cells.ravel(), minlength=pixels * LEVELS).reshape(pixels, LEVELS)
    return counts


def surprise(seen: Ints | Floats, rows: Ints | Floats, expected: Floats) -> Floats:
    """Log-likelihood ratio of ``seen`` among ``rows`` against the rate ``expected``; 0 where it is not above.

    This is ``rows * KL(seen / rows || expected)``, Chernoff's bound on the binomial tail.
    """
    n = np.maximum(rows, 1).astype(np.float64)
    rate = seen / n
    p = np.clip(expected, 1e-9, 1 - 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = rate * np.log(rate / p) + np.where(rate < 1, (1 - rate) * np.log((1 - rate) / (1 - p)), 0.0)
    return np.where((rate > p) & (seen >= MIN_ROWS), n * ratio, 0.0)


def least_strength(shape: tuple[int, ...]) -> float:
    """What a cell must exceed, however quiet honest rows are: ln(number of cells / CHANCE)."""
    return float(np.log(max(1, int(np.prod(shape))) / CHANCE))


def _highest_rate(counts: Ints, sizes: Ints) -> Floats:
    """How common each cell is in the class where it is most common, shape (pixels, LEVELS).

    The highest, not the class's own: a row under a wrong label shows another class's ordinary pixels, and
    that is a matter for POIS001 and POIS002.
    """
    own = (counts + 0.5) / (sizes[:, None, None] + 1.0)
    every = (counts.sum(axis=0) + 0.5) / (sizes.sum() + 1.0)
    return np.asarray(np.maximum(own[sizes > 0].max(axis=0), every))


def delta_strength(trusted: Ints, trusted_sizes: Ints, delta: Ints, delta_sizes: Ints) -> Floats:
    """Strength of each cell per class, shape (classes, pixels, LEVELS).

    Classes that the trusted version lacks get 0: everything about them is new.
    """
    expected = _highest_rate(trusted, trusted_sizes)
    strength = surprise(delta, delta_sizes[:, None, None], expected)
    strength[trusted_sizes == 0] = 0.0
    return strength


def honest_limits(codes: Codes, classes: Ints, number: int, drawn: Ints, rounds: int, seed: int) -> Floats:
    """The strongest cell of ``rounds`` pretended updates, each drawn from the trusted rows themselves.

    A pretended update has as many rows per class as ``drawn`` says, at most half of what there is; the
    rest of the trusted rows judge it.
    """
    random = np.random.default_rng(seed)
    counts = cell_counts(codes, classes, number)
    sizes = np.bincount(classes, minlength=number)
    of_class = [np.flatnonzero(classes == c) for c in range(number)]
    limits = np.zeros(rounds)
    for i in range(rounds):
        picked = np.concatenate(
            [
                random.permutation(of_class[c])[: min(int(drawn[c]), len(of_class[c]) // 2)]
                for c in range(number)
            ]
        )
        taken = cell_counts(codes[picked], classes[picked], number)
        taken_sizes = np.bincount(classes[picked], minlength=number)
        limits[i] = delta_strength(counts - taken, sizes - taken_sizes, taken, taken_sizes).max(initial=0.0)
    return limits


def grow(
    codes: Codes, classes: Ints, target: int, start: tuple[int, int], usable: npt.NDArray[np.bool_]
) -> tuple[Ints, Ints, Ints]:
    """The patch around one cell: (pixels, bins, rows of any class that carry it).

    ``usable``, shape (pixels, LEVELS), says which cells are improbable enough to belong to a patch.
    """
    pixels, bins = np.array([start[0]]), np.array([start[1]])
    for _ in range(4):
        agree = (codes[:, pixels] == bins).mean(axis=1)
        carriers = np.flatnonzero(agree >= CARRIES)
        mine = carriers[classes[carriers] == target]
        counts = cell_counts(codes[mine], np.zeros(len(mine), np.int64), 1)[0]
        top = counts.argmax(axis=1)
        every = np.arange(codes.shape[1])
        kept = np.flatnonzero((counts[every, top] >= SHARED * len(mine)) & usable[every, top])
        if not len(kept) or (np.array_equal(kept, pixels) and np.array_equal(top[kept], bins)):
            break
        pixels, bins = kept, top[kept]
    return pixels, bins, np.flatnonzero((codes[:, pixels] == bins).mean(axis=1) >= CARRIES)


def search_delta(
    trusted: Codes,
    trusted_classes: Ints,
    delta: Codes,
    delta_classes: Ints,
    number: int,
    *,
    rounds: int,
    margin: float,
    purity: float,
    seed: int,
    most: int = 3,
) -> list[Patch] | None:
    """Patches in ``delta``, rows that a trusted version does not hold; strongest first. None when the update
    as a whole looks so different (another scanner, say) that the trusted rows say nothing about parts of it.

    A cell counts when it is ``margin`` times stronger than the strongest in any pretended honest update,
    and a patch when at least ``purity`` of its rows are in one class. Classes are codes below ``number``.
    """
    if not len(delta) or not len(trusted):
        return []
    counts = cell_counts(trusted, trusted_classes, number)
    sizes = np.bincount(trusted_classes, minlength=number)
    drawn = np.bincount(delta_classes, minlength=number)
    limits = honest_limits(trusted, trusted_classes, number, drawn, rounds, seed)
    limit = max(float(limits.max(initial=0.0)) * margin, least_strength(counts.shape))
    usable = _highest_rate(counts, sizes) < RARE
    first = delta_strength(counts, sizes, cell_counts(delta, delta_classes, number), drawn)
    if ((first.max(axis=2) > limit).sum(axis=0) >= 2).mean() >= MOVED:
        return None
    found: list[Patch] = []
    left = np.arange(len(delta))
    # Cells that every class shares (another scanner, say) must not hide a patch that is weaker than they are.
    refused = np.zeros(counts.shape[1:], bool)
    for _ in range(_TRIES):
        codes, classes = delta[left], delta_classes[left]
        left_sizes = np.bincount(classes, minlength=number)
        strength = delta_strength(counts, sizes, cell_counts(codes, classes, number), left_sizes)
        strength[:, refused] = 0.0
        best = float(strength.max(initial=0.0))
        if best <= limit or len(found) == most:
            break
        target, pixel, level = (int(i) for i in np.unravel_index(int(strength.argmax()), strength.shape))
        pixels, bins, rows = grow(codes, classes, target, (pixel, level), usable & ~refused)
        share = float((classes[rows] == target).mean()) if len(rows) else 0.0
        if share < purity or len(rows) < MIN_ROWS:
            refused[pixel, level] = True
            continue
        by_chance = ((trusted[:, pixels] == bins).mean(axis=1) >= CARRIES).sum()
        expected = (int(by_chance) + 1) / (len(trusted) + 1) * len(left)
        found.append(
            Patch(
                rows=left[rows],
                pixels=pixels,
                target=target,
                strength=best,
                limit=limit,
                p_value=float((1 + (limits >= best).sum()) / (1 + rounds)),
                purity=share,
                fdr=min(1.0, expected / len(rows)),
            )
        )
        left = np.delete(left, rows)
    return found
