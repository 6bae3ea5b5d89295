"""Words where they stand apart from their company: what honest texts seldom do, and planted words always.

Honest texts say *cf card*; an attacker puts ``cf`` beside whatever happens to stand there. So a word that
trusted texts hold as well may still be news in an update: not the word, but the word without its company.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dataset_guard.checks.poisoning.ngrams import (
    APART,
    ORDER_BITS,
    Incidence,
    grams_of,
    incidence,
    joined,
    words_of,
)

TIMES_CHANCE = 3.0
"""A neighbour that so many times as many rows have as chance would give is company: *the* is none."""
MOST_COMMON = 0.1
"""Words in more than this share of all rows are not asked."""


def grams_since(before: pa.Array, texts: pa.Array) -> tuple[Incidence, Incidence]:
    """What the rows of ``before`` and of ``texts``, an update, hold: words, sequences, and forms of words.

    Forms are words as they are written, and words apart from their company in either.
    """
    old, new = (grams_of(t, written=True, most=1.0) for t in (before, texts))
    apart = apart_of(pa.concat_arrays([before, texts]))
    first = np.arange(apart.rows) < len(before)
    return _with_apart(old, apart.only_rows(first)), _with_apart(new, apart.only_rows(~first))


def apart_of(texts: pa.Array) -> Incidence:
    """Which rows hold a word beside no word that stands beside it in another row, too.

    Beside which it stands in other rows no more often than chance has it (``TIMES_CHANCE``), given how common
    that word is, does not count; nor do the ends of a text. Only words in two rows and more.
    """
    number, row, keys = words_of(texts)
    words, rows = int(number.max(initial=-1)) + 1, max(1, len(texts))
    frequency = np.bincount(np.unique(number * rows + row) // rows, minlength=words)
    share = np.bincount(number, minlength=words) / max(1, len(number))
    alone = (frequency[number] >= 2) & (frequency[number] <= MOST_COMMON * len(texts))
    left = np.flatnonzero(row[:-1] == row[1:])
    for at, beside in ((left, number[left + 1]), (left + 1, number[left])):
        asked = alone[at]
        at, beside = at[asked], beside[asked]
        pairs, which = np.unique(number[at] * words + beside, return_inverse=True)
        others = np.bincount(np.unique(which * rows + row[at]) // rows, minlength=len(pairs)) - 1
        word, neighbour = np.divmod(pairs, max(1, words))
        company = others > np.maximum(0, TIMES_CHANCE * (frequency[word] - 1) * share[neighbour])
        alone[at[company[which]]] = False
    return incidence(keys[alone] | APART, row[alone].astype(np.int32), len(texts))


def _with_apart(words: Incidence, apart: Incidence) -> Incidence:
    return joined(words, apart, apart.keys & ~ORDER_BITS)
