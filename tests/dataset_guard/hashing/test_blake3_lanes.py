"""The numba BLAKE3 equals the ``blake3`` library, byte for byte, for every length that takes another path."""

import numpy as np
import pytest
from blake3 import blake3

from dataset_guard.hashing.blake3_lanes import hash_blocks, hash_gaps, hash_rows, key_words

KEY = bytes(range(100, 132))
ROW_KEY = bytes(range(32))
LENGTHS = [*range(200), 511, 512, 513, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 5000, 8192, 16384]
LENGTHS += [16385, 17 * 1024, 31 * 1024 + 1, 32 * 1024, 33 * 1024 + 7, 100_000]


def laid_out(messages):
    starts, words = [], []
    at = 0
    for message in messages:
        padded = message + b"\0" * (-len(message) % 64 if message else 64)
        starts.append(at)
        words.append(np.frombuffer(padded, "<u4"))
        at += len(padded) // 4
    sizes = np.array([len(m) for m in messages], np.int64)
    return np.concatenate(words).astype(np.uint32), np.array(starts, np.int64), sizes


def messages_of(lengths):
    rng = np.random.default_rng(7)
    return [rng.bytes(n) for n in lengths]


def both_hashes(messages):
    public, keyed = (np.zeros((len(messages), 2), np.uint64) for _ in range(2))
    hash_rows(*laid_out(messages), key_words(ROW_KEY), key_words(KEY), public, keyed)
    return [[row.astype(">u8").tobytes() for row in found] for found in (public, keyed)]


def both_by_the_library(messages):
    digests = [blake3(m, key=ROW_KEY).digest() for m in messages]
    return [[d[:16] for d in digests], [blake3(d, key=KEY).digest()[:16] for d in digests]]


def test_every_length_hashes_as_the_library_does():
    messages = messages_of(LENGTHS)
    assert both_hashes(messages) == both_by_the_library(messages)


def test_lanes_of_very_different_lengths_do_not_disturb_each_other():
    rng = np.random.default_rng(8)
    messages = messages_of(rng.choice([0, 1, 63, 64, 65, 900, 1024, 1025, 40_000], 500))
    assert both_hashes(messages) == both_by_the_library(messages)


@pytest.mark.parametrize("number", [1, 15, 16, 17, 100])
@pytest.mark.parametrize("size", [1, 33, 64])
def test_single_blocks_hash_as_the_library_does(number, size):
    messages = messages_of([size] * number)
    out = np.zeros((number, 8), np.uint32)
    hash_blocks(laid_out(messages)[0], size, key_words(KEY), out)
    assert [row.tobytes() for row in out] == [blake3(m, key=KEY).digest() for m in messages]


@pytest.mark.parametrize("number", [1, 15, 16, 17, 100])
def test_gaps_hash_as_the_library_does(number):
    rng = np.random.default_rng(9)
    bounds = rng.integers(0, 2**64, (number + 1, 2), np.uint64)
    kinds = rng.integers(0, 4, number).astype(np.uint8)
    out = np.zeros((number, 8), np.uint32)
    hash_gaps(bounds, kinds, key_words(KEY), out)
    raw = [pair.astype(">u8").tobytes() for pair in bounds]
    expected = [a + b + kind.tobytes() for a, b, kind in zip(raw, raw[1:], kinds, strict=False)]
    assert [row.tobytes() for row in out] == [blake3(m, key=KEY).digest() for m in expected]


@pytest.mark.parametrize(("wants_public", "wants_keyed"), [(True, True), (False, True), (True, False)])
def test_rows_get_the_first_half_of_their_digest_and_of_its_keyed_digest(wants_public, wants_keyed):
    messages = messages_of([*range(150), 0, 1023, 1024, 1025, 5_000, 3])
    public, keyed = (np.zeros((len(messages) * w, 2), np.uint64) for w in (wants_public, wants_keyed))
    hash_rows(*laid_out(messages), key_words(ROW_KEY), key_words(KEY), public, keyed)
    digests = [blake3(m, key=ROW_KEY).digest() for m in messages]
    if wants_public:
        assert [row.astype(">u8").tobytes() for row in public] == [d[:16] for d in digests]
    if wants_keyed:
        again = [blake3(d, key=KEY).digest()[:16] for d in digests]
        assert [row.astype(">u8").tobytes() for row in keyed] == again


def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes, got 5"):
        key_words(b"short")
