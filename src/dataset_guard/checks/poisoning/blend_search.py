"""The search for a picture blended into many images: a direction in which some rows of one class stand apart.

Blending adds the same faint picture to each image (Chen et al. 2017, arXiv 1712.05526), so these images are
all moved the same way in the space of pixels. Rows are whitened by how images of the *other* classes (or the
trusted rows) vary within their class, which makes ordinary variation unit noise, and directions that tell one
class from another are taken out, so that a wrong label alone moves nobody. In what is left a class of honest
images is one cloud, and a blended picture makes a second one.

Directions are learnt from one half of a class's rows and judged on the other, because in hundreds of
dimensions any few rows can be told from the rest. Spectral signatures (Tran et al. 2018) and SPECTRE (Hayase
et al. 2021) look at a network's features in a like way; nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_PIXELS = 400
"""A blended picture is everywhere, so some pixels, drawn by the seed, tell as much as all."""
LEAST_IN_CLASS = 40
LEAST_ROWS = 8
DIRECTIONS = 16
"""Ways in which a class varies and others do not come before a faint picture's: so many are looked at."""
_ASKED = 800
"""Rows of other classes that a direction is tried on while it is sought."""
MOST_OF_CLASS = 0.6
PURITY = 0.8
_SHRINK = 0.02


@dataclass(frozen=True, slots=True)
class Blend:
    """``rows`` of class ``target`` stand apart by ``strength`` (distance of the clouds over the sum of their
    deviations, on rows that the direction was not learnt from); ``purity`` is the share of all rows beyond
    the threshold that are of this class, ``fdr`` the share expected by the other rows' count."""

    rows: Ints
    target: int
    strength: float
    purity: float
    fdr: float


def search(
    images: npt.NDArray[np.float32],
    classes: Ints,
    number: int,
    ordinary: tuple[npt.NDArray[np.float32], Ints] | None,
    *,
    limit: float,
    seed: int,
) -> list[Blend]:
    """Blends in ``images`` (rows, pixels), strongest first; ``ordinary``: trusted images, their classes."""
    picked = np.random.default_rng(seed).permutation(images.shape[1])[:MOST_PIXELS]
    rows = _filled(images[:, picked])
    known, known_classes = (
        (rows, classes) if ordinary is None else (_filled(ordinary[0][:, picked]), ordinary[1])
    )
    found = []
    for target in range(number):
        mine = np.flatnonzero(classes == target)
        by = np.flatnonzero(known_classes != target) if ordinary is None else np.arange(len(known))
        if len(mine) < LEAST_IN_CLASS or len(by) < 2 * rows.shape[1]:
            continue
        others = np.flatnonzero(known_classes != target)
        told = [
            _apart(whitened(rows[mine]), whitened(known[others]), seed)
            for whitened in _whiteners(known[by], known_classes[by], np.median(rows[mine], axis=0), target)
        ]
        best = max((t for t in told if t is not None), key=lambda t: t.strength, default=None)
        if best is None or best.strength < limit:
            continue
        beyond = mine[best.members]
        expected = (best.astray + 1) / (len(others) + 1) * len(mine)
        purity = len(beyond) / (len(beyond) + best.astray)
        if purity >= PURITY:
            found.append(Blend(beyond, target, best.strength, purity, min(1.0, expected / len(beyond))))
    return sorted(found, key=lambda b: -b.strength)


def _filled(images: npt.NDArray[np.float32]) -> Floats:
    return np.nan_to_num(images.astype(np.float64), nan=0.0)


