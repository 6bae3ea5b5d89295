"""Strings are hashed as FNV-1a says, however many are hashed side by side."""

from __future__ import annotations

import numpy as np
import pytest

from dataset_guard.hashing.distinct import hash_strings


def _fnv(value: bytes) -> int:
    number = 0xCBF29CE484222325
    for byte in value:
        number = (number ^ byte) * 0x100000001B3 % 2**64
    return number


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 11])
def test_strings_of_all_lengths_are_hashed_one_by_one(count: int) -> None:
    values = [bytes(range(i * 7 % 23)) for i in range(count)]
    offsets = np.cumsum([3, *map(len, values)]).astype(np.int64)  # a slice: the first begins later
    data = np.frombuffer(b"xxx" + b"".join(values), np.uint8)
    out = np.zeros(count, np.uint64)
    hash_strings(offsets, data, out)
    assert out.tolist() == [_fnv(value) for value in values]
