"""How a group of texts that share a word sequence is woven: what else do its texts share?

Texts with a planted trigger are otherwise strangers. Texts that share a sequence because of their topic,
a template or a quotation share much more: a large *core* in most of them, and topical words in some. Both are
counted for tens of thousands of groups, compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.ngrams import Incidence
from dataset_guard.hashing.jit import kernel

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CORE = 0.5
"""A thing belongs to the core when this share of the group's texts hold it ..."""
CORE_LIFT = 5.0
"""... and that is so many times its share of all texts."""
TOPICAL = 0.02
"""Things in more than this share of all texts say nothing about a topic."""

PAIR_IN = 8
"""In a group of so many texts the two that share most are not counted: one text twice is no topic."""
PAIR_IN_TEXTS = 5
"""The same where groups are those of words: two of five texts that share one rare word are no topic."""

STRANGERS = 2.5
"""Largest lift of shared topical words between texts that are strangers."""
MOST_CORE = 0.4
"""Largest share of a text that a trigger and what comes with it may be."""
MOST_CORE_THINGS = 40.0
"""Largest number of words and sequences that a trigger has: a sentence of 14 words has 39. What is longer
and in most of the texts is a template or a quotation."""


class Texture(NamedTuple):
    """Per group: ``core``, the mean share of a text that is core; ``size``, the mean number of things that
    are; ``lift``, how many times more often than by chance two of its texts share another topical word.
    """

    core: Floats
    size: Floats
    lift: Floats


def textures(
    things: Incidence,
    by_row: tuple[Ints, Any],
    groups: Ints,
    rates: Floats,
    kind: Ints,
    own: float = np.inf,
    members: npt.NDArray[np.bool_] | None = None,
    pair_in: int = PAIR_IN,
) -> Texture:
    """The texture of the rows that hold each of ``groups``, which are numbers of things.

    ``members``: which of the pairs of ``things`` count, all if not given. ``pair_in``: in a group of so many
    the two that share most are not counted.

    ``rates[t, kind[g]]`` is the share of texts that hold thing ``t`` by chance, as group ``g`` sees it.
    Things of which a share of ``own`` or more lives in the group are not counted as shared: parts of an image
    patch with some of its surroundings are such.
    """
    start, thing = by_row
    if members is None:
        members = np.ones(len(things.row), bool)
    core, size, lift = np.zeros(len(groups)), np.zeros(len(groups)), np.zeros(len(groups))
    counts = np.zeros(things.number, np.int32)
    _weave(
        things.start,
        things.row,
        members,
        start,
        thing,
        things.frequency,
        things.rows,
        things.single,
        groups,
        rates,
        kind,
        own,
        pair_in,
        counts,
        core,
        size,
        lift,
    )
    return Texture(core, size, lift)


@kernel
def _weave(
    thing_start: Any, row: Any, members: Any, row_start: Any, thing: Any, frequency: Any, rows: int,
    single: Any, groups: Any, rates: Any, kind: Any, own: float, pair_in: int, counts: Any, core: Any,
    cores: Any, lift: Any,
) -> None:  # fmt: skip
    for g in range(len(groups)):
        first, last = thing_start[groups[g]], thing_start[groups[g] + 1]
        size = 0
        words = 0
        for i in range(first, last):
            if not members[i]:
                continue
            size += 1
            for j in range(row_start[row[i]], row_start[row[i] + 1]):
                counts[thing[j]] += 1
                words += 1
        shared, by_chance, in_core = 0.0, 0.0, 0
        most, second = (0.0, 0.0), (0.0, 0.0)
        for i in range(first, last):
            if not members[i]:
                continue
            shared_before, chance_before = shared, by_chance
            for j in range(row_start[row[i]], row_start[row[i] + 1]):
                t = thing[j]
                n = counts[t]
                if n >= 3 and n >= CORE * size and n * rows >= CORE_LIFT * size * frequency[t]:
                    in_core += 1
                elif n >= own * frequency[t]:
                    continue
                elif single[t] and frequency[t] <= max(TOPICAL * rows, 4):
                    shared += n - 1
                    by_chance += (size - 1) * rates[t, kind[g]]
            own_part = (shared - shared_before, by_chance - chance_before)
            if own_part[0] > most[0]:
                most, second = own_part, most
            elif own_part[0] > second[0]:
                second = own_part
        if size >= pair_in:
            shared -= most[0] + second[0]
            by_chance -= most[1] + second[1]
        for i in range(first, last):
            for j in range(row_start[row[i]], row_start[row[i] + 1]):
                counts[thing[j]] = 0
        core[g] = in_core / max(words, 1)
        cores[g] = in_core / max(size, 1)
        lift[g] = (shared + 1.0) / (by_chance + 1.0)


def are_strangers(texture: Texture) -> npt.NDArray[np.bool_]:
    """Which groups have nothing in common but a short sequence."""
    short = (texture.core <= MOST_CORE) & (texture.size <= MOST_CORE_THINGS)
    return np.asarray(short & (texture.lift <= STRANGERS))
