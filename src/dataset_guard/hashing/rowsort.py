"""Row hashes in ascending order, without comparing them much: hashes spread evenly, so most of a hash's place
is in its first bits. Compiled.

Rows go to parts by their first bits, so few that a part fits the nearest cache; within a part once more by
the next eight bits; what is left is nearly in order. Hashes that are not spread evenly (a table of few
distinct rows) are left to numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.jit import kernel

Hashes = npt.NDArray[np.uint64]

_PART_ROWS = 1024
_UNEVEN = 8
_FEW_ROWS = 24
_U64 = np.uint64


@kernel
def _bounds(hashes: Any, low: Any, high: Any) -> Any:
    for i in range(len(hashes)):
        low = min(low, hashes[i, 0])
        high = max(high, hashes[i, 0])
    return low, high


@kernel
def _count(hashes: Any, low: Any, shift: Any, counts: Any) -> None:
    for i in range(len(hashes)):
        counts[(hashes[i, 0] - low) >> shift] += 1


@kernel
def _place(hashes: Any, low: Any, shift: Any, places: Any, out: Any) -> None:
    for i in range(len(hashes)):
        part = (hashes[i, 0] - low) >> shift
        at = places[part]
        out[at, 0] = hashes[i, 0]
        out[at, 1] = hashes[i, 1]
        places[part] = at + 1


@kernel
def _place_rows(hashes: Any, low: Any, shift: Any, places: Any, out: Any) -> None:
    """As :func:`_place`, with row numbers for second halves."""
    for i in range(len(hashes)):
        part = (hashes[i, 0] - low) >> shift
        at = places[part]
        out[at, 0] = hashes[i, 0]
        out[at, 1] = i
        places[part] = at + 1


@kernel
def _insertion_sort(hashes: Any) -> None:
    for i in range(1, len(hashes)):
        hi, lo = hashes[i, 0], hashes[i, 1]
        j = i
        while j > 0 and (hashes[j - 1, 0] > hi or (hashes[j - 1, 0] == hi and hashes[j - 1, 1] > lo)):
            hashes[j, 0] = hashes[j - 1, 0]
            hashes[j, 1] = hashes[j - 1, 1]
            j -= 1
        hashes[j, 0] = hi
        hashes[j, 1] = lo


@kernel
def _sort_parts(out: Any, ends: Any, low: Any, shift: Any, spare: Any) -> None:
    """Sort each part in place. ``spare`` has room for the largest."""
    places = np.empty(257, np.int64)
    finer = shift - min(shift, _U64(8))
    mask = (_U64(1) << (shift - finer)) - _U64(1)
    start = 0
    for p in range(len(ends)):
        part = out[start : ends[p]]
        start = ends[p]
        if len(part) > _FEW_ROWS:
            places[:] = 0
            for i in range(len(part)):
                places[(((part[i, 0] - low) >> finer) & mask) + _U64(1)] += 1
            for k in range(1, 257):
                places[k] += places[k - 1]
            for i in range(len(part)):
                k = ((part[i, 0] - low) >> finer) & mask
                spare[places[k], 0] = part[i, 0]
                spare[places[k], 1] = part[i, 1]
                places[k] += 1
            for i in range(len(part)):
                part[i, 0] = spare[i, 0]
                part[i, 1] = spare[i, 1]
        _insertion_sort(part)


@kernel
def _between(hashes: Any, low: Any, high: Any, rows: Any) -> int:
    n = 0
    for i in range(len(hashes)):
        rows[n] = i
        n += low <= hashes[i, 0] <= high
    return n


def between(hashes: Hashes, low: np.uint64, high: np.uint64) -> npt.NDArray[np.int64]:
    """The rows whose first halves lie from ``low`` to ``high``."""
    rows = np.empty(len(hashes) + 1, np.int64)
    return rows[: _between(hashes, low, high, rows)].copy()


def spread_sorted(parts: Sequence[Hashes]) -> Hashes | None:
    """The hashes of all ``parts`` in ascending order, shape (n, 2); None when they are not spread evenly."""
    return _sorted(parts, _place)


def spread_order(hashes: Hashes) -> tuple[npt.NDArray[np.int64], bool] | None:
    """The order of rows by first halves, equal ones by row number, and whether all first halves differ.

    None when they are not spread evenly.
    """
    out = _sorted([hashes], _place_rows)
    return None if out is None else (out[:, 1].astype(np.int64), not np.any(out[1:, 0] == out[:-1, 0]))


def _sorted(parts: Sequence[Hashes], place: Callable[..., None]) -> Hashes | None:
    total = sum(map(len, parts))
    if not total:
        return np.empty((0, 2), np.uint64)
    low, high = _U64(2**64 - 1), _U64(0)
    for part in parts:
        low, high = map(_U64, _bounds(part, low, high))
    span = int(high) - int(low)
    shift = _U64(max(0, span.bit_length() - max(1, (total // _PART_ROWS).bit_length())))
    counts = np.zeros((span >> int(shift)) + 1, np.int64)
    for part in parts:
        _count(part, low, shift, counts)
    largest = int(counts.max())
    if largest > _UNEVEN * _PART_ROWS:
        return None
    ends = np.cumsum(counts)
    out = np.empty((total, 2), np.uint64)
    places = ends - counts
    for part in parts:
        place(part, low, shift, places, out)
    _sort_parts(out, ends, low, shift, np.empty((largest, 2), np.uint64))
    return out
