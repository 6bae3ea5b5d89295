"""The search for a trigger patch when there is no trusted version: what does the rest of the image expect?

For each part of the image, the rows most alike *outside* that part (and a margin around it) tell which
values to expect inside. A stroke of a digit is expected by the digits around it; a patch stamped on images
of all classes is not. So in every class each cell has a number seen and a number expected. Strokes that
tell one class from others exceed it a little and in most rows of the class; a trigger by a multiple, in few
rows. Cells count only above ``LIFT`` times the expected number, and against the same search with the
labels shuffled.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.patch_search import (
    CARRIES,
    LEVELS,
    MIN_ROWS,
    Codes,
    Floats,
    Ints,
    Patch,
    cell_counts,
    grow,
    least_strength,
    surprise,
)

NEIGHBOURS = 20
LIFT = 4.0


def context_counts(codes: Codes) -> npt.NDArray[np.uint8]:
    """How many of a row's neighbours have each cell, shape (rows, pixels, LEVELS); images are square.

    Costs rows^2 x pixels multiplications and rows^2 floats for each of at most 16 parts of the image.
    """
    rows, pixels = codes.shape
    side = math.isqrt(pixels)
    part = math.ceil(side / 4)
    margin = max(1, part // 2)
    near = min(NEIGHBOURS, rows - 1)
    values = codes.astype(np.float32)
    whole = _distances(values)
    grid = np.arange(pixels).reshape(side, side)
    out = np.zeros((rows, pixels, LEVELS), np.uint8)
    own = np.arange(rows)[:, None] * LEVELS
    for top in range(0, side, part):
        for left in range(0, side, part):
            inside = grid[top : top + part, left : left + part].ravel()
            around = grid[
                max(0, top - margin) : top + part + margin, max(0, left - margin) : left + part + margin
            ]
            outside = whole - _distances(values[:, around.ravel()])
            np.fill_diagonal(outside, np.inf)
            alike = np.argpartition(outside, near - 1, axis=1)[:, :near]
            for pixel in inside:
                cells = own + codes[alike, pixel]
                out[:, pixel] = np.bincount(cells.ravel(), minlength=rows * LEVELS).reshape(rows, LEVELS)
    return out


def _distances(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Squared Euclidean distances between all rows; exact for bins, which are small integers."""
    square = (values * values).sum(axis=1)
    return np.asarray(square[:, None] + square[None, :] - 2 * (values @ values.T))


def context_strength(codes: Codes, classes: Ints, number: int, near: npt.NDArray[np.uint8]) -> Floats:
    """Strength of each cell per class, shape (classes, pixels, LEVELS)."""
    sizes = np.bincount(classes, minlength=number)
    per_row = min(NEIGHBOURS, len(codes) - 1)
    seen = cell_counts(codes, classes, number)
    expected = np.zeros(seen.shape)
    for c in range(number):
        expected[c] = near[classes == c].sum(axis=0, dtype=np.int64) / per_row
    strength = surprise(seen, sizes[:, None, None], (expected + 1) / (sizes[:, None, None] + 1))
    return np.where(seen >= LIFT * (expected + 1), strength, 0.0)


def search_whole(
    codes: Codes,
    classes: Ints,
    number: int,
    *,
    searched: int,
    rounds: int,
    margin: float,
    purity: float,
    seed: int,
) -> list[Patch]:
    """The strongest patch per class: at most ``searched`` rows are compared with each other, then
    all are asked whether they carry it.
    """
    random = np.random.default_rng(seed)
    picked = np.sort(random.permutation(len(codes))[:searched])
    if len(picked) < 2 * NEIGHBOURS:
        return []
    near = context_counts(codes[picked])
    strength = context_strength(codes[picked], classes[picked], number, near)
    limits = np.array(
        [
            context_strength(codes[picked], random.permutation(classes[picked]), number, near).max()
            for _ in range(rounds)
        ]
    )
    limit = max(float(limits.max(initial=0.0)) * margin, least_strength(strength.shape))
    found = []
    for target in range(number):
        best = float(strength[target].max(initial=0.0))
        mine = classes == target
        if best <= limit or not mine.any():
            continue
        pixel, level = np.unravel_index(int(strength[target].argmax()), strength.shape[1:])
        pixels, bins, rows = grow(codes, classes, target, (int(pixel), int(level)), strength[target] > limit)
        share = float(mine[rows].mean()) if len(rows) else 0.0
        inside = rows[mine[rows]]
        if share < purity or len(inside) < MIN_ROWS:
            continue
        elsewhere = (codes[~mine][:, pixels] == bins).mean(axis=1) >= CARRIES
        by_chance = (int(elsewhere.sum()) + 1) / (int((~mine).sum()) + 1) * int(mine.sum())
        found.append(
            Patch(
                rows=inside,
                pixels=pixels,
                target=target,
                strength=best,
                limit=limit,
                p_value=float((1 + (limits >= best).sum()) / (1 + rounds)),
                purity=share,
                fdr=min(1.0, by_chance / len(inside)),
            )
        )
    return sorted(found, key=lambda p: -p.strength)
