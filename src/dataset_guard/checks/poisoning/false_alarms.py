"""How many right labels would look as doubtful as those that are named.

The mean doubt of the named rows is not it: that asks each row alone, and forgets that among many rows with
right labels some are hard. So the models answer: if every label were drawn from their (calibrated)
probabilities, so that none were wrong, how many would be as doubtful? That number, over the number named, is
the false discovery rate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_TEMPERATURES = np.geomspace(0.3, 2.0, 15)
_NOISE = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


def calibrated(chances: Probabilities, codes: Codes) -> Probabilities:
    """``chances`` at the temperature (Guo et al. 2017) under which the given labels are likeliest, if besides
    a share of them were wrong at random; without that share, wrong labels would pass for caution. The
    temperature is at least 0.3, so that a lucky small set does not make models sure of everything.
    """
    logs = np.log(np.clip(chances, 1e-6, 1.0))
    rows, classes = np.arange(len(codes)), chances.shape[1]
    best, found = -np.inf, chances
    for temperature in _TEMPERATURES:
        tempered = np.exp(logs / temperature)
        tempered /= tempered.sum(axis=1, keepdims=True)
        given = tempered[rows, codes]
        likely = max(float(np.log((1 - e) * given + e / classes).sum()) for e in _NOISE)
        if likely > best:
            best, found = likely, tempered
    return found


def doubts(chances: Probabilities) -> Probabilities:
    """For each row and class ``p / (p + best)``: small where the class is improbable beside the best one.
    1 for the best class itself, which nobody doubts.
    """
    doubt: Probabilities = chances / (chances + chances.max(axis=1, keepdims=True))
    doubt[np.arange(len(doubt)), chances.argmax(axis=1)] = 1.0
    return doubt


def expected_false_alarms(chances: Probabilities, limits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Right labels, drawn from ``chances``, that would have a doubt of at most each of ``limits``."""
    doubt = doubts(chances).ravel()
    order = np.argsort(doubt, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(chances.ravel()[order])])
    return np.asarray(total[np.searchsorted(doubt[order], limits, side="right")])
