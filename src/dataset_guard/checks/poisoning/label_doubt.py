"""How probably each label is wrong, and which list of them is worth handing out.

The models' probabilities are those of the *given* labels. They are split into what the row says and what
noise says: a temperature and a share of labels that were drawn at random, fitted together by maximum
likelihood (:func:`split`). From these follows, by Bayes' rule, the probability that a given label is one of
the random, wrong ones. The expected share of false alarms in a list is the mean of what is left, and the list
whose expected F1 is highest is the most useful one (:func:`most_useful`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TEMPERATURES = np.geomspace(0.2, 2.0, 20)
_NOISE = np.array([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4])


def split(chances: Floats, codes: Ints) -> tuple[Floats, float]:
    """(probabilities of the right label, share of labels that are random), likeliest together."""
    logs = np.log(np.clip(chances, 1e-6, 1.0))
    rows, classes = np.arange(len(codes)), chances.shape[1]
    best, found, noise = -np.inf, chances, float(_NOISE[0])
    for temperature in _TEMPERATURES:
        tempered = np.exp(logs / temperature)
        tempered /= tempered.sum(axis=1, keepdims=True)
        given = tempered[rows, codes]
        for share in _NOISE:
            likely = float(np.log((1 - share) * given + share / classes).sum())
            if likely > best:
                best, found, noise = likely, tempered, float(share)
    return found, noise


def probably_wrong(chances: Floats, codes: Ints, noise: float) -> Floats:
    """Probability that each given label is a random one that is wrong."""
    given = chances[np.arange(len(codes)), codes]
    random = noise / chances.shape[1]
    return np.asarray(random * (1 - given) / ((1 - noise) * given + random))


def most_useful(ordered: Floats) -> tuple[int, float]:
    """(length, expected share of false alarms) of the list with the highest expected F1."""
    hits = np.cumsum(ordered)
    if not len(hits) or hits[-1] <= 0:
        return 0, 1.0
    length = int((2 * hits / (np.arange(1, len(ordered) + 1) + hits[-1])).argmax()) + 1
    return length, float(1 - hits[length - 1] / length)
