"""The numba BLAKE3 equals the ``blake3`` library, byte for byte, for every length that takes another path."""

import numpy as np
import pytest
from blake3 import blake3

from dataset_guard.hashing.blake3_lanes import IV, KEYED_HASH, hash_messages, hash_rows, key_words

KEY = bytes(range(100, 132))
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


def hash_all(messages, key=None):
    out = np.zeros((len(messages), 8), np.uint32)
    mode = 0 if key is None else KEYED_HASH
    hash_messages(*laid_out(messages), IV if key is None else key_words(key), mode, out)
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


@pytest.mark.parametrize(("wants_public", "wants_keyed"), [(True, True), (False, True), (True, False)])
def test_rows_get_the_first_half_of_their_digest_and_of_its_keyed_digest(wants_public, wants_keyed):
    messages = messages_of([*range(150), 0, 1023, 1024, 1025, 5_000, 3])
    row_key = bytes(range(32))
    public, keyed = (np.zeros((len(messages) * w, 2), np.uint64) for w in (wants_public, wants_keyed))
    hash_rows(*laid_out(messages), key_words(row_key), key_words(KEY), public, keyed)
    digests = [blake3(m, key=row_key).digest() for m in messages]
    if wants_public:
        assert [row.astype(">u8").tobytes() for row in public] == [d[:16] for d in digests]
    if wants_keyed:
        again = [blake3(d, key=KEY).digest()[:16] for d in digests]
        assert [row.astype(">u8").tobytes() for row in keyed] == again


def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes, got 5"):
        key_words(b"short")
