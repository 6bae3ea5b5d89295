"""One-permutation MinHash signatures of shingle sets, compiled.

Li, Owen, Zhang 2012 (one permutation), Shrivastava 2017 (optimal densification).
"""

from __future__ import annotations

from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt

from dataset_guard.checks.leakage.tokens import mixed
from dataset_guard.hashing.jit import kernel

BINS = 128
BANDS = 32
ROWS_PER_BAND = BINS // BANDS

_MIXED_AT_ONCE = 512

_U32 = np.uint32
_U64 = np.uint64
_EMPTY = _U32(0xFFFFFFFF)


def _lenders() -> npt.NDArray[np.uint8]:
    """For each empty bin the bins that it asks, in order: a fixed hash of (bin, attempt).

    Not compiled: what is compiled into other kernels has no cache of its own, and would be compiled anew in
    every process, for this one call.
    """
    mix = cast("numba.core.dispatcher.Dispatcher", mixed).py_func
    with np.errstate(over="ignore"):
        asked = (np.arange(BINS, dtype=_U64)[:, None] << _U64(32)) + np.arange(1, 1 + 4 * BINS, dtype=_U64)
        asked = mix(asked * _U64(0x9E3779B97F4A7C15)) >> _U64(57)
    return np.asarray(asked, np.uint8)


_LENDERS = _lenders()


@kernel
def _densify(signature: Any) -> None:
    for j in range(BINS):
        if signature[j] == _EMPTY:
            for attempt in range(4 * BINS):
                source = _LENDERS[j, attempt]
                # Only bins that were filled by a shingle may lend; they are marked by an even value.
                if signature[source] != _EMPTY and signature[source] & _U32(1) == _U32(0):
                    signature[j] = signature[source] | _U32(1)
                    break


@kernel
def sign(ends: Any, shingles: Any, signatures: Any) -> None:
    """The signature of each text from its shingles, which end at ``ends``.

    Shingles are mixed some at a time in a loop of their own, which compiles to SIMD.
    """
    mixes = np.empty(_MIXED_AT_ONCE, _U64)
    start = 0
    for i in range(len(ends)):
        signature = signatures[i]
        signature[:] = _EMPTY
        for first in range(start, ends[i], _MIXED_AT_ONCE):
            some = shingles[first : min(first + _MIXED_AT_ONCE, ends[i])]
            for t in range(len(some)):
                mixes[t] = mixed(_U64(some[t]) * _U64(0x9E3779B97F4A7C15) + _U64(0x632BE59BD9B4E019))
            for t in range(len(some)):
                bin_ = mixes[t] >> _U64(57)
                value = _U32((mixes[t] >> _U64(20)) & _U64(0xFFFFFFFE))
                signature[bin_] = min(signature[bin_], value)
        if ends[i] > start:
            _densify(signature)
        start = ends[i]
