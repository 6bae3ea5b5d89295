"""Which values occur more than once, and how many there are: 8 bytes a value, or 16 for texts and records.
Where only their number is asked for, equal values are kept once.

A number is its own 64-bit word. A text, or a record of several columns, is told by the 128-bit hash of
:mod:`dataset_guard.hashing.rowhash`; that two of ten million differ and share it has odds of 1 in 10^24.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.quality.compiled.arguments import Arguments, Bounds, NotCompiled
from dataset_guard.checks.quality.compiled.block import Block, Column, Family, Mask, array_of
from dataset_guard.checks.quality.compiled.columns import ColumnRule, Counted
from dataset_guard.checks.quality.compiled.records import LIST_RULES, ignored_rows
from dataset_guard.checks.quality.compiled.statistics import verdict
from dataset_guard.checks.quality.gx_engine import Outcome

_FEW = 65_536
_WAITING = 1 << 20  # new words before they are sorted in among the known

Words = npt.NDArray[Any]
"""Shape (rows,) for numbers, (rows, 2) for hashes."""


class Identities(Counted):
    """Turns the values of one column, or records over several, into words."""

    def __init__(self, names: list[str], rule: int) -> None:
        super().__init__()
        self._names, self._rule = names, rule
        self._hasher: Any = None

    def update(self, block: Block) -> None:
        """Take one block."""
        columns = [block.column(n) for n in self._names]
        left_out = ignored_rows(columns, self._rule)
        words = _word(columns[0]) if self._is_number(columns) else self._hashes(columns)
        rows = None
        if left_out is not None:
            kept = np.flatnonzero(~left_out)
            words, rows = words[kept], kept + block.first_row
        self.count(block.rows, 0 if left_out is None else int(np.count_nonzero(left_out)))
        self.keep(block.first_row, words, rows)

    def keep(self, first_row: int, words: Words, rows: npt.NDArray[np.int64] | None) -> None:
        """Take the words of a block, and their row numbers where some rows are left out."""
        raise NotImplementedError

    @staticmethod
    def _is_number(columns: list[Column]) -> bool:
        return len(columns) == 1 and columns[0].family != "text"

    def _hashes(self, columns: list[Column]) -> Words:
        from dataset_guard.hashing.rowhash import RowHasher

        arrays = [_comparable(c) for c in columns]
        batch = pa.RecordBatch.from_arrays(arrays, names=self._names)
        if self._hasher is None:
            self._hasher = RowHasher(batch.schema)
        return np.asarray(self._hasher.hash(batch).public)


def _word(column: Column) -> Words:
    """64 bits a value; equal numbers have equal words (0 and -0 are equal)."""
    values = column.numbers
    return (values + 0.0).view(np.int64) if column.family == "float" else values.astype(np.int64, copy=False)


def _comparable(column: Column) -> Any:
    """The column so that values which compare equal hash equal: no -0, and NaN is null."""
    if column.family != "float":
        return column.array
    return array_of(column.numbers + 0.0, column.missing)


def repeated(words: Words) -> tuple[Mask, int]:
    """Which words occur more than once, shape (rows,); and how many distinct ones there are."""
    if words.ndim > 1:
        return _repeated_pairs(words)
    if (words[1:] > words[:-1]).all():
        return np.zeros(len(words), bool), len(words)  # numbered rows, as keys often are
    ordered = np.sort(words)
    again = ordered[1:] == ordered[:-1]
    distinct = len(words) - int(np.count_nonzero(again))
    if distinct == len(words):
        return np.zeros(len(words), bool), distinct
    return _among(words, np.unique(ordered[1:][again])), distinct


def _repeated_pairs(words: Words) -> tuple[Mask, int]:
    # First by half a word: nearly always that settles it, at a fraction of the cost.
    maybe, _ = repeated(np.ascontiguousarray(words[:, 0]))
    at = np.flatnonzero(maybe)
    if not len(at):
        return maybe, len(words)
    _, group, sizes = np.unique(words[at], axis=0, return_inverse=True, return_counts=True)
    mask = np.zeros(len(words), bool)
    mask[at] = sizes[group.ravel()] > 1
    return mask, len(words) - len(at) + len(sizes)


def _among(words: Words, chosen: Words) -> Mask:
    """Which words are in ``chosen``, ascending. Of hashes there that begin alike, only the first is found."""
    if words.ndim > 1:
        place = np.searchsorted(chosen[:, 0], words[:, 0])
        place[place == len(chosen)] = 0
        return np.asarray((chosen[place] == words).all(axis=1))
    place = np.searchsorted(chosen, words)
    place[place == len(chosen)] = 0
    return np.asarray(chosen[place] == words)


class Unique(Identities):
    """``expect_column_values_to_be_unique``, ``expect_compound_columns_to_be_unique``."""

    def __init__(self, names: list[str], rule: int) -> None:
        super().__init__(names, rule)
        self._parts: list[tuple[int, Words, npt.NDArray[np.int64] | None]] = []

    def keep(self, first_row: int, words: Words, rows: npt.NDArray[np.int64] | None) -> None:
        """All of them: a repeat may come later."""
        self._parts.append((first_row, words, rows))

    def merge(self, other: Unique) -> None:
        """Absorb the state of other rows."""
        self.absorb(other)
        self._parts += other._parts

    @property
    def nbytes(self) -> int:
        """Words and row numbers."""
        return sum(w.nbytes + (0 if r is None else r.nbytes) for _, w, r in self._parts)

    def all_words(self) -> Words:
        """The words of all rows, in row order."""
        self._parts.sort(key=lambda part: part[0])
        return np.concatenate([w for _, w, _ in self._parts]) if self._parts else np.empty(0, np.int64)

    def row_numbers(self, mask: Mask) -> npt.NDArray[np.int64]:
        """The row numbers of the words that ``mask`` chooses."""
        found, start = [], 0
        for first, words, rows in self._parts:
            chosen = np.flatnonzero(mask[start : start + len(words)])
            found.append(chosen + first if rows is None else rows[chosen])
            start += len(words)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def finish(self) -> Outcome:
        """Every row of a repeated value is unexpected."""
        mask, distinct = repeated(self.all_words())
        rows = self.row_numbers(mask) if distinct < self.present else np.empty(0, np.int64)
        counts = {"elements": self.rows, "missing": self.missing, "unexpected": len(rows)}
        return verdict(not len(rows), rows=rows, **counts)


class DistinctCount(Identities):
    """How many distinct values there are, or what share of the values that is. Keeps each value once."""

    def __init__(self, names: list[str], bounds: Bounds, *, share: bool) -> None:
        super().__init__(names, 1)
        self._bounds, self._share = bounds, share
        self._known: Words | None = None  # ascending, each once
        self._new: list[Words] = []
        self._waiting = 0

    def keep(self, first_row: int, words: Words, rows: npt.NDArray[np.int64] | None) -> None:
        """Those not seen before, where few have been: a label's values are all known after a block or two."""
        if self._known is not None and 0 < len(self._known) <= _FEW:
            words = words[~_among(words, self._known)]
        self._wait(words)
        if self._known is None or self._waiting > max(_WAITING, len(self._known)):
            self._settle()

    def _wait(self, words: Words) -> None:
        if len(words):
            self._new.append(words)
            self._waiting += len(words)

    def _settle(self) -> None:
        known = [] if self._known is None else [self._known]
        if self._new or not known:
            self._known = _distinct_words([*known, *self._new])
        self._new, self._waiting = [], 0

    def merge(self, other: DistinctCount) -> None:
        """Absorb the state of other rows."""
        self.absorb(other)
        for words in ([] if other._known is None else [other._known]) + other._new:
            self._wait(words)
        self._settle()

    @property
    def nbytes(self) -> int:
        """The words kept."""
        return (0 if self._known is None else self._known.nbytes) + sum(w.nbytes for w in self._new)

    def finish(self) -> Outcome:
        """Of no values, the share is 0."""
        self._settle()
        distinct = 0 if self._known is None else len(self._known)
        seen: float = distinct
        if self._share:
            seen = distinct / self.present if self.present else 0
        return verdict(self._bounds.hold(seen), observed=None if self._share else distinct)


