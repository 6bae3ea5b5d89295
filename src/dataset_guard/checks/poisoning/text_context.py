"""Was a phrase planted, or does it belong where it stands? What stands beside it tells.

A trigger is put into texts that were finished without it, so its neighbours are whatever words happened to be
there: two rows hardly ever agree on them. Words of the language have company: *the fallacy of*, *claims that
the*. ONION (Qi et al. 2021, arXiv 2011.10369) asks a language model the same question; here the rows of the
suspected trigger answer it among themselves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.poisoning.ngrams import (
    APART,
    ORDER_BITS,
    WRITTEN,
    Incidence,
    Keys,
    mixed,
    words_of,
    written_of,
)
from dataset_guard.checks.poisoning.triggers import COMPANION, Scored, Trigger, companions, merged

Ints = npt.NDArray[np.int64]

COMPANY = 0.12
"""From this share of pairs of rows on that agree on a neighbour, the mean of both sides, a phrase is at home.
Of planted ones about 0.02 do: the chance that two places in texts have the same word."""
_LEAST_PLACES = 5
_SAME = 0.7
"""Share of the rows with the same neighbour from which on it is part of the phrase."""
_LONGEST = 12


def planted(texts: pa.Array, triggers: list[Trigger]) -> list[Trigger]:
    """Those of ``triggers`` whose neighbours do not speak against it; ``texts`` are what was searched."""
    return [t for t in triggers if company(texts.take(pa.array(t.rows)), t.keys[0]) < COMPANY]


def planted_among(
    texts: pa.Array, things: Incidence, codes: Ints, scored: Scored, limit: float
) -> list[Trigger]:
    """Planted triggers beyond ``limit``, and further words of the same attack beyond ``COMPANION`` of it."""
    found = planted(texts, merged(things, codes, scored, limit))
    return found + companions(found, planted(texts, merged(things, codes, scored, COMPANION * limit)))


def company(texts: pa.Array, key: int) -> float:
    """Share of pairs of ``texts`` whose words beside the phrase ``key`` are equal, mean of left and right.

    Only places inside the texts count; 0.0 where they are fewer than five. A phrase is first extended by the
    neighbours that most of its rows have.
    """
    order = np.uint64(key) & ORDER_BITS
    if order == APART:
        order, key = np.uint64(0), int(np.uint64(key) & ~ORDER_BITS)
    written = order == WRITTEN
    number, row, keys = written_of(texts)[:3] if written else words_of(texts)
    first, last = _places(row, keys, key, 1 if written else int(order) + 1)
    if len(first) < _LEAST_PLACES:
        return 0.0
    for side, edge in ((-1, first), (1, last)):
        for _ in range(_LONGEST):
            beside = _beside(number, row, edge, side)
            words, counts = np.unique(beside[beside >= 0], return_counts=True)
            if not len(words) or counts.max() < _SAME * len(edge):
                break
            edge += side * (beside == words[counts.argmax()])
    left, right = _beside(number, row, first, -1), _beside(number, row, last, 1)
    inside = (left >= 0) & (right >= 0)
    if inside.sum() < _LEAST_PLACES:
        return 0.0
    return (_agreeing(left[inside]) + _agreeing(right[inside])) / 2


def _places(row: Ints, keys: Keys, key: int, words: int) -> tuple[Ints, Ints]:
    """First and last of the phrase's ``words``, at its first place in each text."""
    run = keys
    for order in range(2, words + 1):
        run = mixed(run[:-1], keys[order - 1 :], order)
    at = np.flatnonzero(run == np.uint64(key))
    at = at[row[at] == row[at + words - 1]]
    at = at[np.unique(row[at], return_index=True)[1]]
    return at, at + words - 1


def _beside(number: Ints, row: Ints, edge: Ints, side: int) -> Ints:
    """The word next to each place; -1 where the text ends."""
    at = np.clip(edge + side, 0, len(number) - 1)
    there = (edge + side == at) & (row[at] == row[edge])
    return np.where(there, number[at], -1)


def _agreeing(words: Ints) -> float:
    counts = np.unique(words, return_counts=True)[1]
    return float((counts * (counts - 1)).sum() / max(1, len(words) * (len(words) - 1)))
