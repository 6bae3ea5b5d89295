"""Bytes copied eight at a time are the bytes copied one by one, and no others change."""

from __future__ import annotations

import numpy as np
import pytest

from dataset_guard.hashing.byte_words import copy_bytes
from dataset_guard.hashing.jit import kernel


@kernel
def _copied(source: np.ndarray, first: int, size: int, out: np.ndarray, to: int) -> None:
    copy_bytes(source, first, size, out, to)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 17, 64, 71])
def test_a_copy_ends_at_its_last_byte(size: int) -> None:
    source = np.random.default_rng(size).integers(0, 256, 200).astype(np.uint8)
    for first, to in ((0, 0), (3, 5), (8, 1), (13, 100 - size)):
        out = np.full(100, 170, np.uint8)
        _copied(source, first, size, out, to)
        expected = np.full(100, 170, np.uint8)
        expected[to : to + size] = source[first : first + size]
        assert np.array_equal(out, expected)
