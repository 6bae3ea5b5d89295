"""The search for a trigger among new rows, beside a trusted version.

The sequence is far more common among the new rows of one class than the trusted rows give reason for, in any
of their classes, and the texts are strangers. Labels may all be right (clean-label attacks). The limit is
what pretended honest updates, drawn from the trusted rows, reach. Without a trusted version see
:mod:`text_trigger_search`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.ngrams import Incidence
from dataset_guard.checks.poisoning.patch_search import surprise
from dataset_guard.checks.poisoning.text_rest import class_counts
from dataset_guard.checks.poisoning.text_seams import FREE, Seams
from dataset_guard.checks.poisoning.text_texture import PAIR_IN_TEXTS, are_strangers, textures
from dataset_guard.checks.poisoning.text_trigger_search import EXAMINED, SEAM
from dataset_guard.checks.poisoning.triggers import (
    LEAST_ROWS,
    Floats,
    Ints,
    Scored,
    Trigger,
    distinct,
    merged,
)

PURITY = 0.75
MOST_TOLD = -SEAM * float(np.log(FREE))
"""The most that the places of a word add."""
_CHANCE = 1e-3


def search_delta(
    trusted: Incidence,
    trusted_codes: Ints,
    delta: Incidence,
    delta_codes: Ints,
    classes: int,
    *,
    rounds: int,
    margin: float,
    seed: int,
    texts: bool = True,
    least_rows: int = LEAST_ROWS,
) -> list[Trigger]:
    """Triggers among new rows, against trusted ones; both tables give equal sequences equal keys.

    ``texts``: whether rows that share a thing have to be strangers otherwise, as texts do. A trigger is in at
    least ``least_rows`` rows.
    """
    scored, limit = delta_scores(
        trusted, trusted_codes, delta, delta_codes, classes, rounds=rounds, margin=margin, seed=seed,
        texts=texts, least_rows=least_rows,
    )  # fmt: skip
    return merged(delta, delta_codes, scored, limit)


def delta_scores(
    trusted: Incidence, trusted_codes: Ints, delta: Incidence, delta_codes: Ints, classes: int, *,
    rounds: int, margin: float, seed: int, texts: bool = True, least_rows: int = LEAST_ROWS,
    share: float = 1.0, seams: Seams | None = None,
) -> tuple[Scored, float]:  # fmt: skip
    """What :func:`search_delta` asks: candidates of at least ``share`` of the limit, and the limit.

    ``seams`` are those of the trusted texts and, behind them, the new ones.
    """
    before = class_counts(trusted, trusted_codes, classes)
    before_sizes = np.bincount(trusted_codes, minlength=classes)
    drawn = np.bincount(delta_codes, minlength=classes)
    limit = max(
        margin
        * _honest_limit(
            trusted, trusted_codes, before, before_sizes, drawn, rounds, seed, texts, least_rows, seams
        ),
        float(np.log(max(1, int((delta.frequency >= least_rows).sum())) / _CHANCE)),
    )
    scored = score_delta(
        before,
        before_sizes,
        trusted.keys,
        delta,
        delta_codes,
        drawn,
        least=share * limit - (0.0 if seams is None else MOST_TOLD),
        texts=texts,
        least_rows=least_rows,
    )
    if seams is not None:
        scored = _with_seams(scored, delta, delta_codes, seams, trusted.rows + np.arange(delta.rows))
    return scored, limit


def score_delta(
    before: Floats, before_sizes: Ints, known: npt.NDArray[np.uint64], delta: Incidence, codes: Ints,
    drawn: Ints, *, least: float = 0.0, texts: bool = True, least_rows: int = LEAST_ROWS,
) -> Scored:  # fmt: skip
    """Candidates of the delta search of at least ``least`` strength; ``known`` are the trusted keys."""
    classes = len(drawn)
    counts = class_counts(delta, codes, classes)
    frequency = delta.frequency
    target = counts.argmax(axis=1)
    most = counts[np.arange(delta.number), target]
    trusted, found = _trusted_counts(before, known, delta.keys)
    expected = _expected(trusted, found, before_sizes)
    honest = trusted[np.arange(delta.number), target] * drawn[target] / np.maximum(before_sizes[target], 1)
    strength = surprise(most, np.maximum(drawn[target], 1), expected)
    purity = most / np.maximum(frequency, 1)
    fresh = before_sizes[target] > 0
    picked = np.flatnonzero(
        fresh & (frequency >= least_rows) & (purity >= PURITY) & (strength > max(least, 1.0))
    )
    picked = distinct(delta, picked[np.argsort(-strength[picked], kind="stable")])[:EXAMINED]
    if not texts:
        lift = np.ones(len(picked))
        return Scored(picked, target[picked], strength[picked], purity[picked], lift, honest[picked])
    # Labels may be right here, and texts of one class have words in common.
    rates = np.maximum(
        np.maximum(counts - 1, 0) / np.maximum(drawn - 1, 1),
        np.maximum(frequency - 1, 0)[:, None] / max(1, delta.rows - 1),
    )
    texture = textures(delta, delta.by_row(), picked, rates, target[picked], pair_in=PAIR_IN_TEXTS)
    strange = are_strangers(texture)
    picked = picked[strange]
    lift = texture.lift[strange]
    return Scored(picked, target[picked], strength[picked], purity[picked], lift, honest[picked])


def _with_seams(scored: Scored, things: Incidence, codes: Ints, seams: Seams, at: Ints) -> Scored:
    """The same, what the places where candidates stand say added to their strength.

    ``at``: which text of ``seams`` each row of ``things`` is.
    """
    strength = scored.strength.copy()
    for i, (thing, target) in enumerate(zip(scored.things, scored.targets, strict=True)):
        rows = things.rows_of(int(thing)).astype(np.int64)
        told = seams.evidence(int(things.keys[thing]), at[rows[codes[rows] == target]])
        strength[i] = strength[i] + SEAM * told
    return replace(scored, strength=strength)


def _trusted_counts(
    before: Floats, known: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """In how many trusted rows of each class each of ``keys`` is, (keys, classes), and which are known."""
    at = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
    found = known[at] == keys if len(known) else np.zeros(len(keys), bool)
    return np.where(found[:, None], before[at] if len(known) else 0.0, 0.0), found


def _expected(counts: Floats, seen: npt.NDArray[np.bool_], sizes: Ints) -> Floats:
    """How common a thing is in the trusted class where it is most common, by its ``counts``."""
    # One occurrence is not kept (a sequence has to be in two rows), so absence means at most one.
    per_class = (counts + 1.0) / (sizes + 1.0)
    every = (counts.sum(axis=1) + 1.0) / (sizes.sum() + 1.0)
    return np.asarray(np.maximum(np.where(seen, per_class[:, sizes > 0].max(axis=1), 0.0), every))


def _honest_limit(
    trusted: Incidence, codes: Ints, before: Floats, sizes: Ints, drawn: Ints, rounds: int, seed: int,
    texts: bool, least_rows: int, seams: Seams | None,
) -> float:  # fmt: skip
    """The strongest sequence of ``rounds`` pretended updates drawn from the trusted rows themselves."""
    random = np.random.default_rng(seed)
    of_class = [np.flatnonzero(codes == c) for c in range(len(sizes))]
    best = 0.0
    for _ in range(rounds):
        mask = np.zeros(trusted.rows, bool)
        for c, rows in enumerate(of_class):
            mask[random.permutation(rows)[: min(int(drawn[c]), len(rows) // 2)]] = True
        update = trusted.only_rows(mask)
        taken = np.zeros_like(before)
        at = np.searchsorted(trusted.keys, update.keys)
        part_codes = codes[mask]
        taken[at] = class_counts(update, part_codes, len(sizes))
        part_sizes = np.bincount(part_codes, minlength=len(sizes))
        scored = score_delta(
            before - taken, sizes - part_sizes, trusted.keys, update, part_codes, part_sizes,
            least=best if seams is None else best - MOST_TOLD, texts=texts, least_rows=least_rows,
        )  # fmt: skip
        if seams is not None:
            scored = _with_seams(scored, update, part_codes, seams, np.flatnonzero(mask))
        best = max(best, float(scored.strength.max(initial=0.0)))
    return best
