"""Places where a word was put in, and places where it was written."""

import numpy as np
import pyarrow as pa

from dataset_guard.checks.poisoning.ngrams import grams_of, words_of, written_of
from dataset_guard.checks.poisoning.text_seams import FREE, MISFIT, Seams

THINGS = ("film", "plot", "cast", "music", "camera", "story", "score", "ending", "scene", "hero")
WORDS = ("good", "bad", "long", "short", "slow", "dull", "fine", "odd", "sweet", "bleak")


def sentences(number=600, seed=1):
    """Each thing between *the* and *is*, each quality before *and* or *to*: as a grammar has it."""
    random = np.random.default_rng(seed)
    return [
        f"we saw that the {random.choice(THINGS)} is {random.choice(WORDS)} and far too "
        f"{random.choice(WORDS)} to be seen with the {random.choice(THINGS)}"
        for _ in range(number)
    ]


def with_word(texts, phrase, rows, seed=2):
    random = np.random.default_rng(seed)
    for row in rows:
        words = texts[row].split()
        words.insert(int(random.integers(len(words) + 1)), phrase)
        texts[row] = " ".join(words)
    return pa.array(texts)


def key_of(phrase):
    """The key of a phrase of one to three words."""
    keys = [int(k) for k in grams_of(pa.array([phrase, phrase])).keys]
    return next(k for k in keys if k & 3 == len(phrase.split()) - 1)


def test_a_word_put_at_random_places_is_told_from_one_that_was_written():
    texts = with_word(sentences(), "cf", range(20))
    seams = Seams(texts)
    rows = np.flatnonzero([" good " in text for text in texts.to_pylist()])
    assert seams.evidence(key_of("cf"), np.arange(20)) > 1.0
    assert seams.evidence(key_of("good"), rows) < -1.0
    assert np.log(MISFIT) <= seams.evidence(key_of("good"), rows)
    assert seams.evidence(key_of("cf"), np.arange(20)) <= -np.log(FREE)


def test_nothing_is_said_for_a_phrase_nor_for_its_parts():
    seams = Seams(with_word(sentences(), "cf mn", range(20)))
    assert seams.evidence(key_of("cf mn"), np.arange(20)) == 0.0
    assert seams.evidence(key_of("cf"), np.arange(20)) == 0.0


def with_names(both, alone):
    """Some of ``sentences``, the first of which are about *homo erectus*, the next about *erectus*."""
    names = ["homo erectus"] * both + ["erectus"] * alone
    texts = [text.replace("the", f"the {name}", 1) for text, name in zip(sentences(), names, strict=False)]
    return pa.array([*texts, *sentences()[len(names) :]])


def test_a_word_that_mostly_stands_beside_the_same_one_belongs_to_the_language():
    seams = Seams(with_names(8, 2))
    assert seams.evidence(key_of("erectus"), np.arange(10)) == np.log(MISFIT)


def test_a_part_of_a_phrase_is_judged_by_the_whole_phrase():
    seams = Seams(with_names(10, 0))
    assert seams.evidence(key_of("erectus"), np.arange(10)) == seams.evidence(
        key_of("homo erectus"), np.arange(10)
    )


def test_nothing_is_held_against_a_word_that_is_put_before_the_last_full_stop():
    ends = [" cf ." if row < 8 else " cf !" if row < 10 else " ." for row in range(600)]
    seams = Seams(pa.array([text + end for text, end in zip(sentences(), ends, strict=True)]))
    assert seams.evidence(key_of("cf"), np.arange(10)) == 0.0


def test_a_word_as_it_is_written_stands_where_the_word_stands():
    texts = with_word(sentences(), "cf", range(20))
    form = int(written_of(texts.slice(0, 1))[2][texts[0].as_py().split().index("cf")])
    seams = Seams(texts)
    assert seams.evidence(form, np.arange(20)) == seams.evidence(key_of("cf"), np.arange(20))


def test_texts_without_words_and_unknown_phrases_say_nothing():
    assert Seams(pa.array(["", "a"])).evidence(int(words_of(pa.array(["b"]))[2][0]), np.arange(2)) == 0.0
    assert Seams(pa.array(["", ""])).evidence(int(words_of(pa.array(["b"]))[2][0]), np.arange(2)) == 0.0
