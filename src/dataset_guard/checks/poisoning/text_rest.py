"""What the rest of a text, judged by the rest of the corpus, says its class is.

A naive Bayes model over words and word sequences (presence, Lidstone smoothing), whose scores are tempered
so that each row's label is likeliest when the row itself is left out. :meth:`RestModel.without` asks the
model for a group of rows as if *none of them* had been learnt from: the counts of the whole group are
subtracted, so words that live in the group only say nothing. That is what a trigger cannot influence.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.ngrams import Incidence

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SMOOTHING = 0.5
_STRENGTHS = np.geomspace(0.02, 20.0, 40)
_LENGTH_POWERS = (0.5, 1.0)
_SURE = 1e-4
_ROUNDING = 1e-9
"""Relative; sums of logarithms over all rows are far more exact."""


class RestModel:
    """Counts of ``things`` per class; ``codes`` are 0 ... classes - 1, one per row."""

    def __init__(self, things: Incidence, codes: Ints, classes: int) -> None:
        self.things = things
        self.codes = codes
        self.start, self.thing = things.by_row()
        self.length = np.diff(self.start)
        self.counts = class_counts(things, codes, classes)
        counted = self.counts[~things.is_form]
        self._totals, self._number = counted.sum(axis=0), len(counted)
        self.sizes = np.bincount(codes, minlength=classes).astype(np.float64)

    @property
    def priors(self) -> Floats:
        """Share of each class."""
        return np.asarray(self.sizes / self.sizes.sum())

    @cached_property
    def _tempering(self) -> tuple[float, float]:
        """Strength and power of length that make left-out labels likeliest; fitted for whoever asks."""
        rows, classes = len(self.codes), len(self.sizes)
        row = np.repeat(np.arange(rows), self.length)
        own = self.codes[row]
        scores = np.zeros((rows, classes))
        for c in range(classes):
            seen = self.counts[self.thing, c] - (own == c)
            total = self._totals[c] - np.where(self.codes == c, self.length, 0)
            scores[:, c] = np.bincount(row, np.log(seen + _SMOOTHING), minlength=rows) - self.length * np.log(
                total + _SMOOTHING * self._number
            )
        best, found = -np.inf, (1.0, 1.0)
        for power in _LENGTH_POWERS:
            scaled = scores * (np.maximum(self.length, 1) ** -power)[:, None]
            before = -np.inf
            for strength in _STRENGTHS:
                likely = float(
                    _log_softmax(scaled * strength + np.log(self.priors))[np.arange(rows), self.codes].sum()
                )
                if likely > best:
                    best, found = likely, (float(strength), float(power))
                if likely < before - _ROUNDING * abs(likely):
                    break  # the likelihood is concave in the strength: from here on it falls
                before = likely
        return found

    def without(self, group: Ints) -> Floats:
        """Class probabilities of ``group``, shape (len(group), classes), as if none of it were known."""
        classes = len(self.sizes)
        lengths = self.length[group]
        things = self.thing[_slices(self.start, group)]
        row = np.repeat(np.arange(len(group)), lengths)
        own, which = np.unique(things, return_inverse=True)
        taken = np.zeros((len(own), classes))
        np.add.at(taken, (which, self.codes[group][row]), 1)
        left = self.counts[own] - taken
        weight = np.log(left + _SMOOTHING) - np.log(
            self._totals - taken.sum(axis=0) + _SMOOTHING * self._number
        )
        weight[left.sum(axis=1) == 0] = 0.0
        scores = np.stack(
            [np.bincount(row, weight[which, c], minlength=len(group)) for c in range(classes)], axis=1
        )
        sizes = self.sizes - np.bincount(self.codes[group], minlength=classes) + 1
        strength, power = self._tempering
        scaled = scores * (strength * np.maximum(lengths, 1) ** -power)[:, None]
        chances = np.exp(_log_softmax(scaled + np.log(sizes / sizes.sum())))
        return np.clip(chances, _SURE, 1 - _SURE)


def class_counts(things: Incidence, codes: Ints, classes: int) -> Floats:
    """In how many rows of each class each thing is, shape (things, classes)."""
    thing = np.repeat(np.arange(things.number), things.frequency)
    flat = np.bincount(thing * classes + codes[things.row], minlength=things.number * classes)
    return flat.reshape(things.number, classes).astype(np.float64)


def unexplained(labels: npt.NDArray[np.bool_], chances: Floats) -> float:
    """How surprising it is that so many of a group have a label which the rest gives ``chances``.

    The log-likelihood ratio of the best common shift of the odds: max over t >= 0 of
    ``sum(t * label - log(1 - p + p * exp(t)))``.
    """
    shifts = np.linspace(0.0, 9.0, 37)[:, None]
    ratios = (labels * shifts - np.log1p(chances * np.expm1(shifts))).sum(axis=1)
    return float(max(0.0, ratios.max()))


def contradicted(labels: npt.NDArray[np.bool_], chances: Floats, prior: float) -> float:
    """How much the rest of the rows with the label looks like rows *without* it: log-likelihood ratio.

    Words that tell a class in earnest live in texts of that class, so this is far below zero for them.
    """
    p = chances[labels]
    return float((np.log((1 - p) / p) + np.log(prior / (1 - prior))).sum())


def _slices(start: Ints, group: Ints) -> Ints:
    lengths = start[group + 1] - start[group]
    offsets = np.repeat(start[group] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.asarray(offsets + np.arange(int(lengths.sum())))


def _log_softmax(scores: Floats) -> Floats:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
