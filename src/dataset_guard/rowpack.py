"""Numba kernels that write cells into rows: measure all columns, then write them one after another.

Every kernel walks one column over a window of rows small enough for the cache; ``pos`` holds, per
row, the byte where the next cell goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.jit import kernel

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
def _measure_raw(offsets: Any, lengths: Any) -> None:
    for i in range(len(offsets) - 1):
        lengths[i] += offsets[i + 1] - offsets[i]


@kernel
def _write_fixed(tags: Any, values: Any, out: Any, pos: Any) -> None:
    for i in range(len(tags)):
        at = pos[i]
        out[at] = tags[i]
        if _FIRST_WIDE <= tags[i] <= _LAST_WIDE:
            value = values[i]
            for b in range(8):
                out[at + 1 + b] = np.uint8(value >> np.uint64(8 * b))
            pos[i] = at + 9
        else:
            pos[i] = at + 1


@kernel
def _write_counted(tag: int, valid: Any, counts: Any, offsets: Any, data: Any, out: Any, pos: Any) -> None:
    for i in range(len(valid)):
        at = pos[i]
        if valid[i]:
            out[at] = tag
            at += 1
            rest = counts[i]
            while rest > 127:
                out[at] = np.uint8(rest & 127 | 128)
                rest >>= 7
                at += 1
            out[at] = np.uint8(rest)
            at += 1
            for j in range(offsets[i], offsets[i + 1]):
                out[at] = data[j]
                at += 1
        else:
            out[at] = 0
            at += 1
        pos[i] = at


@kernel
def _write_raw(offsets: Any, data: Any, out: Any, pos: Any) -> None:
    for i in range(len(offsets) - 1):
        at = pos[i]
        for j in range(offsets[i], offsets[i + 1]):
            out[at] = data[j]
            at += 1
        pos[i] = at


@kernel
def drop_span(source: Any, starts: Any, first: Any, last: Any, sizes: Any, out: Any, targets: Any) -> None:
    """Copy each row without its bytes from ``first`` to ``last``; ``sizes`` are the sizes that remain.

    ``source`` and ``out`` are little-endian uint64, positions are in bytes, rows begin at multiples of
    eight. ``source`` has one word more than its last row. Bytes after a row in ``out`` are zero.
    """
    for i in range(len(starts)):
        base, to = starts[i] >> 3, targets[i] >> 3
        cut, gap, size = first[i] - starts[i], last[i] - first[i], sizes[i]
        whole = cut >> 3  # words before the gap are copied as they are
        for w in range(whole):
            out[to + w] = source[base + w]
        for w in range(whole, (size + 7) >> 3):
            at = (w << 3) + gap
            shift = np.uint64((at & 7) << 3)
            word = source[base + (at >> 3)] >> shift
            if shift:
                word |= source[base + (at >> 3) + 1] << (np.uint64(64) - shift)
            if w == whole and cut & 7:
                kept = (np.uint64(1) << np.uint64((cut & 7) << 3)) - np.uint64(1)
                word = (source[base + w] & kept) | (word & ~kept)
            beyond = ((w + 1) << 3) - size
            if beyond > 0:
                word &= np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(beyond << 3)
            out[to + w] = word


def measure(columns: Sequence[Any], start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
    """Bytes of each row from ``start`` to ``stop`` when the cells of ``columns`` are written."""
    end = _rows(columns) if stop is None else stop
    lengths = np.zeros(end - start, np.int64)
    for c in columns:
        if hasattr(c, "tags"):
            _measure_fixed(c.tags[start:end], lengths)
        elif hasattr(c, "tag"):
            _measure_counted(c.valid[start:end], c.counts[start:end], c.offsets[start : end + 1], lengths)
        else:
            _measure_raw(c.offsets[start : end + 1], lengths)
    return lengths


def write(columns: Sequence[Any], out: Any, pos: Any, start: int = 0) -> None:
    """Write the cells of ``columns`` from row ``start`` on, moving ``pos`` (one per row) past them."""
    end = start + len(pos)
    for c in columns:
        if hasattr(c, "tags"):
            _write_fixed(c.tags[start:end], c.values[start:end], out, pos)
        elif hasattr(c, "tag"):
            cells = c.valid[start:end], c.counts[start:end], c.offsets[start : end + 1], c.data
            _write_counted(c.tag, *cells, out, pos)
        else:
            _write_raw(c.offsets[start : end + 1], c.data, out, pos)


def _rows(columns: Sequence[Any]) -> int:
    first = columns[0]
    return len(first.tags) if hasattr(first, "tags") else len(first.offsets) - 1
