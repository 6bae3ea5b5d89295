"""The numba BLAKE3 equals the ``blake3`` library, byte for byte, for every length that takes another path."""

import numpy as np
import pytest
from blake3 import blake3

from dataset_guard.hashing.blake3_lanes import IV, KEYED_HASH, hash_messages, key_words, rehash

KEY = bytes(range(100, 132))
LENGTHS = [*range(200), 511, 512, 513, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 5000, 8192, 16384]
LENGTHS += [16385, 17 * 1024, 31 * 1024 + 1, 32 * 1024, 33 * 1024 + 7, 100_000]


def hash_all(messages, key=None):
    starts, words = [], []
    at = 0
    for message in messages:
        padded = message + b"\0" * (-len(message) % 64 if message else 64)
        starts.append(at)
        words.append(np.frombuffer(padded, "<u4"))
        at += len(padded) // 4
    out = np.zeros((len(messages), 8), np.uint32)
    sizes = np.array([len(m) for m in messages], np.int64)
    words = np.concatenate(words).astype(np.uint32)
    mode = 0 if key is None else KEYED_HASH
    hash_messages(words, np.array(starts, np.int64), sizes, IV if key is None else key_words(key), mode, out)
    return [row.tobytes() for row in out]


def messages_of(lengths):
    rng = np.random.default_rng(7)
    return [rng.bytes(n) for n in lengths]


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "keyed"])
def test_every_length_hashes_as_the_library_does(key):
    messages = messages_of(LENGTHS)
    expected = [blake3(m, **({} if key is None else {"key": key})).digest() for m in messages]
    assert hash_all(messages, key) == expected


def test_lanes_of_very_different_lengths_do_not_disturb_each_other():
    rng = np.random.default_rng(8)
    messages = messages_of(rng.choice([0, 1, 63, 64, 65, 900, 1024, 1025, 40_000], 500))
    assert hash_all(messages) == [blake3(m).digest() for m in messages]


def test_a_digest_is_hashed_again_under_a_key_as_the_library_does():
    digests = np.frombuffer(b"".join(blake3(bytes([i])).digest() for i in range(37)), "<u4").reshape(37, 8)
    out = np.zeros_like(digests)
    rehash(digests.astype(np.uint32), key_words(KEY), out)
    assert [r.tobytes() for r in out] == [blake3(d.tobytes(), key=KEY).digest() for d in digests]


def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes, got 5"):
        key_words(b"short")
