"""The quick way through plain ASCII comes to what the way through any text comes to."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_guard.checks.leakage import shingles
from dataset_guard.checks.leakage.shingles import BYTES

_FOLD = np.empty(0, np.uint32)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@settings(max_examples=100, deadline=None)
@given(st.text(st.one_of(st.sampled_from(" -aZ9."), st.characters(max_codepoint=0x7F)), max_size=90))
def test_plain_text_and_its_tokens_are_those_of_the_general_way(text: str) -> None:
    data, quick, slow = _bytes(text), np.zeros(100, np.uint8), np.zeros(100, np.uint8)
    size, tokens, easy = shingles._ascii(data, 0, len(data), quick)
    assert easy
    assert (size, tokens) == shingles._plain(data, 0, len(data), _FOLD, slow)
    assert quick[:size].tolist() == slow[:size].tolist()


def test_a_longer_character_is_told_wherever_it_stands() -> None:
    for text in ("\u00e9 fine", "caf\u00e9", "a \u00e9 b"):
        data = _bytes(text)
        assert not shingles._ascii(data, 0, len(data), np.zeros(100, np.uint8))[2]


def test_windows_are_the_bytes_they_cover_with_the_first_one_highest() -> None:
    plain, out = np.arange(200, 250, dtype=np.uint8), np.zeros(40, np.uint64)
    shingles._window_hashes(plain, 40, out)
    for at in range(40):
        number = int.from_bytes(bytes([BYTES, *plain[at : at + BYTES].tolist()]), "big")
        assert out[at] == number * 0x9E3779B97F4A7C15 % 2**64


def test_windows_of_tokens_are_the_same_polynomial_wherever_they_begin() -> None:
    tokens = np.random.default_rng(3).integers(0, 2**64, 20, dtype=np.uint64)
    for windows in range(1, 9):
        out = np.zeros(windows, np.uint64)
        shingles._token_windows(tokens, windows, out)
        for at in range(windows):
            number = 0
            for token in tokens[at : at + shingles.TOKENS].tolist():
                number = (number * 0x9E3779B97F4A7C15 + token) % 2**64
            assert out[at] == number
