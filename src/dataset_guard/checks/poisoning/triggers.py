"""Triggers: candidates that share their rows are one, and words that belong to an attack are named with it.

A search (:mod:`text_trigger_search`, :mod:`text_trigger_update`, and those of tables and images) scores
candidates; what they have in common from there on is here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.ngrams import APART, ORDER_BITS, WRITTEN, Incidence
from dataset_guard.checks.poisoning.patch_search import surprise

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LEAST_ROWS = 4
IN_MOST = 0.6
"""Of a trigger's sequences those in so large a share of its rows are its core."""
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
