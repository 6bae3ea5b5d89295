"""One source whose labels the models contradict far more often than those of all other sources.

How often models contradict a given class is a matter of that class and of the models; the rows of the other
sources say it. A source of which far more rows are contradicted than its classes explain has been labelled
by somebody else, carelessly, or on purpose. Which of its rows are wrong is then asked anew: how often it
gives the rows of each class each label is learnt from its own rows (:mod:`label_doubt`), so that a label that
would be merely doubtful elsewhere is probably wrong here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.label_doubt import channel, learnt, most_useful, probably_wrong

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LEAST_ROWS = 8
LEAST_OF_SOURCE = 0.1
MOST_OF_ALL = 0.5
TIMES = 3.0
CHANCE = 1e-4
CONTRADICTED = 0.25
"""A label is contradicted when models give it less than this share of what they give the likeliest class."""

OWN_WORD = 10.0
"""So many rows of each class speak for the moves of the whole set, besides a source's own."""


@dataclass(frozen=True, slots=True)
class SourceFlips:
    """``rows`` of the ``size`` rows of source ``number`` in ``column`` are probably wrong.

    Models contradict a share of ``contradicted`` of its rows, where the same classes of other sources would
    give ``others``; ``fdr`` of ``rows`` are expected to be right.
    """

    column: str
    number: int
    rows: Ints
    size: int
    contradicted: float
    others: float
    fdr: float

    def at(self, position: Ints) -> SourceFlips:
        """The same with rows numbered by ``position``."""
        return replace(self, rows=position[self.rows])


def flipped_sources(
    chances: Floats, codes: Ints, asked: npt.NDArray[np.bool_], sources: dict[str, npt.NDArray[np.uint64]]
) -> list[SourceFlips]:
    """Sources of ``asked`` rows whose labels are contradicted, most rows first; ``chances`` out-of-fold.

    The other sources' rows are asked ones too: an update that is bad throughout is no one source's doing.
    """
    from scipy.stats import binom

    given = chances[np.arange(len(codes)), codes]
    against = given < CONTRADICTED * chances.max(axis=1)
    sizes = np.bincount(codes[asked], minlength=chances.shape[1])
    wrong = np.bincount(codes[asked], weights=against[asked], minlength=chances.shape[1])
    suspects = []
    for column, numbers in sources.items():
        present = np.unique(numbers[asked])
        for number in present:
            mine = np.flatnonzero((numbers == number) & asked)
            rows = mine[against[mine]]
            if len(rows) < max(LEAST_ROWS, LEAST_OF_SOURCE * len(mine)) or len(mine) > MOST_OF_ALL * len(
                codes
            ):
                continue
            own = np.bincount(codes[mine], minlength=len(sizes))
            other_wrong = wrong - np.bincount(codes[rows], minlength=len(sizes))
            # A class that hardly any other source has is judged by how often others are contradicted at all.
            usual = (other_wrong.sum() + 0.5) / (sizes.sum() - len(mine) + 1.0)
            rates = (other_wrong + usual) / (sizes - own + 1.0)
            expected = float((rates * own).sum())
            p = binom.sf(len(rows) - 1, len(mine), min(1.0, expected / len(mine))) * len(present)
            if len(rows) >= TIMES * expected and p <= CHANCE:
                suspects.append((column, int(number), mine, len(rows) / len(mine), expected / len(mine)))
    if not suspects:
        return []
    right, moves = channel(chances, codes)
    found = []
    for column, source, mine, contradicted, others in suspects:
        rows, fdr = _wrong_of(right[mine], codes[mine], moves)
        found.append(SourceFlips(column, source, mine[rows], len(mine), contradicted, others, fdr))
    return sorted(found, key=lambda f: -len(f.rows))


def _wrong_of(right: Floats, codes: Ints, moves: Floats) -> tuple[Ints, float]:
    """Positions among one source's rows that are probably wrong, and the expected share of right ones."""
    doubt = probably_wrong(right, codes, learnt(right, codes, moves, OWN_WORD))
    order = np.argsort(-doubt, kind="stable")
    length, fdr = most_useful(doubt[order])
    return np.sort(order[:length]), fdr
