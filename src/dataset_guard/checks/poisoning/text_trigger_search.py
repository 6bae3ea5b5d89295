"""The search for a trigger in texts: words whose rows have one label for no reason but these words.

*Whole set* (:func:`search_whole`): the sequence's rows are nearly all in one class; the rest of their texts,
judged by the rest of the corpus, does not explain that (``unexplained``) and even speaks for other classes
(``contradicted``); and apart from the sequence the texts are strangers (:mod:`text_texture`). A word that
tells a class in earnest fails the second, a topic, template or retweet the third.

*Delta* (:func:`search_delta`): the sequence is far more common among the new rows of one class than the
trusted rows give reason for, in any of their classes, and the texts are strangers. Labels may all be right
(clean-label attacks). The limit is what pretended honest updates, drawn from the trusted rows, reach.

After BadNets on text (Chen et al. 2021, "BadNL") and AddSent (Dai et al. 2019); the statistics are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.ngrams import APART, ORDER_BITS, WRITTEN, Incidence
from dataset_guard.checks.poisoning.patch_search import surprise
from dataset_guard.checks.poisoning.text_rest import RestModel, class_counts, contradicted, unexplained
from dataset_guard.checks.poisoning.text_seams import FREE, Seams
from dataset_guard.checks.poisoning.text_texture import PAIR_IN, PAIR_IN_TEXTS, Texture, textures

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LEAST_ROWS = 4
PURITY = 0.75
PURITY_WHOLE = 0.8
"""Least share of the target class without a trusted version: who changes labels changes all of them, and a
topic that leans to one class seldom comes so near to it."""
PURITY_FORM = 0.7
"""The same of a word as it is written, of which there are few: more of its rows may be honest."""
MOST_COMMON = 0.1
"""A sequence in more than this share of all rows is no trigger."""
STRANGERS = 2.5
"""Largest lift of shared topical words between texts that are strangers."""
CORE = 0.4
"""Largest share of a text that a trigger and what comes with it may be."""
CORE_SIZE = 40.0
"""Largest number of words and sequences that a trigger has: a sentence of 14 words has 39. What is longer
and in most of the texts is a template or a quotation."""
IN_MOST = 0.6
SEAM = 3.0
"""Weight of what a word's places say (:mod:`text_seams`) beside what its labels say."""
MOST_TOLD = -SEAM * float(np.log(FREE))
"""The most that it adds."""
PLANTED, LEEWAY = 1.0, 4.0
"""Where its places say so much, a candidate's texts may speak for its class so far."""
COMPANION = 0.6
"""Share of the limit that further words need where one was found: who plants words plants several, and the
rows are divided among them."""
SEVERAL = 2
"""Where none was found, so many of these words confirm one another."""
PURE_COMPANION = 0.95
"""Least share of their class ..."""
FULL_COMPANION = 0.6
"""... and least number of rows, as a share of the median of the words that were found."""
PLANTED_TIMES = 2.0
"""Of rows beyond so many times as many as nature would give, most were planted."""
ALONE = 2
"""Most sequences of a word that is put anywhere: itself, and perhaps one of its neighbours by chance."""
_EXAMINED = 2_000
_CHANCE = 1e-3
_NO_SURPRISE = 3.0
"""Chance makes a log-likelihood ratio so high once in a hundred."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Word sequences that share their rows. ``rows`` carry it and have the label ``target``; ``strength`` is
    the log-likelihood ratio of the strongest, ``limit`` what it had to exceed. ``everywhere``: so many rows
    of the class have the word, those in its usual company too, which ``rows`` leaves out."""

    rows: Ints
    target: int
    sequences: int
    strength: float
    limit: float
    purity: float
    lift: float
    keys: tuple[int, ...]
    everywhere: int = 0

    @property
    def number(self) -> int:
        """In how many rows of its class it is."""
        return max(len(self.rows), self.everywhere)

    @property
    def is_word(self) -> bool:
        """Whether the strongest sequence is a single word, in any or in one form."""
        return int(self.keys[0]) & int(ORDER_BITS) in (0, int(WRITTEN), int(APART))


