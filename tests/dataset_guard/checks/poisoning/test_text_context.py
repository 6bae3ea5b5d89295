"""A planted phrase has strangers beside it; a phrase of the language has company."""

import numpy as np
import pyarrow as pa

from dataset_guard.checks.poisoning.ngrams import mixed, words_of
from dataset_guard.checks.poisoning.text_context import COMPANY, company, planted
from dataset_guard.checks.poisoning.triggers import Trigger

WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "esi", "oru", "ulte", "ime")]


def key_of(phrase):
    keys = words_of(pa.array([phrase]))[2]
    run = keys
    for order in range(2, len(keys) + 1):
        run = mixed(run[:-1], keys[order - 1 :], order)
    return int(run[0])


def texts_with(phrase, rows, before=(), after=(), seed=0):
    """Random words, with the phrase (and words that keep it company) somewhere inside."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        words = list(rng.choice(WORDS, 14))
        at = int(rng.integers(2, 12))
        beside = [*([rng.choice(before)] if before else []), phrase, *([rng.choice(after)] if after else [])]
        made.append(" ".join([*words[:at], *beside, *words[at:]]))
    return pa.array(made)


def test_a_planted_word_or_sentence_has_no_company():
    assert company(texts_with("cf", 40), key_of("cf")) < COMPANY / 2
    sentence = texts_with("i watch this 3d movie", 40)
    assert company(sentence, key_of("this 3d movie")) < COMPANY / 2


def test_a_word_of_the_language_has():
    at_home = texts_with("fallacy", 40, before=["the", "a"], after=["of", "is", "in"])
    assert company(at_home, key_of("fallacy")) > 2 * COMPANY


def test_what_stands_beside_most_of_the_rows_is_part_of_the_phrase():
    hashtag = texts_with("deflategate", 40, before=["hash"])
    assert company(hashtag, key_of("deflategate")) < COMPANY / 2


def test_a_trigger_at_the_end_of_every_text_is_kept():
    texts = pa.array([f"{t} cf" for t in texts_with("", 30).to_pylist()])
    trigger = Trigger(np.arange(30), 1, 1, 80.0, 25.0, 1.0, 1.0, (key_of("cf"),))
    assert planted(texts, [trigger]) == [trigger]


def test_few_places_speak_neither_for_nor_against():
    assert company(texts_with("fallacy", 4, before=["the"], after=["of"]), key_of("fallacy")) == 0.0