def _distinct_words(parts: list[Words]) -> Words:
    """The words of all ``parts`` in ascending order, each once."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return np.empty(0, np.int64)
    if parts[0].ndim > 1:
        from dataset_guard.hashing.rowset import sorted_run

        run = sorted_run(parts)
        return np.asarray(run[np.append(True, (run[1:] != run[:-1]).any(axis=1))])
    words = np.concatenate(parts)
    if (words[1:] > words[:-1]).all():
        return words  # numbered rows, as keys often are
    return np.unique(words)


def unique(arguments: Arguments) -> Callable[[], ColumnRule]:
    """Of single values; missing ones are left out."""
    name, kind = arguments.column()
    _known(kind)
    return lambda: Unique([name], 1)


def compound_unique(arguments: Arguments) -> Callable[[], ColumnRule]:
    """Of records; missing values equal each other."""
    named = arguments.columns()
    for _, kind in named:
        _known(kind)
    rule = LIST_RULES.index(arguments.choice("ignore_row_if", *LIST_RULES))
    return lambda: Unique([n for n, _ in named], rule)


def _distinct(share: bool) -> Callable[[Arguments], Callable[[], ColumnRule]]:
    def built(arguments: Arguments) -> Callable[[], ColumnRule]:
        name, kind = arguments.column()
        _known(kind)
        bounds = arguments.bounds()
        return lambda: DistinctCount([name], bounds, share=share)

    return built


def _known(kind: Family) -> None:
    if kind == "other":
        raise NotCompiled


RULES = {
    "expect_column_values_to_be_unique": unique,
    "expect_compound_columns_to_be_unique": compound_unique,
    "expect_column_unique_value_count_to_be_between": _distinct(False),
    "expect_column_proportion_of_unique_values_to_be_between": _distinct(True),
}
