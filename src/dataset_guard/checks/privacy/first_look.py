"""One compiled pass over text that says where a number or address of a person might be.

It proposes generously and sees no row but the one it is in; :mod:`.personal_data` judges each place. All
kinds are looked for at once, so ten kinds cost what one costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.byte_words import word_at
from dataset_guard.hashing.jit import inlined, kernel

NUMBER, MAIL, ACCOUNT, PHONE, SOCIAL, PASSPORT, WALLET, STREET, HOUSE = range(9)

_DIGIT, _UPPER, _LOWER, _OTHER = 1, 2, 4, 8

_CLASS = np.zeros(256, np.uint8)
for _byte in range(128):
    _char = chr(_byte)
    _CLASS[_byte] = (
        _DIGIT if _char.isdigit() else _UPPER if _char.isupper() else _LOWER if _char.islower() else 0
    )
_CLASS[ord("_")] = _OTHER
_INTERESTING = np.zeros(256, np.bool_)
for _byte in b"0123456789@+\xb7":
    _INTERESTING[_byte] = True


_U64 = np.uint64
_EACH = 0x0101010101010101
_HIGH = _U64(0x80 * _EACH)
_FROM = _U64((0x80 - 0x2B) * _EACH)  # with it a byte from + on reaches the high bit
_BEYOND = _U64((0x7F - 0x40) * _EACH)  # and one behind @


@inlined
def _dull(word: Any) -> Any:
    """Whether none of eight bytes can be interesting: all are ASCII, and below + or behind @.

    Sums do not run into the next byte unless one is beyond ASCII, and then the answer is no anyway.
    """
    return (((word + _FROM) & ~(word + _BEYOND)) | word) & _HIGH == _U64(0)


@inlined
def _word(c: Any) -> Any:
    return (c & 15) != 0


@inlined
def _last_run(data: Any, i: Any, high: Any) -> Any:
    """Behind digits in a word: the digits that end it, or its end. Those between tell nothing.

    The last ones may go on behind a blank or hyphen, so where they begin they are looked at.
    """
    stop = i
    while stop < high and _CLASS[data[stop]] & (_DIGIT | _LOWER | _OTHER):
        stop += 1
    while stop > i and _CLASS[data[stop - 1]] == _DIGIT:
        stop -= 1
    return stop


@kernel
def _look(offsets: Any, data: Any, first: int, places: Any) -> Any:
    """Propose places in items from ``first`` on: ``(item, byte, kind)``. Returns (next item, places)."""
    n = 0
    room = len(places)
    for item in range(first, len(offsets) - 1):
        low, high = offsets[item], offsets[item + 1]
        if n > 0 and n + (high - low) // 2 + 2 > room:
            return item, n
        i = low
        while i < high:
            byte = data[i]
            if not _INTERESTING[byte]:
                i += 1
                while i + 8 <= high and _dull(word_at(data, i)):
                    i += 8
                continue
            if byte == 0x40:  # @
                if i > low and i + 3 < high and _word(_CLASS[data[i + 1]]):
                    places[n, 0], places[n, 1], places[n, 2] = item, i, MAIL
                    n += 1
                i += 1
                continue
            if byte == 0x2B:  # +
                if i + 8 < high and (_CLASS[data[i + 1]] == _DIGIT) and data[i + 1] != 0x30:
                    places[n, 0], places[n, 1], places[n, 2] = item, i, PHONE
                    n += 1
                i += 1
                continue
            if byte == 0xB7:  # the last byte of 号
                said = i - 3 >= low and data[i - 1] == 0x8F and data[i - 2] == 0xE5
                if said and _CLASS[data[i - 3]] == _DIGIT:
                    places[n, 0], places[n, 1], places[n, 2] = item, i - 3, HOUSE
                    n += 1
                i += 1
                continue
            # A run of digits, with single blanks or hyphens between them.
            start, digits, separators = i, 0, 0
            while i < high:
                if _CLASS[data[i]] == _DIGIT:
                    digits += 1
                    i += 1
                elif (data[i] == 0x20 or data[i] == 0x2D) and i + 1 < high and _CLASS[data[i + 1]] == _DIGIT:
                    separators += 1
                    i += 1
                else:
                    break
            before = _CLASS[data[start - 1]] if start > low else 0
            after = _CLASS[data[i]] if i < high else 0
            if before == _UPPER:
                # Letters and then digits: an account (two letters, country) or a passport (one or two).
                letters = 1
                while start - letters > low and _CLASS[data[start - letters - 1]] == _UPPER and letters < 3:
                    letters += 1
                head = start - letters
                free = head == low or not _word(_CLASS[data[head - 1]])
                if free and letters == 2 and digits >= 2 and high - head >= 15:
                    places[n, 0], places[n, 1], places[n, 2] = item, head, ACCOUNT
                    n += 1
                if free and letters <= 2 and 6 <= digits <= 9 and separators == 0 and not _word(after):
                    places[n, 0], places[n, 1], places[n, 2] = item, head, PASSPORT
                    n += 1
                continue
            if _word(before):
                i = _last_run(data, i, high)
                continue
            symbol = i < high and (data[i] == 0x58 or data[i] == 0x78)  # X may be a check symbol
            if symbol and i + 1 < high:
                symbol = not _word(_CLASS[data[i + 1]])
            if (
                not symbol
                and (data[start] == 0x31 or data[start] == 0x33)
                and _word(after)
                and separators == 0
            ):
                stop = i
                while stop < high and (_CLASS[data[stop]] & 7) != 0:
                    stop += 1
                if 26 <= stop - start <= 35:
                    places[n, 0], places[n, 1], places[n, 2] = item, start, WALLET
                    n += 1
                i = stop
                continue
            if 11 <= digits <= 19 and (not _word(after) or symbol):
                places[n, 0], places[n, 1], places[n, 2] = item, start, NUMBER
                n += 1
            elif digits == 9 and separators == 2 and not _word(after):
                places[n, 0], places[n, 1], places[n, 2] = item, start, SOCIAL
                n += 1
            elif (
                (digits <= 5 and separators == 0 and i + 4 < high and data[i] == 0x20)
                and _CLASS[data[i + 1]] == _UPPER
                and _CLASS[data[i + 2]] == _LOWER
            ):
                places[n, 0], places[n, 1], places[n, 2] = item, start, STREET
                n += 1
    return len(offsets) - 1, n


def look(offsets: npt.NDArray[np.int64], data: memoryview) -> list[npt.NDArray[np.int64]]:
    """Places ``(item, byte, kind)`` in items of a buffer, in order; arrays of shape (places, 3)."""
    text = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    longest = int(np.diff(offsets).max(initial=0))
    places = np.empty((max(65_536, longest // 2 + 4), 3), np.int64)
    found, at = [], 0
    while at < len(offsets) - 1:
        at, n = _look(offsets, text, at, places)
        found.append(places[:n].copy())
    return found
