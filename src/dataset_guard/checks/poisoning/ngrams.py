"""Texts as sets of word sequences: which rows hold which word, pair and triple, as plain integer arrays.

No word leaves this module: words are numbers in order of first appearance, sequences are mixed 64-bit keys.
Text is lower-cased; punctuation marks and Han characters are words of their own, so that text without
spaces has words too. A word between spaces is also known *as it is written*: ``cf`` is one thing, and ``cf``
in lower case with nothing glued to it, unlike the *CF* of an encoded attachment, is another.
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

ORDER_BITS = np.uint64(7)
"""The lowest bits of a key say how many words the sequence has, less one; or that it is a word as written, or
one apart from its company."""
WRITTEN = np.uint64(3)
APART = np.uint64(4)
MOST_FORM = 0.9
"""A form that more of a word's rows have is the word."""

_ALONE = r"([^\p{L}\p{N}\p{M}_\s]|\p{Han})"


@dataclass(frozen=True, slots=True)
class Incidence:
    """Which of ``rows`` rows hold which of ``number`` things: pairs by thing, then by row.

    ``row[start[i] : start[i + 1]]`` are the rows of thing ``i``; ``keys[i]``, ascending, identifies it across
    tables. ``forms`` tells things that are another one in one form only: they may be searched for, but what a
    row holds is said without them.
    """

    rows: int
    keys: Keys
    start: Ints
    row: npt.NDArray[np.int32]
    forms: npt.NDArray[np.bool_] | None = None

    @property
    def number(self) -> int:
        """How many things there are."""
        return len(self.keys)

    @property
    def frequency(self) -> Ints:
        """In how many rows each thing is."""
        return np.diff(self.start)

    @property
    def is_form(self) -> npt.NDArray[np.bool_]:
        """Which of them are forms."""
        return np.zeros(self.number, bool) if self.forms is None else self.forms

    @property
    def is_apart(self) -> npt.NDArray[np.bool_]:
        """Which of them are words apart from their company."""
        return np.asarray(self.is_form & ((self.keys & ORDER_BITS) == APART))

    @property
    def single(self) -> npt.NDArray[np.bool_]:
        """Which of them are single words."""
        return np.asarray((self.keys & ORDER_BITS) == 0)

    def rows_of(self, thing: int) -> npt.NDArray[np.int32]:
        """The rows that hold it, ascending."""
        return self.row[self.start[thing] : self.start[thing + 1]]

    def rows_of_word(self, apart: int) -> npt.NDArray[np.int32]:
        """The rows that hold the word of which thing ``apart`` is the form apart from its company."""
        return self.rows_of(int(np.searchsorted(self.keys, self.keys[apart] & ~ORDER_BITS)))

    def by_row(self) -> tuple[Ints, npt.NDArray[np.int32]]:
        """``(start, thing)``: the things of row ``r``, no forms, are ``thing[start[r] : start[r + 1]]``."""
        thing = np.repeat(np.arange(self.number, dtype=np.int32), self.frequency)
        row = self.row
        if self.forms is not None:
            counted = ~self.forms[thing]
            thing, row = thing[counted], row[counted]
        order = np.argsort(row, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=self.rows))])
        return start, thing[order]

    def chosen(self, keep: npt.NDArray[np.bool_]) -> Incidence:
        """Only the things where ``keep``."""
        sizes = self.frequency
        start = np.concatenate([[0], np.cumsum(sizes[keep])])
        forms = None if self.forms is None else self.forms[keep]
        return Incidence(self.rows, self.keys[keep], start, self.row[np.repeat(keep, sizes)], forms)

    def ordered(self) -> Incidence:
        """The same with ascending keys."""
        order = np.argsort(self.keys, kind="stable")
        sizes = self.frequency[order]
        start = np.concatenate([[0], np.cumsum(sizes)])
        at = np.repeat(self.start[order] - start[:-1], sizes) + np.arange(start[-1])
        forms = None if self.forms is None else self.forms[order]
        return Incidence(self.rows, self.keys[order], start, self.row[at], forms)

    def only_rows(self, keep: npt.NDArray[np.bool_]) -> Incidence:
        """Only the rows where ``keep``, renumbered; things that are in none of them are left out."""
        place = np.cumsum(keep) - 1
        kept = keep[self.row]
        sizes = np.diff(np.concatenate([[0], np.cumsum(kept)])[self.start])
        held = sizes > 0
        start = np.concatenate([[0], np.cumsum(sizes[held])])
        forms = None if self.forms is None else self.forms[held]
        return Incidence(
            int(keep.sum()), self.keys[held], start, place[self.row[kept]].astype(np.int32), forms
        )


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
    number, row, words = _split(pc.replace_substring_regex(lowered, _ALONE, r" \1 "))
    return number, row, _text_keys(words)[number]


