"""Columns as cells, and the numba kernels that write them into rows: measure all, then write one by one.

Every kernel walks one column over a window of rows small enough for the cache; ``pos`` holds, per
row, the byte where the next cell goes. Most columns hold no nulls, and what is said of each row comes from
beyond the cache: so these have forms of their own, :class:`Full` and :class:`Texts`, that say less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.byte_words import copy_bytes, put_word
from dataset_guard.hashing.jit import inlined, kernel

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_FIRST_WIDE, _LAST_WIDE = 3, 19  # tags from INT to the nanosecond DURATION carry eight bytes


@kernel
def _measure_fixed(tags: Any, lengths: Any) -> None:
    for i in range(len(tags)):
        lengths[i] += 9 if _FIRST_WIDE <= tags[i] <= _LAST_WIDE else 1


@kernel
def _measure_counted(valid: Any, counts: Any, offsets: Any, lengths: Any) -> None:
    for i in range(len(valid)):
        lengths[i] += 1
        if valid[i]:
            lengths[i] += 1 + offsets[i + 1] - offsets[i]
            rest = counts[i] >> 7
            while rest > 0:
                lengths[i] += 1
                rest >>= 7


@kernel
def _measure_texts(offsets: Any, lengths: Any) -> None:
    for i in range(len(lengths)):
        size = np.int64(offsets[i + 1]) - np.int64(offsets[i])
        lengths[i] += 2 + size
        rest = size >> 7
        while rest > 0:
            lengths[i] += 1
            rest >>= 7


@kernel
def _measure_raw(offsets: Any, lengths: Any) -> None:
    for i in range(len(offsets) - 1):
        lengths[i] += offsets[i + 1] - offsets[i]


@kernel
def _write_fixed(tags: Any, values: Any, out: Any, pos: Any) -> None:
    for i in range(len(tags)):
        at = pos[i]
        out[at] = tags[i]
        if _FIRST_WIDE <= tags[i] <= _LAST_WIDE:
            put_word(out, at + 1, values[i])
            pos[i] = at + 9
        else:
            pos[i] = at + 1


@kernel
def _write_full(tag: int, values: Any, out: Any, pos: Any) -> None:
    for i in range(len(values)):
        at = pos[i]
        out[at] = tag
        put_word(out, at + 1, values[i])
        pos[i] = at + 9


@inlined
def _put_count(count: Any, out: Any, at: Any) -> Any:
    """Write LEB128; returns where the next byte goes."""
    while count > 127:
        out[at] = np.uint8(count & 127 | 128)
        count >>= 7
        at += 1
    out[at] = np.uint8(count)
    return at + 1


@kernel
def _write_texts(tag: int, offsets: Any, data: Any, out: Any, pos: Any) -> None:
    for i in range(len(pos)):
        first = np.int64(offsets[i])
        size = np.int64(offsets[i + 1]) - first
        out[pos[i]] = tag
        at = _put_count(size, out, pos[i] + 1)
        copy_bytes(data, first, size, out, at)
        pos[i] = at + size


@kernel
def _write_counted(tag: int, valid: Any, counts: Any, offsets: Any, data: Any, out: Any, pos: Any) -> None:
    for i in range(len(valid)):
        at = pos[i]
        if valid[i]:
            out[at] = tag
            at = _put_count(counts[i], out, at + 1)
            size = offsets[i + 1] - offsets[i]
            copy_bytes(data, offsets[i], size, out, at)
            at += size
        else:
            out[at] = 0
            at += 1
        pos[i] = at


@kernel
def _write_raw(offsets: Any, data: Any, out: Any, pos: Any) -> None:
    for i in range(len(offsets) - 1):
        size = offsets[i + 1] - offsets[i]
        copy_bytes(data, offsets[i], size, out, pos[i])
        pos[i] += size


@kernel
def drop_span(source: Any, starts: Any, first: Any, last: Any, stops: Any, out: Any, targets: Any) -> None:
    """Copy each row without its bytes from ``first`` to ``last``; all are positions in bytes, one per row."""
    for i in range(len(starts)):
        kept = first[i] - starts[i]
        copy_bytes(source, starts[i], kept, out, targets[i])
        copy_bytes(source, last[i], stops[i] - last[i], out, targets[i] + kept)


@kernel
def clear_rest(out: Any, stops: Any, ends: Any) -> None:
    """Zero the bytes between each row's end and the end of its room."""
    for i in range(len(stops)):
        at = stops[i]
        while at + 8 <= ends[i]:
            put_word(out, at, np.uint64(0))
            at += 8
        while at < ends[i]:
            out[at] = 0
            at += 1


