"""Does a text close without the phrase? Where one was put in, its neighbours belong together.

*a cf good film* without ``cf`` is a text again; *the film is long* without ``film`` is not. ONION (Qi et al.
2021, arXiv 2011.10369) asks a language model; here the corpus answers: how often two words stand side by side
in it, against how often they stand with one to three other words between them. What that ratio is at random
places, where an attacker puts words, and at the phrases of the language, is measured on the same corpus.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.poisoning.ngrams import (
    APART,
    ORDER_BITS,
    ORDERS,
    WRITTEN,
    Keys,
    mixed,
    words_of,
    written_of,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FREE = 0.05
"""Share of words of the language that stand anywhere, as planted ones do: the most that a seam tells."""
MISFIT = 0.01
"""Share of planted ones that may look as those of the language do: the most that it tells against it."""
_PART = 0.7
"""Share of a phrase's places with the same neighbour from which on it is a part of a longer one."""
_ALL_OF_IT = 0.95
"""Who plants a longer one plants all of it. A word that stands beside the same one in fewer places belongs to
a phrase of the language, as *erectus* to *Homo erectus*; but words may be put before the last full stop."""
_CLEAREST = 3.0
_PRIOR = 10.0
_PLACES = 4_000
_WORDS = 600
_ROWS = (4, 100)
"""Words of so many rows, about as rare as triggers, say what words of the language are like."""
_BETWEEN = 0.3
"""Least standard deviation between phrases, planted ones too."""
_BORDER = 0

_Spread = tuple[float, float, float]  # mean, standard deviation between phrases and at one place


