"""Texts as sets of word sequences: which rows hold which word, pair and triple, as plain integer arrays.

No word leaves this module: words are numbers in order of first appearance, sequences are mixed 64-bit keys.
Text is lower-cased; punctuation marks and Han characters are words of their own, so that text without
spaces has words too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

ORDERS = 3
MAX_WORDS = 1_000
"""Words of a row that are looked at; the rest of a longer text is not."""

ORDER_BITS = np.uint64(3)
"""The lowest bits of a key say how many words the sequence has, less one."""

_ALONE = r"([^\p{L}\p{N}\p{M}_\s]|\p{Han})"


@dataclass(frozen=True, slots=True)
class Incidence:
    """Which of ``rows`` rows hold which of ``number`` things: pairs sorted by thing, then by row.

    ``row[start[i] : start[i + 1]]`` are the rows of thing ``i``; ``keys[i]`` identifies it across tables.
    """

    rows: int
    keys: Keys
    start: Ints
    row: npt.NDArray[np.int32]

    @property
    def number(self) -> int:
        """How many things there are."""
        return len(self.keys)

    @property
    def frequency(self) -> Ints:
        """In how many rows each thing is."""
        return np.diff(self.start)

    @property
    def single(self) -> npt.NDArray[np.bool_]:
        """Which of them are single words."""
        return np.asarray((self.keys & ORDER_BITS) == 0)

    def rows_of(self, thing: int) -> npt.NDArray[np.int32]:
        """The rows that hold it, ascending."""
        return self.row[self.start[thing] : self.start[thing + 1]]

    def by_row(self) -> tuple[Ints, npt.NDArray[np.int32]]:
        """``(start, thing)``: the things of row ``r`` are ``thing[start[r] : start[r + 1]]``."""
        thing = np.repeat(np.arange(self.number, dtype=np.int32), self.frequency)
        order = np.argsort(self.row, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(self.row, minlength=self.rows))])
        return start, thing[order]

    def chosen(self, keep: npt.NDArray[np.bool_]) -> Incidence:
        """Only the things where ``keep``."""
        sizes = self.frequency
        start = np.concatenate([[0], np.cumsum(sizes[keep])])
        return Incidence(self.rows, self.keys[keep], start, self.row[np.repeat(keep, sizes)])

    def only_rows(self, keep: npt.NDArray[np.bool_]) -> Incidence:
        """Only the rows where ``keep``, renumbered; things that are in none of them are left out."""
        place = np.cumsum(keep) - 1
        kept = keep[self.row]
        sizes = np.diff(np.concatenate([[0], np.cumsum(kept)])[self.start])
        held = sizes > 0
        start = np.concatenate([[0], np.cumsum(sizes[held])])
        return Incidence(int(keep.sum()), self.keys[held], start, place[self.row[kept]].astype(np.int32))


def incidence(keys: Keys, rows: npt.NDArray[np.int32], number_of_rows: int) -> Incidence:
    """From pairs (key, row) in any order, repetitions allowed."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    fresh = np.ones(len(keys), bool)
    fresh[1:] = (keys[1:] != keys[:-1]) | (rows[1:] != rows[:-1])
    keys, rows = keys[fresh], rows[fresh]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, int)
    return Incidence(number_of_rows, keys[first], np.append(first, len(keys)).astype(np.int64), rows)


def words_of(texts: pa.Array) -> tuple[Ints, Ints, Keys]:
    """``(word, row, key)`` of every word in order: its number, its row, and its 64-bit key."""
    lowered = pc.utf8_lower(texts.cast(pa.large_string()).fill_null(""))
    spaced = pc.utf8_trim_whitespace(pc.replace_substring_regex(lowered, _ALONE, r" \1 "))
    split = pc.list_slice(pc.utf8_split_whitespace(spaced), 0, MAX_WORDS)
    lengths = np.asarray(pc.list_value_length(split)).astype(np.int64)
    flat = pc.list_flatten(split).dictionary_encode()
    number = np.asarray(flat.indices).astype(np.int64)
    row = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
    keys = _text_keys(flat.dictionary)
    empty = np.flatnonzero(np.asarray(pc.binary_length(flat.dictionary)) == 0)
    if len(empty):
        real = number != empty[0]
        number, row = number[real], row[real]
    return number, row, keys[number] if len(keys) else np.empty(0, np.uint64)


def grams_of(texts: pa.Array, *, orders: int = ORDERS) -> Incidence:
    """All words, pairs and triples (``orders`` of them) of ``texts`` that are in at least two rows."""
    _, row, keys = words_of(texts)
    pairs_keys, pairs_rows = [keys], [row.astype(np.int32)]
    run = keys
    for order in range(2, orders + 1):
        if len(keys) < order:
            break
        run = mixed(run[:-1], keys[order - 1 :], order)
        inside = row[: len(run)] == row[order - 1 :]
        pairs_keys.append(run[inside])
        pairs_rows.append(row[: len(run)][inside].astype(np.int32))
    found = incidence(np.concatenate(pairs_keys), np.concatenate(pairs_rows), len(texts))
    return found.chosen(found.frequency >= 2)


def mixed(left: Keys, right: Keys, order: int) -> Keys:
    """Keys of ordered pairs; ``order`` (1 to 4) says of how many words, and ends up in the lowest bits."""
    with np.errstate(over="ignore"):
        z = left * np.uint64(0x9E3779B97F4A7C15) + right + np.uint64(order)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        return np.asarray((z & ~ORDER_BITS) | np.uint64(order - 1))


def _text_keys(words: pa.Array) -> Keys:
    """A 64-bit key per word, the same in every table (BLAKE3's first 8 bytes)."""
    from blake3 import blake3

    digests = b"".join(blake3(str(word).encode()).digest(length=8) for word in words.to_pylist())
    return np.frombuffer(digests, np.uint64) & ~ORDER_BITS
