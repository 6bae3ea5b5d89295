"""Regular expressions over columns, meaning what Python's ``re.search`` means, at RE2's speed.

Python and RE2 agree on which printable ASCII texts match, for patterns of the constructs listed here. Of
other texts (where ``\\w``, ``\\s`` or ``$`` differ) and for other patterns each distinct value goes through
``re`` itself. pandas, and so Great Expectations, makes the same choice value by value.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.quality.compiled.arguments import NotCompiled
from dataset_guard.checks.quality.compiled.block import Column, Mask, flags, integers

_parser: Any = re._parser  # type: ignore[attr-defined]  # the only way to see what a pattern is made of
_SHARED = frozenset(
    getattr(_parser, name)
    for name in (
        "LITERAL", "NOT_LITERAL", "ANY", "IN", "BRANCH", "MAX_REPEAT", "MIN_REPEAT", "SUBPATTERN", "AT",
    )
)  # fmt: skip
_OTHERWISE = ("[:", "{,", "\\Z", "\\Q")
"""Python and RE2 read these differently (POSIX classes, an open lower count, the end of the text, quoting),
and which of the two pandas asks depends on its version."""
_FLAGS = re.IGNORECASE | re.DOTALL | re.MULTILINE | re.UNICODE


class Pattern:
    """One pattern. Raises NotCompiled for one that ``re`` refuses, or that means two things."""

    def __init__(self, text: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self._compiled = re.compile(text)
                tree = _parser.parse(text)
        except (re.error, Warning, OverflowError, RecursionError) as error:
            raise NotCompiled from error
        if any(mark in text for mark in _OTHERWISE):
            raise NotCompiled
        self._text = text
        shared = text.isascii() and not self._compiled.flags & ~_FLAGS
        self._fast = shared and all(op in _SHARED for op in _operations(tree)) and self._known_to_re2()
        self._one_class = _one_class(tree, self._compiled) if self._fast else None

    def _known_to_re2(self) -> bool:
        try:
            pc.match_substring_regex(pa.nulls(1, pa.string()), self._text)
        except pa.ArrowException:
            return False
        return True

    def found(self, column: Column) -> Mask:
        """Which values it is found in, shape (rows,); anything where the value is null."""
        if self._fast and column.printable:
            if self._one_class is not None and self._one_class.holds_all(column.bytes):
                return self._one_class.found(column.lengths)
            matched = pc.match_substring_regex(column.array, self._text)
            return flags(matched.fill_null(False) if matched.null_count else matched)
        coded = column.array.dictionary_encode()
        known = [self._compiled.search(v) is not None for v in coded.dictionary.to_pylist()]
        codes = integers(coded.indices.fill_null(len(known)))
        return np.asarray(np.array([*known, False], bool)[codes])


class OneClass:
    """A pattern like ``^[0-9a-f]{16}$``: characters of one class, so and so many of them.

    Where all characters of a block are of the class, only the lengths are left to look at: a fifth of the
    cost of running a pattern over clean data, which most data is.
    """

    def __init__(self, members: Mask, low: int, high: int) -> None:
        self._members, self._low, self._high = members, low, high

    def holds_all(self, data: npt.NDArray[np.uint8]) -> bool:
        """Whether every byte is of the class."""
        return bool(self._members[data].all())

    def found(self, lengths: npt.NDArray[np.int64]) -> Mask:
        """Which texts of the class have a length that it allows."""
        return np.asarray((lengths >= self._low) & (lengths <= self._high))


def _one_class(tree: Any, compiled: re.Pattern[str]) -> OneClass | None:
    parts = list(tree)
    begins, ends = ("AT_BEGINNING", "AT_BEGINNING_STRING"), ("AT_END", "AT_END_STRING")
    if len(parts) != 3 or [str(op) for op, _ in parts][::2] != ["AT", "AT"]:
        return None
    (_, before), (op, repeated), (_, after) = parts
    if str(before) not in begins or str(after) not in ends or str(op) not in ("MAX_REPEAT", "MIN_REPEAT"):
        return None
    low, high, inner = repeated
    if len(inner) != 1 or str(inner[0][0]) not in ("IN", "LITERAL", "NOT_LITERAL", "ANY"):
        return None
    if int(high) < 1:
        return None
    # The pattern itself says what its class holds.
    once = max(int(low), 1)
    members = np.array([c < 0x80 and compiled.search(chr(c) * once) is not None for c in range(256)])
    return OneClass(members, int(low), int(high))


def _operations(tree: Any) -> Iterator[Any]:
    for op, argument in tree:
        yield op
        yield from _inside(argument)


def _inside(argument: Any) -> Iterator[Any]:
    """The patterns within an operation's argument; what stands in a set of characters is always shared."""
    if isinstance(argument, _parser.SubPattern):
        yield from _operations(argument)
    elif isinstance(argument, list | tuple):
        for part in argument:
            yield from _inside(part)