def search_whole(
    things: Incidence, codes: Ints, classes: int, *, limit: float, own: float = np.inf
) -> list[Trigger]:
    """Triggers among all rows, strongest first. ``limit`` is the least strength, ``own`` as for textures."""
    scored = score_whole(things, codes, classes, own=own)
    return merged(things, codes, scored, limit)


@dataclass(frozen=True, slots=True)
class Scored:
    """Candidates: numbers of things, their target classes, strength, purity and lift.

    ``honest``: rows of the target class that would hold them if they were as common there as in trusted rows.
    """

    things: Ints
    targets: Ints
    strength: Floats
    purity: Floats
    lift: Floats
    honest: Floats | None = None


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
    for some in np.array_split(picked, max(1, len(picked) // _EXAMINED)):  # later ones are hardly ever needed
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
        strange = _strangers(texture)
        strangers.append(some[strange])
        lifts.append(texture.lift[strange])
        if sum(map(len, strangers)) >= _EXAMINED:
            break
    picked, lift = np.concatenate(strangers)[:_EXAMINED], np.concatenate(lifts)[:_EXAMINED]
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


def _strangers(texture: Texture) -> npt.NDArray[np.bool_]:
    """Which groups have nothing in common but a short sequence."""
    short = (texture.core <= CORE) & (texture.size <= CORE_SIZE)
    return np.asarray(short & (texture.lift <= STRANGERS))


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
    picked = distinct(delta, picked[np.argsort(-strength[picked], kind="stable")])[:_EXAMINED]
    if not texts:
        lift = np.ones(len(picked))
        return Scored(picked, target[picked], strength[picked], purity[picked], lift, honest[picked])
    # Labels may be right here, and texts of one class have words in common.
    rates = np.maximum(
        np.maximum(counts - 1, 0) / np.maximum(drawn - 1, 1),
        np.maximum(frequency - 1, 0)[:, None] / max(1, delta.rows - 1),
    )
    texture = textures(delta, delta.by_row(), picked, rates, target[picked], pair_in=PAIR_IN_TEXTS)
    strange = _strangers(texture)
    picked = picked[strange]
    lift = texture.lift[strange]
    return Scored(picked, target[picked], strength[picked], purity[picked], lift, honest[picked])


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


def _without_company(
    things: Incidence, sequences: list[int], honest: Floats, core: npt.NDArray[np.bool_],
    apart: npt.NDArray[np.bool_], carries: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:  # fmt: skip
    """``carries`` without rows where the word has its company, if these are hardly more than by nature."""
    alone = np.zeros(things.rows, bool)
    for at in np.flatnonzero(apart):
        alone[things.rows_of(sequences[at])] = True
    natural = honest[core].max() - honest[apart].max()
    rest = carries & ~alone
    return carries & alone if rest.sum() <= PLANTED_TIMES * natural else carries


def _also_honest(things: Incidence, codes: Ints, sequences: list[int], target: int) -> npt.NDArray[np.bool_]:
    """Which of ``sequences`` are words of which a form is among them too, and whose other rows are honest.

    Honest rows are of the class ``target`` as often as others are, within chance.
    """
    share = float((codes == target).mean())
    rows = [things.rows_of(s) for s in sequences]
    written = things.is_form & ~things.is_apart
    forms = [r for s, r in zip(sequences, rows, strict=True) if written[s]]
    out = np.zeros(len(sequences), bool)
    for at, sequence in enumerate(sequences if forms else []):
        own = [r for r in forms if len(r) < len(rows[at]) and np.isin(r, rows[at]).all()]
        if own and not things.is_form[sequence]:
            rest = np.setdiff1d(rows[at], np.concatenate(own))
            hits, size = float((codes[rest] == target).sum()), float(len(rest))
            out[at] = surprise(np.array([hits]), np.array([size]), np.array([share]))[0] < _NO_SURPRISE
    return out


def companions(found: list[Trigger], weaker: list[Trigger]) -> list[Trigger]:
    """Of ``weaker`` triggers the words that belong to an attack of which words were ``found``.

    They are for the same class and stand alone, as words put at random places do; they are in nearly as many
    rows as the words found, hardly any of which has another class, and most of which are news. Where no word
    was found, ``SEVERAL`` of them confirm one another.
    """
    words = [t for t in found if t.is_word and t.sequences <= ALONE]
    known = np.concatenate([[], *(t.rows for t in found)])
    others = [
        t
        for t in weaker
        if t.is_word
        and t.purity >= PURE_COMPANION
        and t.sequences <= ALONE
        and 2 * len(np.setdiff1d(t.rows, known)) > len(t.rows)
    ]
    named = []
    for target in sorted({t.target for t in others}):
        mine = [t for t in others if t.target == target]
        sure = [t for t in words if t.target == target]
        least = FULL_COMPANION * float(np.median([t.number for t in sure or mine]))
        full = [t for t in mine if t.number >= least]
        # Honest updates have words apart too: only those found otherwise vouch for one another.
        alone = [t for t in full if int(t.keys[0]) & int(ORDER_BITS) != int(APART)]
        named += full if sure else alone if len(alone) >= SEVERAL else []
    return named


def distinct(things: Incidence, ordered: Ints) -> Ints:
    """``ordered`` without things whose rows are those of an earlier one."""
    if not len(ordered):
        return ordered
    mixed = _row_set_keys(things)[ordered]
    _, first = np.unique(mixed, return_index=True)
    return np.asarray(ordered[np.sort(first)])


def _row_set_keys(things: Incidence) -> npt.NDArray[np.uint64]:
    """A 64-bit key of each thing's set of rows: a sum of mixed row numbers."""
    with np.errstate(over="ignore"):
        z = (things.row.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        return np.asarray(np.add.reduceat(z, things.start[:-1]) if things.number else z)


def merged(things: Incidence, codes: Ints, scored: Scored, limit: float) -> list[Trigger]:
    """One trigger per set of sequences whose rows mostly coincide.

    Its rows hold half of its core by strength: of the sequences that are in most of its rows. A text that by
    nature has a piece of a planted sentence does not.
    """
    groups: list[tuple[int, set[int], list[int]]] = []
    order = [int(i) for i in np.argsort(-scored.strength, kind="stable") if scored.strength[i] > limit]
    for i in order:
        rows = things.rows_of(int(scored.things[i])).astype(np.int64)
        mine = set(rows[codes[rows] == scored.targets[i]].tolist())
        home = next(
            (
                g
                for g in groups
                if scored.targets[g[0]] == scored.targets[i] and 2 * len(mine & g[1]) >= len(mine)
            ),
            None,
        )
        if home is None:
            groups.append((i, mine, [i]))
        else:
            home[1].update(mine)
            home[2].append(i)
    found = []
    for first, _, members in groups:
        sequences = [int(scored.things[i]) for i in members]
        target = int(scored.targets[first])
        sizes = np.array([(codes[things.rows_of(sequence)] == target).sum() for sequence in sequences])
        held = np.zeros(things.rows)
        apart = things.is_apart[sequences]
        core = (sizes >= IN_MOST * sizes.max()) & ~_also_honest(things, codes, sequences, target)
        if (core & ~apart).any():  # the word itself stands out: its rows are named, wherever it stands
            core &= ~apart
        for at in np.flatnonzero(core):
            held[things.rows_of(sequences[at])] += scored.strength[members[at]]
        carries = (2 * held >= scored.strength[members][core].sum()) & (codes == target)
        if apart.any() and not apart.all() and scored.honest is not None:
            carries = _without_company(things, sequences, scored.honest[members], core, apart, carries)
        found.append(
            Trigger(
                rows=np.flatnonzero(carries),
                target=target,
                sequences=max(1, int((~apart).sum())),  # a word apart is no other word
                strength=float(scored.strength[first]),
                limit=limit,
                purity=float(scored.purity[[first, *np.array(members)[apart]]].max()),
                lift=float(scored.lift[first]),
                keys=tuple(int(things.keys[s]) for s in sequences),
                everywhere=int((codes[things.rows_of_word(sequences[0])] == target).sum()) if apart[0] else 0,
            )
        )
    return found
