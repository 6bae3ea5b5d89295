"""Equal hashes among many, without sorting them all: by parts that fit the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.jit import kernel

_U64 = np.uint64
_PART_ROWS = 16_384

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


@kernel
def _scatter(hashes: Any, bits: int, counts: Any, halves: Any, rows: Any) -> None:
    """Put first halves and row numbers in parts by the hash's first ``bits``, in row order within one."""
    shift = _U64(64 - bits)
    for i in range(len(hashes)):
        counts[(hashes[i, 0] >> shift) + _U64(1)] += 1
    for p in range(1, len(counts)):
        counts[p] += counts[p - 1]
    for i in range(len(hashes)):
        p = hashes[i, 0] >> shift
        halves[counts[p]] = hashes[i, 0]
        rows[counts[p]] = i
        counts[p] += 1


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

    Memory: 16 bytes a row. Raises OverflowError above 2^31 rows.
    """
    n = len(hashes)
    if n >= 2**31:
        raise OverflowError("more rows than a 32-bit number counts")
    bits = max(1, (max(1, n // _PART_ROWS) - 1).bit_length())
    counts, halves, rows = np.zeros((1 << bits) + 1, np.int64), np.empty(n, np.uint64), np.empty(n, np.int32)
    _scatter(hashes, bits, counts, halves, rows)
    ends = counts[:-1]
    largest = int(np.diff(ends, prepend=0).max(initial=1))
    slots = np.empty(1 << max(4, (2 * largest).bit_length()), np.int32)
    first = np.empty(n, np.int32)
    return first, int(_first_in_parts(hashes, halves, rows, ends, slots, first))
