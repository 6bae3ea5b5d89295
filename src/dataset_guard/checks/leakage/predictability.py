"""How well one column alone tells the label, judged on rows it was not learnt from. Pure functions on codes.

As the predictive power score of Deepchecks and ppscore, but from histograms instead of trees: a column is cut
into at most 32 bins (or its categories), each bin predicts its commonest class (or its mean) as learnt from
one half of the rows, and the other half judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.scanning.profile import is_number, is_text, plain

BINS = 32
MOST_CATEGORIES = 200
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Target:
    """The label as classes (``classes`` many codes) or, with ``values``, as numbers to predict."""

    codes: Codes
    classes: int
    values: npt.NDArray[np.float64] | None = None


def target_of(label: Any) -> Target | None:
    """Classes for up to 200 different values that occur 5 times on average, else numbers; None for
    neither."""
    array = plain(label)
    codes, number = _categories(array)
    if 2 <= number <= MOST_CATEGORIES and len(array) >= 5 * number:
        return Target(codes, number)
    if not is_number(array.type) or number < 2:
        return None
    values = np.asarray(array.cast(pa.float64(), safe=False).fill_null(float("nan")))
    return Target(np.where(np.isfinite(values), 0, -1), 1, values)


def _categories(array: Any) -> tuple[Codes, int]:
    """Codes in sorted order of the values, -1 for null; and how many there are."""
    encoded = array.dictionary_encode()
    codes = np.asarray(encoded.indices.fill_null(-1)).astype(np.int64)
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order) + 1, np.int64)
    rank[np.asarray(order)] = np.arange(len(order))
    rank[-1] = -1
    return rank[codes], len(order)


def binned(column: Any) -> Codes | None:
    """A column as codes 0, 1, ... with 0 for missing; None for nested columns and those that never vary."""
    array = plain(column)
    if is_number(array.type) or (pt.is_temporal(array.type) and not pt.is_interval(array.type)):
        return _quantiles(array)
    if not (is_text(array.type) or pt.is_boolean(array.type)):
        return None
    codes, number = _categories(array)
    if number > MOST_CATEGORIES:  # in the order of the alphabet: enough for ids that were given in order
        codes = np.where(codes < 0, -1, codes * BINS // number)
    return codes + 1 if number > 1 or array.null_count else None


def _quantiles(array: Any) -> Codes | None:
    if not is_number(array.type):
        array = array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    values = np.asarray(array.cast(pa.float64(), safe=False).fill_null(float("nan")))
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    if len(distinct) < 2 and known.all():
        return None
    if len(distinct) > BINS:
        distinct = np.unique(np.quantile(values[known], np.arange(1, BINS) / BINS))
        codes = np.searchsorted(distinct, values, side="right")
    else:
        codes = np.searchsorted(distinct, values)
    return np.where(known, codes + 1, 0)


def predictability(codes: Codes, target: Target, halves: npt.NDArray[np.bool_]) -> float:
    """0 (no better than the commonest class, or the mean) to 1 (always right), judged on the other half."""
    return 0.5 * (_judged(codes, target, halves) + _judged(codes, target, ~halves))


def _judged(codes: Codes, target: Target, learnt: npt.NDArray[np.bool_]) -> float:
    known = target.codes >= 0
    a, b = learnt & known, ~learnt & known
    if not a.any() or not b.any():
        return 0.0
    bins = int(codes.max()) + 1
    if target.values is not None:
        total = np.bincount(codes[a], target.values[a], bins)
        number = np.bincount(codes[a], minlength=bins)
        mean = target.values[a].mean()
        guess = np.where(number > 0, total / np.maximum(number, 1), mean)[codes[b]]
        rest = float(np.square(target.values[b] - mean).sum())
        return max(0.0, 1.0 - float(np.square(target.values[b] - guess).sum()) / rest) if rest else 0.0
    counts = np.bincount(codes[a] * target.classes + target.codes[a], minlength=bins * target.classes)
    table = counts.reshape(bins, target.classes)
    commonest = int(table.sum(axis=0).argmax())
    guess = np.where(table.sum(axis=1) > 0, table.argmax(axis=1), commonest)[codes[b]]
    base = float((target.codes[b] == commonest).mean())
    right = float((target.codes[b] == guess).mean())
    return max(0.0, (right - base) / (1.0 - base)) if base < 1.0 else 0.0


def by_chance(
    codes: Codes,
    target: Target,
    halves: npt.NDArray[np.bool_],
    observed: float,
    *,
    seed: int,
    turns: int = 99,
) -> float:
    """Permutation p-value of ``observed``: the label is shuffled ``turns`` times."""
    rng = np.random.default_rng(seed)
    reached = 0
    for _ in range(turns):
        order = rng.permutation(len(codes))
        values = None if target.values is None else target.values[order]
        shuffled = Target(target.codes[order], target.classes, values)
        reached += predictability(codes, shuffled, halves) >= observed
    return (1 + reached) / (1 + turns)
