"""Characters are brought to one form while hashing, exactly as if the whole text had been normalised."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_guard.checks.leakage.folding import HARD, cells_of, table
from dataset_guard.checks.leakage.shingles import shingle
from dataset_guard.checks.leakage.tokens import longest_of

_TRICKY = (
    "aZ09 .\n\u00c9e\u0301\u00bd\u2122\ufb01\uff21\u212a\u017f\u0130\u00df\u2026\u00a0\u00b4"
    "\u3000\u4e2d\u6587\u304b\u3099\uac00\u1100\u1161\u0915\u094d\u0937\u0622\u023a\U0001d400\U0001f600\U0002f800\U00030000"
)
texts = st.lists(
    st.text(st.one_of(st.sampled_from(_TRICKY), st.characters(exclude_categories=["Cs"])), max_size=60),
    min_size=1,
    max_size=8,
)


def shingles_of(offsets: np.ndarray, data: np.ndarray, fold: np.ndarray) -> tuple[list[int], list[int]]:
    ends, rank = np.empty(len(offsets) - 1, np.int64), np.empty(len(offsets) - 1, np.uint64)
    out, room = np.empty(len(data) + 1, np.uint32), longest_of(offsets)
    words, plain, hashes = np.empty(room, np.uint64), np.empty(room, np.uint8), np.empty(room, np.uint64)
    shingle(offsets, data, fold, np.uint64(2**64 - 1), words, plain, hashes, out, ends, rank)
    return ends.tolist(), out[: ends[-1]].tolist()


@settings(max_examples=100, deadline=None)
@given(texts)
def test_shingles_are_those_of_the_text_that_was_normalised_as_a_whole(parts: list[str]) -> None:
    # Each text once as it is (short: byte windows) and once long (token windows).
    every = [*parts, *(f"{' '.join(map(str, range(14)))} {p} {p}" for p in parts)]
    whole = [unicodedata.normalize("NFKC", text) for text in every]
    assert shingles_of(*cells_of(pa.array(every))) == shingles_of(*cells_of(pa.array(whole)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Caf\u00c9 CR\u00c8ME", "cafe\u0301 cre\u0300me"),
        ("\uff21\uff22\uff23 \ufb01ne", "abc fine"),
        ("\uac00\uac01", "\u1100\u1161\u1100\u1161\u11a8"),
    ],
)
def test_two_spellings_of_a_text_have_equal_shingles(one: str, other: str) -> None:
    first, second = (shingles_of(*cells_of(pa.array([text + " and more of it"]))) for text in (one, other))
    assert first == second
    assert first[1]


def test_a_slice_and_nulls_are_read_where_they_are() -> None:
    cells = cells_of(pa.array(["x" * 9, "\ufb01ne", None, "Caf\u00c9"])[1:])
    assert [bytes(cells.data[a:b]) for a, b in zip(cells.offsets, cells.offsets[1:], strict=False)] == [
        b"fine", b"", "Caf\u00c9".encode(),
    ]  # fmt: skip


def test_plain_text_does_not_need_the_table() -> None:
    assert len(cells_of(pa.array(["only ASCII"])).fold) == 0


def test_every_mark_that_combines_is_left_to_the_whole_text() -> None:
    assert all(table()[ord(mark)] == HARD for mark in "\u0301\u3099\u1161\u094d")
    assert table()[0xC9] == 0xE9