@dataclass(frozen=True, slots=True)
class Fixed:
    """Cells of a tag and, for tags from INT to the last DURATION, eight payload bytes."""

    tags: U8
    values: U64

    def __len__(self) -> int:
        return len(self.tags)

    def _measure(self, rows: slice, lengths: I64) -> None:
        _measure_fixed(self.tags[rows], lengths)

    def _write(self, rows: slice, out: U8, pos: I64) -> None:
        _write_fixed(self.tags[rows], self.values[rows], out, pos)


@dataclass(frozen=True, slots=True)
class Full:
    """Cells of one such tag and eight payload bytes."""

    tag: int
    values: U64

    def __len__(self) -> int:
        return len(self.values)

    def _measure(self, rows: slice, lengths: I64) -> None:
        del rows
        lengths += 9

    def _write(self, rows: slice, out: U8, pos: I64) -> None:
        _write_full(self.tag, self.values[rows], out, pos)


@dataclass(frozen=True, slots=True)
class Counted:
    """Cells of ``tag``, a LEB128 count and ``data[offsets[i]:offsets[i + 1]]``; NULL where not valid."""

    tag: int
    valid: U8
    counts: I64
    offsets: I64
    data: U8

    def __len__(self) -> int:
        return len(self.valid)

    def _measure(self, rows: slice, lengths: I64) -> None:
        _measure_counted(self.valid[rows], self.counts[rows], self.offsets[_and_end(rows)], lengths)

    def _write(self, rows: slice, out: U8, pos: I64) -> None:
        cells = self.valid[rows], self.counts[rows], self.offsets[_and_end(rows)], self.data
        _write_counted(self.tag, *cells, out, pos)


@dataclass(frozen=True, slots=True)
class Texts:
    """Cells of ``tag``, the LEB128 number of the bytes ``data[offsets[i]:offsets[i + 1]]``, and these."""

    tag: int
    offsets: npt.NDArray[np.int32]
    data: U8

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _measure(self, rows: slice, lengths: I64) -> None:
        _measure_texts(self.offsets[_and_end(rows)], lengths)

    def _write(self, rows: slice, out: U8, pos: I64) -> None:
        _write_texts(self.tag, self.offsets[_and_end(rows)], self.data, out, pos)


@dataclass(frozen=True, slots=True)
class Raw:
    """Cells that are ``data[offsets[i]:offsets[i + 1]]`` as they stand."""

    offsets: I64
    data: U8

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _measure(self, rows: slice, lengths: I64) -> None:
        _measure_raw(self.offsets[_and_end(rows)], lengths)

    def _write(self, rows: slice, out: U8, pos: I64) -> None:
        _write_raw(self.offsets[_and_end(rows)], self.data, out, pos)


Cells = Fixed | Full | Counted | Texts | Raw


def _and_end(rows: slice) -> slice:
    """The offsets of ``rows``: one more."""
    return slice(rows.start, rows.stop + 1)


def measure(columns: Sequence[Cells]) -> I64:
    """Bytes of each row when the cells of ``columns`` (one at least) are written."""
    rows = slice(0, len(columns[0]))
    lengths = np.zeros(rows.stop, np.int64)
    for cells in columns:
        cells._measure(rows, lengths)
    return lengths


def write(columns: Sequence[Cells], out: U8, pos: I64, start: int = 0) -> None:
    """Write the cells of ``columns`` from row ``start`` on, moving ``pos`` (one per row) past them."""
    rows = slice(start, start + len(pos))
    for cells in columns:
        cells._write(rows, out, pos)
