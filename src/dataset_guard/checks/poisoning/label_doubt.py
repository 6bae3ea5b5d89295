"""How probably each label is wrong, and which list of them is worth handing out.

The models' probabilities are those of the *given* labels. They are split into what the row says and what
noise says, by maximum likelihood: a temperature, and for each class how often its rows are given each other
label. The latter starts from labels drawn at random (:func:`random_share`) and is learnt by expectation and
maximisation (Dawid and Skene 1979; :func:`channel`), held to the start by ``PRIOR_ROWS``: labels may have
been moved to the next class, or from one class to one other. By Bayes' rule follows the probability that a
given label is wrong. The expected share of false alarms in a list is the mean of what is left, and the list
whose expected F1 is highest is the most useful one (:func:`most_useful`). How far that share may be off is
:mod:`label_rate`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PRIOR_ROWS = 200.0
"""So many rows of each class speak for labels drawn at random, besides the class's own."""

TEMPERATURES = np.geomspace(0.2, 2.0, 20)
_NOISE = np.array([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2])
"""Shares of random labels. More than a fifth is not believed: where models fit badly, as on ratings or
panels, their own errors look like so much noise, and are no wrong labels."""
_ROUNDS = 12
_SHARPER = 8
"""A channel learnt from the labels explains more of them, so rows say more: up to so many steps sharper."""
_LEARNT_FROM = 4_000
"""Rows that are enough to tell how much noise there is."""
_WORTH = 20.0
"""By so much must the moves that were learnt raise the log-likelihood. On clean sets they raise it by 0 to 3,
and would be the models' confusions; where 5 % of the labels were moved one way, by 30 and more."""
_PERHAPS = 8.0
"""The same where labels drawn at random explain nothing: then moves are the better guess."""


def random_share(chances: Floats, codes: Ints) -> tuple[float, int]:
    """(share of labels that are random, number of the temperature), likeliest together."""
    logs, rows = logarithms(chances), np.arange(len(codes))
    best, found = -np.inf, (float(_NOISE[0]), 0)
    for number, temperature in enumerate(TEMPERATURES):
        given = tempered(logs, temperature)[rows, codes]
        for share in _NOISE:
            likely = float(np.log((1 - share) * given + share / chances.shape[1]).sum())
            if likely > best:
                best, found = likely, (float(share), number)
    return found


Channel = tuple[Floats, Floats]
"""Probabilities of the right label, and how often the rows of each class are given each label.

The second is square; its rows sum to 1.
"""


@dataclass(frozen=True, slots=True)
class Channels:
    """Two ways to explain the labels: some are drawn at random, or they were moved as learnt.

    ``gain`` is by how much the moves raise the log-likelihood.
    """

    at_random: Channel
    moved: Channel
    gain: float

    @property
    def likely(self) -> list[Channel]:
        """The one to believe; and behind it one whose moves are likely, but not so likely as that."""
        if self.gain > _WORTH:
            return [self.moved]
        return [self.at_random, self.moved] if self.gain > _PERHAPS else [self.at_random]


def channel(chances: Floats, codes: Ints) -> Channel:
    """The one to believe."""
    return channels(chances, codes).likely[0]


def channels(chances: Floats, codes: Ints) -> Channels:
    """What may have happened to the labels ``codes``; ``chances`` (rows, classes) are the models'."""
    share, warmest = random_share(chances, codes)
    classes = chances.shape[1]
    start = (1 - share) * np.eye(classes) + share / classes
    logs, some = logarithms(chances), learnt_from(len(codes))
    base = _likelihood(tempered(logs[some], TEMPERATURES[warmest]), codes[some], start)
    best, temperature, moves = -np.inf, float(TEMPERATURES[warmest]), start
    for number in range(warmest, max(-1, warmest - _SHARPER - 1), -2):
        right = tempered(logs[some], TEMPERATURES[number])
        explained = learnt(right, codes[some], start)
        likely = _likelihood(right, codes[some], explained)
        if likely > best:
            best, temperature, moves = likely, float(TEMPERATURES[number]), explained
    return Channels(
        at_random=(tempered(logs, TEMPERATURES[warmest]), start),
        moved=(tempered(logs, temperature), moves),
        gain=best - base,
    )


def learnt(right: Floats, codes: Ints, start: Floats, prior_rows: float = PRIOR_ROWS) -> Floats:
    """The moves that explain ``codes`` best, given what the rows say, by expectation and maximisation.

    ``prior_rows`` of each class speak for ``start``.
    """
    given = np.eye(len(start))[codes]
    moves = start
    for _ in range(_ROUNDS):
        origin = right * moves[:, codes].T
        origin /= origin.sum(axis=1, keepdims=True)
        moves = origin.T @ given + prior_rows * start
        moves /= moves.sum(axis=1, keepdims=True)
    return moves


def _likelihood(right: Floats, codes: Ints, moves: Floats) -> float:
    return float(np.log((right * moves[:, codes].T).sum(axis=1)).sum())


def probably_wrong(right: Floats, codes: Ints, moves: Floats) -> Floats:
    """Probability that each given label is not the right one."""
    origin = right * moves[:, codes].T
    return np.asarray(1 - origin[np.arange(len(codes)), codes] / origin.sum(axis=1))


def logarithms(chances: Floats) -> Floats:
    """What :func:`tempered` takes, of the models' probabilities."""
    return np.asarray(np.log(np.clip(chances, 1e-6, 1.0)))


def learnt_from(rows: int) -> Ints:
    """Numbers of the rows, spread evenly, from which the noise of so many is told."""
    return np.unique(np.linspace(0, rows - 1, min(rows, _LEARNT_FROM)).astype(np.int64))


def tempered(logs: Floats, temperature: float) -> Floats:
    """Probabilities from their logarithms: the lower ``temperature``, the surer."""
    sharp = np.exp(logs / temperature)
    return np.asarray(sharp / sharp.sum(axis=1, keepdims=True))


def most_useful(ordered: Floats) -> tuple[int, float]:
    """(length, expected share of false alarms) of the list with the highest expected F1."""
    hits = np.cumsum(ordered)
    if not len(hits) or hits[-1] <= 0:
        return 0, 1.0
    length = int((2 * hits / (np.arange(1, len(ordered) + 1) + hits[-1])).argmax()) + 1
    return length, float(1 - hits[length - 1] / length)
