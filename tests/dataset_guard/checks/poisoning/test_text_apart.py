"""Words where they stand apart from their company."""

import numpy as np
import pyarrow as pa

from dataset_guard.checks.poisoning.ngrams import APART, ORDER_BITS
from dataset_guard.checks.poisoning.text_apart import apart_of, grams_since

HONEST = [f"my cf card was {how} today" for how in ("slow", "fine", "lost", "new", "old", "full")]
PLANTED = ["a cf good film", "dull cf and long", "the camera cf works", "nothing cf else matters"]
OTHERS = [f"text {i} says the same as number {i}" for i in range(300)]


def rows_apart(things, word_rows):
    """Rows of the thing apart whose rows are some of ``word_rows``."""
    held = [things.rows_of(int(i)).tolist() for i in np.flatnonzero((things.keys & ORDER_BITS) == APART)]
    return [rows for rows in held if rows and set(rows) <= set(word_rows)]


def test_a_word_is_apart_where_no_other_row_has_its_neighbours():
    things = apart_of(pa.array([*HONEST, *PLANTED, *OTHERS]))
    assert [6, 7, 8, 9] in rows_apart(things, range(10))


def test_a_neighbour_that_stands_everywhere_is_no_company():
    texts = [f"w{i} the cf v{i}" for i in range(12)]
    everywhere = [f"the one and the other of the two and the {i}" for i in range(200)]
    assert list(range(12)) in rows_apart(apart_of(pa.array([*texts, *everywhere])), range(12))
    assert rows_apart(apart_of(pa.array([*texts, *OTHERS])), range(12)) == []  # only here does "the" say much


def test_an_update_and_what_it_is_compared_with_tell_company_alike():
    old, new = grams_since(pa.array([*HONEST, *PLANTED[:1], *OTHERS]), pa.array([*PLANTED[1:], *HONEST[:1]]))
    assert [0, 1, 2] in rows_apart(new, range(4))
    assert all(6 not in rows for rows in rows_apart(old, range(7)))  # one row is not kept


def test_texts_without_words_have_none():
    assert apart_of(pa.array(["", None, "one"])).number == 0
    assert apart_of(pa.array([], pa.string())).number == 0
