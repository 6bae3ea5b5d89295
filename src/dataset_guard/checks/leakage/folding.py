"""One form per character: lower case and compatibility form (NFKC, Unicode Annex 15), while hashing.

Normalising whole texts cost as much as all the rest of finding near-duplicates. Almost every character has a
form that is one character and does not depend on its neighbours, so a table read while hashing does the same;
only texts with other characters (marks that combine, ligatures, Hangul letters) are normalised beforehand, by
Python: pyarrow's ``utf8_normalize`` (25.0) gives NFKD where it is asked for NFKC.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.hashing.byte_words import word_at
from dataset_guard.hashing.jit import inlined, kernel

POINTS = 0x30000  # from here on no character has another form
_HIGH_BITS = np.uint64(0x8080808080808080)
HARD = np.uint32(0xFFFFFFFF)
_SPACE = 0x20
_JAMO = ((0x1100, 0x1200), (0xA960, 0xA980), (0xD7B0, 0xD800))

Fold = npt.NDArray[np.uint32]


class Cells(NamedTuple):
    """Texts as kernels take them: ``data[offsets[i]:offsets[i + 1]]``, and the form of each character."""

    offsets: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]
    fold: Fold


@inlined
def width_of(byte: Any) -> Any:
    """Bytes of the UTF-8 character that starts with ``byte``."""
    return 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4


@inlined
def point_at(data: Any, at: Any, stop: Any, width: Any) -> Any:
    """The code point of the character of more than one byte at ``at``."""
    point = np.int64(data[at]) & (0x7F >> width)
    for k in range(1, width):
        if at + k < stop:
            point = (point << 6) | (np.int64(data[at + k]) & 0x3F)
    return point


@inlined
def folded(point: Any, fold: Any) -> Any:
    """The form of a character; a hard one has been brought to its form before, and stays."""
    form = np.int64(fold[point]) if point < len(fold) else point
    return point if form == np.int64(HARD) else form


@cache
def table() -> Fold:
    """The form of each code point below ``POINTS``; ``HARD`` where it is more than one, or has neighbours."""
    from dataset_guard.checks.leakage.tokens import separates

    fold = np.arange(POINTS, dtype=np.uint32)
    for point in range(0x80, POINTS):
        character = chr(point)
        whole = unicodedata.normalize("NFKC", character)
        form = whole.lower()
        if unicodedata.category(character)[0] == "M":
            fold[point] = HARD
        elif form == character:
            continue
        elif all(separates(ord(c)) for c in whole):
            fold[point] = _SPACE
        elif len(whole) > 1:
            fold[point] = HARD
        elif len(form) == 1 and len(form.encode()) <= len(character.encode()):
            fold[point] = ord(form)
    for first, last in _JAMO:
        fold[first:last] = HARD
    return fold


@kernel
def _beyond_ascii(offsets: Any, data: Any, out: Any) -> None:
    """Say of each text whether it has a character of more than one byte; eight bytes at a time."""
    for i in range(len(out)):
        start, stop = offsets[i], offsets[i + 1]
        seen = np.uint64(0)
        if stop - start >= 8:
            for k in range((stop - start) >> 3):
                seen |= word_at(data, start + (k << 3))
            seen |= word_at(data, stop - 8)
        else:
            for at in range(start, stop):
                seen |= np.uint64(data[at])
        out[i] = seen & _HIGH_BITS != np.uint64(0)


@kernel
def _hard(offsets: Any, data: Any, fold: Any, which: Any, out: Any) -> None:
    """Say of the texts ``which`` whether a character has to be normalised with its neighbours."""
    for i in which:
        at, stop = offsets[i], offsets[i + 1]
        while at < stop:
            if data[at] < 0x80:
                at += 1
                while at + 8 <= stop and word_at(data, at) & _HIGH_BITS == np.uint64(0):
                    at += 8
                continue
            width = width_of(data[at])
            point = point_at(data, at, stop, width)
            if point < len(fold) and fold[point] == HARD:
                out[i] = True
                break
            at += width


def offsets_of(texts: Any) -> npt.NDArray[np.int64]:
    """Where each text of a large Arrow array begins in its buffer, and where the last one ends."""
    return np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]


def _parts(texts: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    return offsets_of(texts), np.frombuffer(texts.buffers()[2] or b"", np.uint8)


def cells_of(array: Any) -> Cells:
    """The texts of an Arrow array, hard ones brought to their form; nulls are empty."""
    texts = (array.fill_null("") if array.null_count else array).cast(pa.large_string())
    offsets, data = _parts(texts)
    beyond = np.empty(len(texts), np.bool_)
    _beyond_ascii(offsets, data, beyond)
    foreign = np.flatnonzero(beyond)
    if not len(foreign):
        return Cells(offsets, data, np.empty(0, np.uint32))
    fold = table()
    hard = np.zeros(len(texts), bool)
    _hard(offsets, data, fold, foreign, hard)
    if hard.any():
        mask = pa.array(hard)
        whole = [unicodedata.normalize("NFKC", t) for t in texts.filter(mask).to_pylist()]
        offsets, data = _parts(pc.replace_with_mask(texts, mask, pa.array(whole, pa.large_string())))
    return Cells(offsets, data, fold)
