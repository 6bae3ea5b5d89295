"""Equal hashes among many, without sorting them all: by parts that fit the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.hash_store import windows
from dataset_guard.hashing.jit import kernel

_U64 = np.uint64
_PART_ROWS = 16_384
_ROUND_ROWS = 8_388_608

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


@kernel
def _count(hashes: Any, shift: Any, first_part: Any, counts: Any) -> None:
    """Count the hashes of each part, one place further on; the first bits of a hash are its part."""
    for i in range(len(hashes)):
        p = (hashes[i, 0] >> shift) - first_part
        if p < _U64(len(counts) - 1):
            counts[p + _U64(1)] += 1


@kernel
def _scatter(hashes: Any, row: Any, shift: Any, first_part: Any, ends: Any, halves: Any, rows: Any) -> None:
    """Put first halves and row numbers (from ``row`` on) in their parts, in row order within one."""
    for i in range(len(hashes)):
        p = (hashes[i, 0] >> shift) - first_part
        if p < _U64(len(ends) - 1):
            halves[ends[p]] = hashes[i, 0]
            rows[ends[p]] = row + i
            ends[p] += 1


@kernel
def _first_in_parts(hashes: Any, halves: Any, rows: Any, ends: Any, slots: Any, first: Any) -> int:
    """Write the first row with each row's hash; returns how many rows repeat an earlier one.

    Only where first halves are equal are the hashes themselves looked at, which lie far apart in memory.
    """
    repeats = 0
    start = 0
    mask = _U64(len(slots) - 1)
    for p in range(len(ends)):
        stop = ends[p]
        slots[:] = -1
        for k in range(start, stop):
            row = rows[k]
            slot = halves[k] & mask
            while slots[slot] >= 0:
                other = slots[slot]
                if halves[other] == halves[k] and hashes[rows[other], 1] == hashes[row, 1]:
                    break
                slot = (slot + _U64(1)) & mask
            if slots[slot] >= 0:
                first[row] = rows[slots[slot]]
                repeats += 1
            else:
                slots[slot] = k
                first[row] = row
        start = stop
    return repeats


def first_of(hashes: Hashes) -> tuple[npt.NDArray[np.int32], int]:
    """For each row the first row with the same hash (itself, mostly), and how many rows are not the first.

    Memory: 4 bytes a row, and 12 more for some 8 million rows at a time: hashes that begin alike. Raises
    OverflowError above 2^31 rows.
    """
    n = len(hashes)
    if n >= 2**31:
        raise OverflowError("more rows than a 32-bit number counts")
    bits = max(1, (max(1, n // _PART_ROWS) - 1).bit_length())
    rounds = min(1 << bits, 1 << (max(1, n // _ROUND_ROWS) - 1).bit_length())
    first, repeats = np.empty(n, np.int32), 0
    for number in range(rounds):
        counts = np.zeros((1 << bits) // rounds + 1, np.int64)
        place = _U64(64 - bits), _U64(number * (len(counts) - 1))
        for _, part in windows(hashes):
            _count(part, *place, counts)
        ends = np.cumsum(counts)
        halves, rows = np.empty(int(ends[-1]), np.uint64), np.empty(int(ends[-1]), np.int32)
        for row, part in windows(hashes):
            _scatter(part, row, *place, ends, halves, rows)
        slots = np.empty(1 << max(4, (2 * int(counts.max())).bit_length()), np.int32)
        repeats += int(_first_in_parts(hashes, halves, rows, ends[:-1], slots, first))
    return first, repeats
