"""Numba kernels that write cells into rows: measure all columns, then write them one after another.

Every kernel walks one column over a window of rows small enough for the cache; ``pos`` holds, per
row, the byte where the next cell goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.byte_words import copy_bytes, put_word
from dataset_guard.hashing.jit import kernel

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
            put_word(out, at + 1, values[i])
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
