"""Tell, of each value of a text column, whether it is a number, a word for "no value", or other text.

A number is what Python's ``float`` takes in plain notation, between blanks: ``-1``, ``.5``, ``2e-3``. With a
thousands separator, a unit or a percent sign it is none: a program that reads numbers stops at them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.types as pt

from dataset_guard.hashing.byte_words import word_at
from dataset_guard.hashing.jit import inlined, kernel

ABSENT, NUMBER, NO_VALUE, OTHER = 0, 1, 2, 3

NO_VALUE_WORDS = (
    *("-", "--", ".", "?", "n/a", "#n/a", "na", "n.a.", "nan", "nil", "none", "null", "missing"),
    *("无", "空", "缺失"),
)
"""Compared without blanks around them and without regard to case of a to z. Blanks alone are one, too."""
_LONGEST = 8
"""Bytes of the longest of these words, so that each is one integer."""
_LONGEST_CELL = 64
"""Bytes of a value that may be a number with blanks around it; a longer one is not looked at."""

_ZERO, _NINE, _PLUS, _MINUS, _DOT = 48, 57, 43, 45, 46
_BLANK, _TAB, _RETURN = 32, 9, 13
_EXPONENT = 101

_U64 = np.uint64
_EACH = 0x0101010101010101
_HIGH = _U64(0x80 * _EACH)
_BEHIND_NINE = _U64((0x7F - _NINE) * _EACH)  # with it a byte behind 9 reaches the high bit
_LOWER = _U64(0x20 * _EACH)
_EXPONENTS = _U64(_EXPONENT * _EACH)
_UNEQUAL = _U64(0x7F * _EACH)  # with it all bytes but 0 reach the high bit


def _packed(word: str) -> int:
    raw = word.encode()
    assert len(raw) <= _LONGEST
    return int.from_bytes(raw, "little")


_WORDS = np.array(sorted(_packed(word) for word in NO_VALUE_WORDS), np.uint64)
_STARTS = np.zeros(256, np.bool_)
"""Bytes with which one of them starts, in lower case: most text need not be compared."""
_STARTS[[word.encode()[0] for word in NO_VALUE_WORDS]] = True


def kinds_of(values: Any) -> npt.NDArray[np.uint8]:
    """The kind of each value of a ``string`` or ``large_string`` array, shape (values,)."""
    _, offsets, data = values.buffers()
    kinds = np.zeros(len(values), np.uint8)
    if len(values):
        width = np.int64 if pt.is_large_string(values.type) else np.int32
        ends: Any = np.frombuffer(offsets, width)[values.offset : values.offset + len(values) + 1]
        _tell(ends, np.frombuffer(data or b"", np.uint8), _WORDS, _STARTS, kinds)
        if values.null_count:
            kinds[np.asarray(values.is_null())] = ABSENT
    return kinds


@inlined
def _lower(byte: int) -> int:
    return byte + 32 if 65 <= byte <= 90 else byte


@inlined
def _is_blank(byte: int) -> bool:
    return byte == _BLANK or _TAB <= byte <= _RETURN


@inlined
def _digits(data: npt.NDArray[np.uint8], at: int, end: int) -> int:
    """Where the run of digits from ``at`` on ends."""
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


@inlined
def _is_number(data: npt.NDArray[np.uint8], first: int, end: int) -> bool:
    at = first
    if data[at] == _PLUS or data[at] == _MINUS:
        at += 1
    stop = _digits(data, at, end)
    digits = stop - at
    if stop < end and data[stop] == _DOT:
        at = stop + 1
        stop = _digits(data, at, end)
        digits += stop - at
    if digits == 0:
        return False
    if stop < end and (data[stop] | 32) == _EXPONENT:
        at = stop + 1
        if at < end and (data[at] == _PLUS or data[at] == _MINUS):
            at += 1
        stop = _digits(data, at, end)
        if stop == at:
            return False
    return stop == end


@inlined
def _in_no_number(word: Any) -> Any:
    """Whether one of eight bytes, all ASCII, comes behind 9 and is no e: no number holds it."""
    other = ((word | _LOWER) ^ _EXPONENTS) + _UNEQUAL
    return word & _HIGH == _U64(0) and (word + _BEHIND_NINE) & other & _HIGH != _U64(0)


@kernel
def _tell(
    ends: npt.NDArray[np.integer[Any]],
    data: npt.NDArray[np.uint8],
    words: npt.NDArray[np.uint64],
    starts: npt.NDArray[np.bool_],
    kinds: npt.NDArray[np.uint8],
) -> None:
    for i in range(len(kinds)):
        first, end = ends[i], ends[i + 1]
        if end - first > _LONGEST_CELL:
            kinds[i] = OTHER
            continue
        if (
            end - first > _LONGEST
            and _in_no_number(word_at(data, first))
            and not (_is_blank(data[first]) or _is_blank(data[end - 1]))
        ):
            kinds[i] = OTHER  # most text: it is longer than any word for "no value", too
            continue
        while first < end and _is_blank(data[first]):
            first += 1
        while end > first and _is_blank(data[end - 1]):
            end -= 1
        kind = OTHER
        if first == end:
            kind = NO_VALUE
        elif _is_number(data, first, end):
            kind = NUMBER
        elif end - first <= _LONGEST and starts[_lower(data[first])]:
            packed = np.uint64(0)
            for at in range(first, end):
                packed |= np.uint64(_lower(data[at])) << np.uint64(8 * (at - first))
            for word in words:
                if word == packed:
                    kind = NO_VALUE
        kinds[i] = kind
