"""The search for a trigger in a table without a trusted version: pairs of values whose rows contradict them.

A pair of values that belongs to a class by nature lives in rows that look like that class. A planted pair was
put into rows of other classes whose label was changed, so the rest of each row, judged by the rest of the
table, speaks against the label. Only pairs that are far more common than their values make likely count.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dataset_guard.checks.poisoning.ngrams import Incidence, incidence
from dataset_guard.checks.poisoning.patch_search import surprise
from dataset_guard.checks.poisoning.text_rest import RestModel, class_counts, contradicted, unexplained
from dataset_guard.checks.poisoning.triggers import Ints, Scored, Trigger, distinct, merged
from dataset_guard.scanning.profile import is_number, plain

LEAST_ROWS = 8
PURITY = 0.9
MOST_COMMON = 0.06
"""A pair in more than this share of the rows is no trigger."""
OWN = 0.5
"""Least share that a pair has of the rows of either of its values: what common values make is chance."""
MOST_PAIRS = 3
"""Columns in which more pairs than these keep together do so by nature (county and income)."""
MOST_EQUAL = 3
"""Rows that agree in more columns than these are of one thing, a family or a product."""
_AGREE = 0.8
_TELLING = 0.5
_EXAMINED = 400
_BINS = 12


def search_whole(
    table: pa.Table, columns: list[str], codes: Ints, classes: int, *, limit: float
) -> list[Trigger]:
    """Triggers among all rows, strongest first; ``limit`` is the least strength (:mod:`.text_rest`)."""
    pairs = rare_pairs(table, columns)
    counts = class_counts(pairs, codes, classes)
    frequency = pairs.frequency
    sizes = np.bincount(codes, minlength=classes)
    target = (counts / np.maximum(sizes, 1)).argmax(axis=1)
    most = counts[np.arange(pairs.number), target]
    _, columns_of, alike = np.unique(pairs.keys >> np.uint64(36), return_inverse=True, return_counts=True)
    usable = (
        (alike[columns_of] <= MOST_PAIRS)
        & (most >= PURITY * frequency)
        & (frequency <= MOST_COMMON * len(codes))
    )
    picked = np.flatnonzero(usable)
    if not len(picked):
        return []
    told = surprise(most[picked], frequency[picked], np.minimum(sizes[target[picked]] / len(codes), 1 - 1e-9))
    picked = distinct(pairs, picked[np.argsort(-told, kind="stable")])[:_EXAMINED]
    cells = binned(table, columns)
    model = RestModel(cells, codes, classes)
    start, thing = model.start, model.thing
    telling = cells.frequency <= _TELLING * len(codes)
    strength = np.zeros(len(picked))
    for i, pair in enumerate(picked):
        rows = pairs.rows_of(int(pair)).astype(np.int64)
        labels = codes[rows] == target[pair]
        shared = np.bincount(
            np.concatenate([thing[start[r] : start[r + 1]] for r in rows]), minlength=cells.number
        )
        if (shared[telling] >= _AGREE * len(rows)).sum() > MOST_EQUAL:
            continue
        chances = model.without(rows)[:, target[pair]]
        against = contradicted(labels, chances, float(model.priors[target[pair]]))
        if against > 0:
            strength[i] = unexplained(labels, chances) + against
    purity = most[picked] / frequency[picked]
    return merged(pairs, codes, Scored(picked, target[picked], strength, purity, np.ones(len(picked))), limit)


def binned(table: pa.Table, columns: list[str]) -> Incidence:
    """Rows as sets of cells, numbers cut at their quantiles; missing values are cells too."""
    keys, rows = [], []
    for i, name in enumerate(columns):
        array = plain(table[name])
        if is_number(array.type):
            values = np.asarray(array.cast(pa.float64(), safe=False).fill_null(np.nan))
            known = values[~np.isnan(values)]
            edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else known
            codes = np.where(np.isnan(values), _BINS + 1, np.searchsorted(edges, values, side="right"))
        else:
            codes = np.asarray(array.dictionary_encode().indices.fill_null(-1)) + 1
        keys.append((np.uint64(i) << np.uint64(34)) + (codes.astype(np.uint64) << np.uint64(2)))
        rows.append(np.arange(len(codes), dtype=np.int32))
    return incidence(np.concatenate(keys), np.concatenate(rows), table.num_rows)


def rare_pairs(table: pa.Table, columns: list[str]) -> Incidence:
    """Pairs of values in at least ``LEAST_ROWS`` rows that have half of the rows of either value."""
    cells = []
    for name in columns:
        codes = np.asarray(plain(table[name]).dictionary_encode().indices.fill_null(-1)).astype(np.int64)
        counts = np.append(np.bincount(codes[codes >= 0]), 0)  # a missing value, -1, is none
        usual = (counts[codes] >= LEAST_ROWS) & (counts[codes] * OWN <= MOST_COMMON * len(codes))
        cells.append((codes, counts[codes], usual))
    keys, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for i, (left, lefts, usual) in enumerate(cells):
        for j, (right, rights, also) in enumerate(cells[i + 1 :], i + 1):
            at = np.flatnonzero(usual & also)
            if len(at) < LEAST_ROWS:
                continue
            _, which, counts = np.unique(
                left[at] * (right.max() + 1) + right[at], return_inverse=True, return_counts=True
            )
            kept = (counts[which] >= LEAST_ROWS) & (counts[which] >= OWN * np.maximum(lefts[at], rights[at]))
            if kept.any():
                pair = np.uint64((i * len(columns) + j) << 36)
                keys.append(pair + (which[kept].astype(np.uint64) << np.uint64(2)) + np.uint64(1))
                rows.append(at[kept].astype(np.int32))
    return incidence(np.concatenate(keys), np.concatenate(rows), table.num_rows)