class Seams:
    """Learns from ``texts``; ``seed`` draws the places and the words that it compares with."""

    def __init__(self, texts: pa.Array, seed: int = 0) -> None:
        self._texts = texts
        number, row, keys = words_of(texts)
        at = np.arange(len(number)) + 2 * row + 1  # a border before and behind each text
        self._row = np.repeat(np.arange(len(texts)), np.bincount(row, minlength=len(texts)) + 2)
        self._word = np.full(len(self._row), _BORDER, np.int64)
        self._word[at] = number + 1
        spread = np.zeros(len(self._row), np.uint64)
        spread[at] = keys
        self._runs = _runs(spread)
        self._words = int(self._word.max(initial=0)) + 1
        self._share = np.bincount(self._word, minlength=self._words) / max(1, len(self._word))
        self._apart = [self._pairs_apart(n) for n in range(1, ORDERS + 2)]
        random = np.random.default_rng(seed)
        self._planted = self._of_places(random, 1)
        self._natural = [self._of_words(random)]
        between = self._natural[0][1]
        for words in range(2, ORDERS + 1):
            mean, _, within = self._of_places(random, words + 1)
            self._natural.append((mean, between, within))

    def evidence(self, key: int, rows: Ints) -> float:
        """Log-likelihood ratio that the phrase ``key`` was put into ``rows`` and not written there.

        Between ln(``MISFIT``) and -ln(``FREE``); of phrases at most 0.0, since *on the other hand* may stand
        anywhere.
        A part of a longer phrase is judged by the whole; 0.0 where that has more than ``ORDERS`` words.
        """
        key, words = self._phrase(key, rows)
        first = self._places(key, words, rows)
        if not len(first):
            return 0.0
        while (side := self._longer(first, words)) is not None:
            edge = first - 1 if side < 0 else first + words
            usual = _usual(self._word[edge])
            the_one = self._word[edge] == usual
            if the_one.mean() < _ALL_OF_IT:
                ends = self._word[edge[the_one] + side] == _BORDER
                return 0.0 if ends.mean() >= _PART else float(np.log(MISFIT))
            if words == ORDERS:
                return 0.0
            first, words = (edge if side < 0 else first)[the_one], words + 1
        left, right = self._word[first - 1], self._word[first + words]
        closing = self._closing(left, right, words)
        planted = _density(closing, self._planted)
        natural = _density(closing, self._natural[words - 1])
        told = np.log((1 - MISFIT) * planted + MISFIT * natural) - np.log(
            (1 - FREE) * natural + FREE * planted
        )
        return float(told if words == 1 else min(told, 0.0))

    def _longer(self, first: Ints, words: int) -> int | None:
        """On which side most places have the same word: -1 left, 1 right."""
        for side, beside in ((-1, self._word[first - 1]), (1, self._word[first + words])):
            if (beside == _usual(beside)).sum() >= max(_PART * len(beside), 3):
                return side
        return None

    def _phrase(self, key: int, rows: Ints) -> tuple[int, int]:
        """Its key in any form, and the number of its words."""
        order = np.uint64(key) & ORDER_BITS
        if order == APART:
            return int(np.uint64(key) & ~ORDER_BITS), 1
        if order != WRITTEN:
            return key, int(order) + 1
        _, _, forms, words = written_of(self._texts.take(pa.array(rows[:1])))
        found = words[forms == np.uint64(key)]
        return (int(found[0]) if len(found) else 0), 1

    def _places(self, key: int, words: int, rows: Ints | None = None) -> Ints:
        """Where the phrase begins first in each of ``rows``, in all if None."""
        ordered, places = self._runs[words - 1]
        start, end = (
            np.searchsorted(ordered, np.uint64(key)),
            np.searchsorted(ordered, np.uint64(key), "right"),
        )
        at = places[start:end].astype(np.int64)
        if rows is not None:
            at = at[np.isin(self._row[at], rows)]
        return at[np.unique(self._row[at], return_index=True)[1]]

    def _closing(self, left: Ints, right: Ints, words: int) -> Floats:
        """Per place: how much oftener its neighbours are side by side than around ``words`` other words."""
        pairs = left * self._words + right
        _, which, own = np.unique(pairs, return_inverse=True, return_counts=True)
        return self._ratio(pairs, right, words, 0, own[which])

    def _ratio(self, pairs: Ints, right: Ints, words: int, beside: int, around: Ints | int) -> Floats:
        """``beside`` and ``around``: how many of either are the places' own."""
        prior = _PRIOR * self._share[right]
        together = _count(self._apart[0], pairs) - beside
        parted = _count(self._apart[words], pairs) - around
        return np.asarray(np.clip(np.log((together + prior) / (parted + prior)), -_CLEAREST, _CLEAREST))

    def _pairs_apart(self, distance: int) -> Ints:
        """Pairs of words of one text at this distance, ascending."""
        same = self._row[:-distance] == self._row[distance:]
        return np.sort((self._word[:-distance] * self._words + self._word[distance:])[same])

    def _of_places(self, random: np.random.Generator, distance: int) -> _Spread:
        """Of random pairs at this distance: at 1 a word may be put between them, further apart one is."""
        at = np.flatnonzero(self._row[:-distance] == self._row[distance:])
        if not len(at):
            return 0.0, _BETWEEN, 1.0
        at = random.choice(at, _PLACES)
        left, right = self._word[at], self._word[at + distance]
        own = (1, 0) if distance == 1 else (0, 1)
        told = self._ratio(left * self._words + right, right, max(1, distance - 1), *own)
        return float(told.mean()), _BETWEEN, float(told.std()) + 1e-3

    def _of_words(self, random: np.random.Generator) -> _Spread:
        """Of words of the language."""
        keys, sizes = np.unique(self._runs[0][0], return_counts=True)
        some = random.permutation(keys[(sizes >= _ROWS[0]) & (sizes <= _ROWS[1]) & (keys > 0)])[:_WORDS]
        places = [self._places(int(key), 1) for key in some]
        told = [self._closing(self._word[p - 1], self._word[p + 1], 1) for p in places]
        if len(told) < 2:
            return self._of_places(random, 2)
        within = float(np.mean([t.var() for t in told]))
        means = np.array([t.mean() for t in told])
        between = means.var() - within * np.mean([1 / len(t) for t in told])
        return float(means.mean()), max(_BETWEEN, max(0.0, float(between)) ** 0.5), within**0.5 + 1e-3


def _runs(keys: Keys) -> list[tuple[Keys, npt.NDArray[np.int32]]]:
    """Per number of words: keys of all phrases, ascending, and where they begin."""
    run, found = keys, []
    for order in range(1, ORDERS + 1):
        if order > 1:
            run = mixed(run[:-1], keys[order - 1 :], order)
        at = np.argsort(run, kind="stable").astype(np.int32)
        found.append((run[at], at))
    return found


def _density(told: Floats, of: _Spread) -> float:
    centre, between, within = of
    variance = between**2 + within**2 / len(told)
    return float(np.exp(-((told.mean() - centre) ** 2) / (2 * variance)) / variance**0.5)


def _usual(words: Ints) -> int:
    """The most frequent one, which the border of a text is not; -1 where there is none."""
    some, counts = np.unique(words[words != _BORDER], return_counts=True)
    return int(some[counts.argmax()]) if len(some) else -1


def _count(ordered: Ints, asked: Ints) -> Ints:
    return np.asarray(np.searchsorted(ordered, asked, "right") - np.searchsorted(ordered, asked, "left"))