def _whiteners(
    known: Floats, classes: Ints, middle: Floats, target: int
) -> Iterator[Callable[[Floats], Floats]]:
    """Map rows to where ``known`` rows have unit variance within their classes, ``middle`` to 0.

    Directions that tell classes from one another are left out: first with those that tell the target from
    the others, then without, because where half of a class carries a picture, the picture is among them.
    """
    labels = np.unique(classes)
    centres = np.stack([known[classes == c].mean(axis=0) for c in labels])
    within = known - centres[np.searchsorted(labels, classes)]
    spread = within.T @ within / max(1, len(known) - len(labels))
    spread += _SHRINK * np.trace(spread) / len(spread) * np.eye(len(spread))
    values, vectors = np.linalg.eigh(spread)
    root = vectors * values**-0.5
    others = centres[labels != target]
    for reference in (middle, others.mean(axis=0)):
        basis = np.linalg.svd((others - reference) @ root, full_matrices=False)[2]
        yield partial(_whitened, middle=middle, root=root, basis=basis)


def _whitened(rows: Floats, *, middle: Floats, root: Floats, basis: Floats) -> Floats:
    there = (rows - middle) @ root
    return np.asarray(there - (there @ basis.T) @ basis)


@dataclass(frozen=True, slots=True)
class _Told:
    """Members of the second cloud, and how many rows of other classes lie beyond the threshold too."""

    members: Ints
    strength: float
    astray: int


def _apart(rows: Floats, others: Floats, seed: int) -> _Told | None:
    """The second cloud of one class, if both halves of its rows tell of the same."""
    order = np.random.default_rng(seed).permutation(len(rows))
    halves = order[::2], order[1::2]
    members, strengths, astray = [], [], np.ones(len(others), bool)
    for learn, judge in (halves, halves[::-1]):
        told = _best(rows[learn], others[:: max(1, len(others) // _ASKED)])
        if told is None:
            return None
        direction, at = told
        values = rows[judge] @ direction
        strengths.append(_apartness(values, at))
        members.append(judge[values >= at])
        astray &= others @ direction >= at
    together = np.sort(np.concatenate(members))
    if not LEAST_ROWS <= len(together) <= MOST_OF_CLASS * len(rows):
        return None
    return _Told(together, min(strengths), int(astray.sum()))


def _best(rows: Floats, others: Floats) -> tuple[Floats, float] | None:
    """The direction of the clearest two clouds, and where it cuts them; rows of other classes are hardly
    beyond that."""
    vectors = np.linalg.eigh(np.cov(rows.T))[1]
    best, found = 0.0, None
    for vector in vectors[:, -DIRECTIONS:].T:
        for direction in (vector, -vector):
            for _ in range(3):
                values = rows @ direction
                strength, at = _cut(values)
                beyond = values >= at
                astray = float((others @ direction >= at).mean())
                if strength > best and astray <= (1 - PURITY) * beyond.mean():
                    best, found = strength, (direction, at)
                move = rows[beyond].mean(axis=0) - rows[~beyond].mean(axis=0)
                direction = move / max(float(np.linalg.norm(move)), 1e-12)
    return found


def _apartness(values: Floats, at: float) -> float:
    """How far the values from ``at`` on are from the others, in the sum of both standard deviations."""
    low, high = values[values < at], values[values >= at]
    if len(low) < 2 or len(high) < 2:
        return 0.0
    return float((high.mean() - low.mean()) / (low.std() + high.std() + 1e-9))


def _cut(values: Floats) -> tuple[float, float]:
    """(apartness, threshold) of the cut of ``values`` that parts them most, the upper part the smaller."""
    ordered = np.sort(values)
    n = len(ordered)
    cuts = np.arange(int((1 - MOST_OF_CLASS) * n), n - max(LEAST_ROWS // 2, n // 100) + 1)
    sums, squares = np.cumsum(ordered), np.cumsum(ordered**2)
    low, high = cuts, n - cuts
    low_mean, high_mean = sums[cuts - 1] / low, (sums[-1] - sums[cuts - 1]) / high
    low_var = np.maximum(squares[cuts - 1] / low - low_mean**2, 0.0)
    high_var = np.maximum((squares[-1] - squares[cuts - 1]) / high - high_mean**2, 0.0)
    apart = (high_mean - low_mean) / (np.sqrt(low_var) + np.sqrt(high_var) + 1e-9)
    cut = int(cuts[int(apart.argmax())])
    return float(apart.max()), float((ordered[cut - 1] + ordered[cut]) / 2)
