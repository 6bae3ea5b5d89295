"""What cheap models, each trained without the row in question, think a row's label is.

Numbers: logistic regression, 15 nearest neighbours and a small forest. Text: logistic regression on words, on
characters, and complement naive Bayes (Rennie et al. 2003). Their mean, weighted by how often each is right,
is better than any one of them and far from overconfident.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.features import Matrix

Probabilities = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

FOLDS = 5
_DIMENSIONS = 128
_SHARPNESS = 20.0
Model = Callable[[], Any]


def out_of_fold(
    matrix: Matrix, texts: list[str] | None, codes: Codes, trusted: npt.NDArray[np.bool_] | None, seed: int
) -> Probabilities:
    """Probabilities of each class for each row, shape (rows, classes), by models that did not see the row.

    ``codes`` are 0 ... classes - 1, each at least ``FOLDS`` times (among the trusted rows if ``trusted`` is
    given: then models learn from trusted rows only, and what they say of the others is the mean over folds).
    """
    from threadpoolctl import threadpool_limits

    views = []
    # One thread: small matrices cost ten times the CPU on several, and sums come out in one order only.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # a view that has not quite converged is still a view
        if matrix.shape[1]:
            inputs = _reduced(matrix, seed)
            views += [_view(inputs, codes, trusted, m, seed) for m in (_linear, _neighbours, _forest)]
        if texts is not None:
            words, characters = _bags(texts)
            for bag, model in ((words, _sparse_linear), (characters, _sparse_linear), (words, _bayes)):
                views.append(_view(bag, codes, trusted, model, seed))
    return _weighted(views, codes, np.ones(len(codes), bool) if trusted is None else trusted)


def _weighted(views: list[Probabilities], codes: Codes, known: npt.NDArray[np.bool_]) -> Probabilities:
    """The mean of ``views``; one that is right 5 points less often than the best weighs a third of it."""
    right = np.array([(v[known].argmax(axis=1) == codes[known]).mean() for v in views])
    weights = np.exp(_SHARPNESS * (right - right.max()))
    return np.asarray(np.tensordot(weights / weights.sum(), np.array(views), axes=1))


def _view(inputs: Any, codes: Codes, trusted: Any, model: Model, seed: int) -> Probabilities:
    from sklearn.model_selection import StratifiedKFold

    classes = int(codes.max()) + 1
    out = np.zeros((len(codes), classes))
    known = np.arange(len(codes)) if trusted is None else np.flatnonzero(trusted)
    rest = np.empty(0, np.int64) if trusted is None else np.flatnonzero(~trusted)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(known, codes[known]):
        fitted = model().fit(inputs[known[train]], codes[known[train]])
        out[np.ix_(known[test], fitted.classes_)] = fitted.predict_proba(inputs[known[test]])
        if len(rest):
            out[np.ix_(rest, fitted.classes_)] += fitted.predict_proba(inputs[rest]) / FOLDS
    return out


def _reduced(matrix: Matrix, seed: int) -> Matrix:
    """Wide matrices by their first 128 principal directions: images keep what tells classes apart."""
    if matrix.shape[1] <= _DIMENSIONS:
        return matrix
    from sklearn.decomposition import TruncatedSVD

    centred = matrix - matrix.mean(axis=0)
    width = min(_DIMENSIONS, min(centred.shape) - 1)
    return np.asarray(TruncatedSVD(width, random_state=seed).fit_transform(centred), np.float32)


def _bags(texts: list[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=100_000, sublinear_tf=True)
    chars = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), min_df=2, max_features=100_000, sublinear_tf=True
    )
    return words.fit_transform(texts), chars.fit_transform(texts)


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))


def _neighbours() -> Any:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), KNeighborsClassifier(15))


def _forest() -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(50, min_samples_leaf=2, random_state=0, n_jobs=1)


def _sparse_linear() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=4.0, max_iter=100, tol=1e-3)


def _bayes() -> Any:
    from sklearn.naive_bayes import ComplementNB

    return ComplementNB()
