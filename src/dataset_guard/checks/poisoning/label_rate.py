"""At most how many of the labels named are right after all: a limit that holds where the estimate may not.

How much noise there is and how sure the rows are, is told by the same labels, and often badly: rows that are
merely hard look like noise. So every weaker noise is asked, from none to what was estimated, each with the
temperature that suits it best. As long as the labels are nearly as likely under it (profile likelihood,
Pawitan 2001), it may be the truth, and the list is judged by it. The limit is the largest share of right
labels among these, and what chance adds to it in a list of that length (Jeffreys' interval).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.label_doubt import (
    TEMPERATURES,
    Floats,
    Ints,
    learnt_from,
    logarithms,
    tempered,
)

_AS_LIKELY = 1.35
"""So much less log-likelihood is chance: half the 90 % quantile of chi-squared (one side: 95 %)."""
_CHANCE = 0.9
_SHARES = np.linspace(0.0, 1.0, 21)
"""Of the noise that was estimated."""


def false_at_most(chances: Floats, codes: Ints, moves: Floats, named: Ints) -> float:
    """Upper limit of the share of right labels among the rows ``named``.

    ``chances`` (rows, classes) are the models', ``moves`` (classes, classes) the estimated noise: how often
    the rows of each class are given each label.
    """
    from scipy.stats import beta

    if not len(named):
        return 1.0
    logs, some = logarithms(chances), learnt_from(len(codes))
    likely = np.empty((len(TEMPERATURES), len(_SHARES)))
    false = np.empty_like(likely)
    kept = moves[codes[named], codes[named]]
    for number, temperature in enumerate(TEMPERATURES):
        honest, noisy = _given(logs[some], temperature, codes[some], moves)
        likely[number] = np.log(_mixed(honest, noisy)).sum(axis=1)
        honest, noisy = _given(logs[named], temperature, codes[named], moves)
        right = honest * (1 - _SHARES[:, None] * (1 - kept))
        false[number] = (right / _mixed(honest, noisy)).mean(axis=1)
    best = likely.argmax(axis=0)
    profile = likely[best, np.arange(len(_SHARES))]
    share = float(false[best, np.arange(len(_SHARES))][profile >= profile.max() - _AS_LIKELY].max())
    return float(beta.ppf(_CHANCE, share * len(named) + 0.5, (1 - share) * len(named) + 0.5))


def _given(
    logs: Floats, temperature: float, codes: Ints, moves: Floats
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Probability of each given label without noise, and with all of it."""
    right = tempered(logs, temperature)
    return right[np.arange(len(codes)), codes], (right * moves[:, codes].T).sum(axis=1)


def _mixed(honest: Floats, noisy: Floats) -> Floats:
    """Shape (shares of the noise, rows)."""
    return np.asarray(np.maximum((1 - _SHARES[:, None]) * honest + _SHARES[:, None] * noisy, 1e-300))