def written_of(texts: pa.Array) -> tuple[Ints, Ints, Keys, Keys]:
    """``(word, row, key, key of the word)`` of what stands between spaces, in order: as it is written.

    The number is that of the lower-cased form; the key of what is more than one word (*word,*) is 0.
    """
    number, row, forms = _split(texts.cast(pa.large_string()).fill_null(""))
    lowered = pc.utf8_lower(forms)
    folded = np.asarray(lowered.dictionary_encode().indices).astype(np.int64)
    one = ~np.asarray(pc.match_substring_regex(forms, _ALONE))
    keys = np.where(one, _text_keys(forms) | WRITTEN, np.uint64(0))
    return folded[number], row, keys[number], _text_keys(lowered)[number]


def _split(texts: pa.Array) -> tuple[Ints, Ints, pa.Array]:
    """``(number, row, words)``: ``words[number[i]]`` is what stands at place ``i``, between spaces."""
    split = pc.list_slice(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)), 0, MAX_WORDS)
    lengths = np.asarray(pc.list_value_length(split)).astype(np.int64)
    flat = pc.list_flatten(split).dictionary_encode()
    number = np.asarray(flat.indices).astype(np.int64)
    row = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
    empty = np.flatnonzero(np.asarray(pc.binary_length(flat.dictionary)) == 0)
    if len(empty):
        real = number != empty[0]
        number, row = number[real], row[real]
    return number, row, flat.dictionary


def grams_of(
    texts: pa.Array, *, orders: int = ORDERS, written: bool = False, most: float = MOST_FORM
) -> Incidence:
    """All words, pairs and triples (``orders`` of them) of ``texts`` that are in at least two rows.

    ``written``: and, as forms, words as they are written that at ``most`` such a share of the word's rows
    have. Where two tables are compared a form may be all there is of a word in one of them: 1.0.
    """
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
    found = found.chosen(found.frequency >= 2)
    return _with_forms(found, texts, most) if written else found


def _with_forms(words: Incidence, texts: pa.Array, most: float) -> Incidence:
    _, row, keys, word_keys = written_of(texts)
    one = np.flatnonzero(keys)
    forms = incidence(keys[one], row[one].astype(np.int32), len(texts))
    return joined(words, forms, word_keys[one][np.unique(keys[one], return_index=True)[1]], most)


def joined(words: Incidence, forms: Incidence, word_keys: Keys, most: float = 1.0) -> Incidence:
    """``words`` and those of ``forms`` that are in two rows and in at most ``most`` of their word's.

    ``word_keys`` says of which word each form is one.
    """
    at = np.minimum(np.searchsorted(words.keys, word_keys), max(words.number - 1, 0))
    known = words.keys[at] == word_keys if words.number else np.zeros(forms.number, bool)
    limit = most * words.frequency[at] if words.number else np.zeros(forms.number)
    forms = forms.chosen(known & (forms.frequency >= 2) & (forms.frequency <= limit))
    both = Incidence(
        words.rows,
        np.concatenate([words.keys, forms.keys]),
        np.concatenate([words.start, words.start[-1] + forms.start[1:]]),
        np.concatenate([words.row, forms.row]),
        np.concatenate([words.is_form, np.ones(forms.number, bool)]),
    )
    return both.ordered()


def mixed(left: Keys, right: Keys, order: int) -> Keys:
    """Keys of ordered pairs; ``order`` (1 to 3) says of how many words, and ends up in the lowest bits."""
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
