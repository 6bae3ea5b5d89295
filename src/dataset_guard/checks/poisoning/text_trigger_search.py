"""The search for a trigger in texts: words whose rows have one label for no reason but these words.

The sequence's rows are nearly all in one class; the rest of their texts, judged by the rest of the corpus,
does not explain that (``unexplained``) and even speaks for other classes (``contradicted``); and apart from
the sequence the texts are strangers (:mod:`text_texture`). A word that tells a class in earnest fails the
second, a topic, template or retweet the third. With a trusted version see :mod:`text_trigger_update`.

After BadNets on text (Chen et al. 2021, "BadNL") and AddSent (Dai et al. 2019); the statistics are ours.
"""

from __future__ import annotations

import numpy as np

from dataset_guard.checks.poisoning.ngrams import Incidence
from dataset_guard.checks.poisoning.patch_search import surprise
from dataset_guard.checks.poisoning.text_rest import RestModel, class_counts, contradicted, unexplained
from dataset_guard.checks.poisoning.text_seams import Seams
from dataset_guard.checks.poisoning.text_texture import PAIR_IN, PAIR_IN_TEXTS, are_strangers, textures
from dataset_guard.checks.poisoning.triggers import LEAST_ROWS, Ints, Scored, Trigger, distinct, merged

PURITY_WHOLE = 0.8
"""Least share of the target class without a trusted version: who changes labels changes all of them, and a
topic that leans to one class seldom comes so near to it."""
PURITY_FORM = 0.7
"""The same of a word as it is written, of which there are few: more of its rows may be honest."""
MOST_COMMON = 0.1
"""A sequence in more than this share of all rows is no trigger."""
SEAM = 3.0
"""Weight of what a word's places say (:mod:`text_seams`) beside what its labels say."""
PLANTED, LEEWAY = 1.0, 4.0
"""Where its places say so much, a candidate's texts may speak for its class so far."""
EXAMINED = 2_000
"""No more candidates, the likeliest first, are looked at closely."""


def search_whole(
    things: Incidence, codes: Ints, classes: int, *, limit: float, own: float = np.inf
) -> list[Trigger]:
    """Triggers among all rows, strongest first. ``limit`` is the least strength, ``own`` as for textures."""
    scored = score_whole(things, codes, classes, own=own)
    return merged(things, codes, scored, limit)


def score_whole(
    things: Incidence, codes: Ints, classes: int, *, own: float = np.inf, seams: Seams | None = None
) -> Scored:
    """All candidates of the whole-set search with their strengths; ``seams`` are those of the texts."""
    counts = class_counts(things, codes, classes)
    sizes = np.bincount(codes, minlength=classes)
    frequency = things.frequency
    share = counts / np.maximum(frequency, 1)[:, None]
    priors = sizes / sizes.sum()
    target = (share / np.maximum(priors, 1e-9)).argmax(axis=1)
    purity = share[np.arange(things.number), target]
    pure = purity >= np.where(things.is_form, PURITY_FORM, PURITY_WHOLE)
    usable = (frequency >= LEAST_ROWS) & (frequency <= MOST_COMMON * things.rows) & pure
    rare = priors[target] < 1.0
    picked = np.flatnonzero(usable & rare)
    if not len(picked):
        return Scored(picked, target[picked], np.zeros(0), purity[picked], np.zeros(0))
    # The likeliest first: how far the labels are from the class's share.
    told = surprise(
        counts[picked, target[picked]], frequency[picked], np.minimum(priors[target[picked]], 1 - 1e-9)
    )
    picked = distinct(things, picked[np.argsort(-told, kind="stable")])
    model = RestModel(things, codes, classes)
    # Labels changed by an attacker say nothing about a text, so chance is that of all texts.
    rates = np.maximum(frequency - 1, 0)[:, None] / max(1, things.rows - 1)
    # Honest texts that have the word by nature may well be of one topic: those labelled for it are looked at.
    members = codes[things.row] == np.repeat(target, frequency)
    strangers, lifts = [], []
    for some in np.array_split(picked, max(1, len(picked) // EXAMINED)):  # later ones are hardly ever needed
        texture = textures(
            things,
            (model.start, model.thing),
            some,
            rates,
            np.zeros_like(some),
            own,
            members,
            PAIR_IN if seams is None else PAIR_IN_TEXTS,
        )
        strange = are_strangers(texture)
        strangers.append(some[strange])
        lifts.append(texture.lift[strange])
        if sum(map(len, strangers)) >= EXAMINED:
            break
    picked, lift = np.concatenate(strangers)[:EXAMINED], np.concatenate(lifts)[:EXAMINED]
    strength = np.zeros(len(picked))
    for i, thing in enumerate(picked):
        rows = things.rows_of(int(thing)).astype(np.int64)
        chances = model.without(rows)[:, target[thing]]
        labels = codes[rows] == target[thing]
        against = contradicted(labels, chances, float(model.priors[target[thing]]))
        if against <= -LEEWAY:
            continue
        placed = 0.0 if seams is None else seams.evidence(int(things.keys[thing]), rows[labels])
        if against > 0 or placed > PLANTED:
            strength[i] = unexplained(labels, chances) + against + SEAM * placed
    return Scored(picked, target[picked], strength, purity[picked], lift)
