"""Texts as sets of words, sequences, and words as they are written."""

import numpy as np
import pyarrow as pa

from dataset_guard.checks.poisoning.ngrams import grams_of
from dataset_guard.checks.poisoning.text_rest import RestModel

TEXTS = pa.array(["a cf b", "a CF b", "a (cf) b", "the cf", "the CF", "the film", "the film"])


def rows_of_forms(things):
    return {tuple(things.rows_of(i).tolist()) for i in np.flatnonzero(things.is_form)}


def test_a_word_between_spaces_is_known_as_it_is_written():
    things = grams_of(TEXTS, orders=1, written=True)
    assert rows_of_forms(things) == {(0, 3), (1, 4)}
    words = {tuple(things.rows_of(i).tolist()) for i in np.flatnonzero(~things.is_form)}
    assert (0, 1, 2, 3, 4) in words


def test_a_form_that_nearly_all_of_its_rows_have_is_the_word():
    texts = pa.array(["so cf"] * 19 + ["so CF"] * 2)
    assert rows_of_forms(grams_of(texts, orders=1, written=True)) == {(19, 20)}


def test_where_two_tables_are_compared_every_form_is_kept_and_keys_ascend():
    texts = pa.array(["so cf"] * 19 + ["so CF"] * 2)
    things = grams_of(texts, written=True, most=1.0)
    assert rows_of_forms(things) == {tuple(range(21)), tuple(range(19)), (19, 20)}
    assert (np.diff(things.keys.astype(object)) > 0).all()


def test_what_a_text_says_its_class_is_does_not_depend_on_forms():
    codes = np.array([0, 0, 1, 1, 0, 1, 1])
    plain, written = (RestModel(grams_of(TEXTS, written=w), codes, 2) for w in (False, True))
    np.testing.assert_array_equal(plain.without(np.array([0, 4])), written.without(np.array([0, 4])))


def test_no_text_holds_nothing():
    assert grams_of(pa.array([None, ""]), written=True).number == 0
