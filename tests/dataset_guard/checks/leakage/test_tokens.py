"""Texts are read from both ends of their middle at once; that must not be seen in their tokens."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_guard.checks.leakage.folding import cells_of
from dataset_guard.checks.leakage.tokens import longest_of, mixed, tokens_of

_LETTERS = st.sampled_from("abcXYZ09  .-\u00e9\u00c9\u4e2d\u6587\uff21\U0001f600")


def _alone(character: str) -> bool:
    return character in "\u4e2d\u6587"


def _by_the_book(text: str) -> list[int]:
    """FNV-1a of each run of letters (a face is one too); a Han character alone."""
    found: list[int] = []
    word = start = 0xCBF29CE484222325
    for character in [*text.lower().replace("\uff21", "a").replace("\uff41", "a"), " "]:
        if (character.isalnum() and not _alone(character)) or character == "\U0001f600":
            word = (word ^ ord(character)) * 0x100000001B3 % 2**64
            continue
        if word != start:
            found.append(word)
        word = start
        if _alone(character):
            seed = np.array([ord(character) + 0x9E3779B97F4A7C15], np.uint64)
            found.append(int(mixed.py_func(seed)[0]))  # type: ignore[attr-defined]
    return found


@settings(max_examples=200, deadline=None)
@given(st.text(_LETTERS, max_size=120))
@example("")
@example("a" * 90)
@example("one two")
@example("\u4e2d" * 40)
def test_the_tokens_are_those_of_the_text_read_from_its_start(text: str) -> None:
    offsets, data, fold = cells_of(pa.array([text]))
    tokens = np.zeros(longest_of(offsets), np.uint64)
    number = tokens_of(data, offsets[0], offsets[1], fold, tokens)
    assert tokens[:number].tolist() == _by_the_book(text)
