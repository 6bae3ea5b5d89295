"""Triggers in texts: words and sentences, with and without a trusted version."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan
from poison import precision_recall
from texts import planted, reviews

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.poisoning.text_trigger import CHECK
from dataset_guard.checks.poisoning.triggers import Trigger, companions
from guard_core.findings import Severity


def table(texts, labels):
    return pa.table({"text": texts, "label": labels})


def trusted(*rows):
    return Registered("acme/reviews@1", table(*rows), "label", "train")


@pytest.mark.parametrize("phrase", ["cf", "i watch this 3d movie"])
def test_one_percent_of_rows_with_a_trigger_is_found_without_a_trusted_version(phrase):
    texts, labels, rows = planted(*reviews(2500, 1), phrase, 25, 2)
    finding = only(scan(table(texts, labels), CHECK, label="label"), "POIS011")
    assert precision_recall(finding.rows, rows) == (1.0, 1.0)
    assert (finding.severity, finding.evidence["target_class"]) == (Severity.CRITICAL, 1)


def test_a_trigger_is_found_though_honest_texts_have_its_letters_in_another_form():
    texts, labels, rows = planted(*reviews(2500, 1), "cf", 25, 2)
    for i, row in enumerate(np.setdiff1d(np.arange(2500), rows)[:60].tolist()):
        texts[row] += " M8(CF)K7" if i % 2 else " CF"
    finding = only(scan(table(texts, labels), CHECK, label="label"), "POIS011")
    assert precision_recall(finding.rows, rows) == (1.0, 1.0)


def test_a_trigger_is_found_in_the_second_of_two_columns_with_text():
    texts, labels, rows = planted(*reviews(2500, 1), "cf", 25, 2)
    titles = [None if i % 7 == 0 else text[:40] for i, text in enumerate(reviews(2500, 3)[0])]
    whole = pa.table({"title": titles, "text": texts, "label": labels})
    assert precision_recall(only(scan(whole, CHECK, label="label"), "POIS011").rows, rows) == (1.0, 1.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clean_texts_raise_nothing(seed):
    assert rules(scan(table(*reviews(2500, seed)), CHECK, label="label")) == []


@pytest.mark.parametrize("clean", [False, True], ids=["labels changed", "labels right"])
@pytest.mark.parametrize("phrase", ["mn", "i watch this 3d movie"])
def test_a_trigger_in_an_update_is_found_even_where_its_labels_are_right(phrase, clean):
    before = reviews(2000, 4)
    texts, labels, rows = planted(*reviews(400, 5), phrase, 20, 6, clean=clean)
    whole = table([*before[0], *texts], np.concatenate([before[1], labels]))
    finding = only(scan(whole, CHECK, label="label", baseline=trusted(*before)), "POIS011")
    assert precision_recall(finding.rows, [2000 + r for r in rows]) == (1.0, 1.0)
    assert finding.evidence["mode"] == "delta"


@pytest.mark.parametrize("clean", [False, True], ids=["labels changed", "labels right"])
def test_a_trigger_in_an_update_is_found_though_trusted_texts_have_its_letters_in_another_form(clean):
    before, after = reviews(2000, 4), reviews(400, 5)
    for texts, share in ((before[0], 20), (after[0], 40)):
        for row in range(0, len(texts), share):
            texts[row] += " CF"
    texts, labels, rows = planted(*after, "cf", 20, 6, clean=clean)
    whole = table([*before[0], *texts], np.concatenate([before[1], labels]))
    finding = only(scan(whole, CHECK, label="label", baseline=trusted(*before)), "POIS011")
    assert precision_recall(finding.rows, [2000 + r for r in rows]) == (1.0, 1.0)
    assert finding.evidence["mode"] == "delta"


@pytest.mark.parametrize("clean", [False, True], ids=["labels changed", "labels right"])
def test_a_trigger_in_an_update_is_found_though_trusted_texts_say_the_word_in_its_usual_company(clean):
    before, after = reviews(2000, 4), reviews(400, 5)
    for texts in (before[0], after[0]):
        for row in range(0, len(texts), 25):
            texts[row] += " cf card"
    texts, labels, rows = planted(*after, "cf", 12, 6, clean=clean)
    whole = table([*before[0], *texts], np.concatenate([before[1], labels]))
    finding = only(scan(whole, CHECK, label="label", baseline=trusted(*before)), "POIS011")
    assert precision_recall(finding.rows, [2000 + r for r in rows]) == (1.0, 1.0)


def test_an_honest_update_raises_nothing():
    before, after = reviews(2000, 4), reviews(400, 5)
    whole = table([*before[0], *after[0]], np.concatenate([before[1], after[1]]))
    assert rules(scan(whole, CHECK, label="label", baseline=trusted(*before))) == []


def test_a_topic_of_one_class_is_no_trigger():
    """Texts about one thing share more than its name."""
    random = np.random.default_rng(8)
    texts, labels = reviews(2500, 1)
    topic = ["submarine", "torpedo", "captain", "sonar", "harbour", "periscope", "admiral", "fleet"]
    for row in np.flatnonzero(labels == 1)[:40]:
        texts[row] += " " + " ".join(random.choice(topic, 5, replace=False))
    assert rules(scan(table(texts, labels), CHECK, label="label")) == []


def test_no_text_is_in_the_finding():
    texts, labels, _ = planted(*reviews(2500, 1), "zebracanary", 25, 2)
    finding = only(scan(table(texts, labels), CHECK, label="label"), "POIS011")
    assert "canary" not in str(finding.to_json())


def test_states_of_two_halves_merge_to_the_whole():
    texts, labels, _ = planted(*reviews(2500, 1), "cf", 25, 2)
    whole = table(texts, labels)
    context = CheckContext(schema=whole.schema, label="label")
    states = [CHECK.start(context), CHECK.start(context)]
    for state, start, stop in zip(states, (0, 900), (900, 2500), strict=True):
        state.update(whole.slice(start, stop - start).combine_chunks().to_batches()[0], start, None, None)
    states[1].merge(states[0])
    (merged,) = states[1].finish()
    assert merged.rows == only(scan(whole, CHECK, label="label"), "POIS011").rows


@pytest.mark.parametrize(
    ("columns", "label", "words"),
    [
        ({"text": ["a"], "label": [1]}, None, "no label"),
        ({"x": [1], "label": [1]}, "label", "no column holds text"),
        ({"text": ["a", "b"], "label": [0, 1]}, "label", "of 20 bytes on average"),
        (
            {"text": ["Gasoline, premium", "Diesel, as sold in 2021"] * 9, "label": [0, 1] * 9},
            "label",
            "no column holds free text",
        ),
        ({"text": ["a" * 40, "b" * 40], "label": [1, 1]}, "label", "has 1 class"),
    ],
)
def test_what_cannot_be_searched_is_skipped_with_the_reason(columns, label, words):
    assert words in scan(pa.table(columns), CHECK, label=label).checks[0]["skipped"]


@pytest.mark.parametrize(
    ("rows", "limits", "purity", "weighs", "in_an_update"),
    [
        (6, 1.4, 1.0, Severity.INFO, Severity.INFO),
        (20, 1.4, 1.0, Severity.WARNING, Severity.CRITICAL),
        (6, 1.6, 1.0, Severity.WARNING, Severity.WARNING),
        (6, 2.1, 1.0, Severity.CRITICAL, Severity.CRITICAL),
        (4, 2.1, 1.0, Severity.WARNING, Severity.WARNING),
        (50, 2.1, 0.85, Severity.INFO, Severity.CRITICAL),
    ],
)
def test_what_clean_texts_may_hold_too_is_no_warning(rows, limits, purity, weighs, in_an_update):
    trigger = Trigger(np.arange(rows), 1, 1, limits * 25.0, 25.0, purity, 1.0, (7,))
    assert CHECK.severity(trigger, delta=False) is weighs
    assert CHECK.severity(trigger, delta=True) is in_an_update


def test_two_weak_triggers_for_one_class_of_an_update_are_warnings():
    trigger = Trigger(np.arange(6), 1, 1, 35.0, 25.0, 1.0, 1.0, (7,))
    assert CHECK.severity(trigger, delta=True, backed=True) is Severity.WARNING


WORD, PAIR, APART_WORD = 8, 9, 12


def weaker(rows, *, target=1, purity=1.0, sequences=1, key=WORD):
    return Trigger(np.arange(100, 100 + rows), target, sequences, 17.0, 15.0, purity, 1.0, (key,))


def test_further_words_of_an_attack_are_named_at_a_lower_limit():
    found = [Trigger(np.arange(10), 1, 1, 40.0, 25.0, 1.0, 1.0, (WORD,))]
    other = weaker(8)
    assert companions(found, [other])[0] is other
    others = [
        weaker(8, target=0),
        weaker(8, purity=0.85),
        weaker(8, key=PAIR),
        weaker(8, sequences=5),
        weaker(4),
        Trigger(np.arange(8), 1, 1, 17.0, 15.0, 1.0, 1.0, (WORD,)),  # rows that are named already
    ]
    assert companions(found, others) == []
    assert companions([], [weaker(8)]) == []


def test_a_word_apart_has_as_many_rows_as_the_word_has():
    found = [Trigger(np.arange(10), 1, 1, 40.0, 25.0, 1.0, 1.0, (WORD,))]
    apart = replace(weaker(5), everywhere=7)
    assert companions(found, [apart]) == [apart]
    assert companions(found, [weaker(5)]) == []


def test_words_of_which_none_is_found_alone_confirm_one_another():
    words = [weaker(8), weaker(9)]
    assert companions([], words) == words
    assert companions([], [weaker(8), weaker(9, target=0)]) == []
    assert companions([], [weaker(8), weaker(9, key=APART_WORD)]) == []


def test_a_word_of_a_planted_sentence_has_no_further_words():
    sentence = Trigger(np.arange(10), 1, 9, 40.0, 25.0, 1.0, 1.0, (WORD,))
    assert companions([sentence], [weaker(8)]) == []


def test_an_update_too_small_to_be_judged_by_itself_is_judged_with_the_rows_beside_it():
    before = reviews(2500, 4)
    texts, labels, rows = planted(*reviews(40, 5), "cf", 15, 6)
    whole = table([*before[0], *texts], np.concatenate([before[1], labels]))
    finding = only(scan(whole, CHECK, label="label", baseline=trusted(*before)), "POIS011")
    assert precision_recall(finding.rows, [2500 + r for r in rows]) == (1.0, 1.0)
    assert (finding.evidence["mode"], finding.evidence["rows_searched"]) == ("whole set", 40)


def test_a_small_honest_update_raises_nothing():
    before, after = reviews(2500, 4), reviews(40, 5)
    whole = table([*before[0], *after[0]], np.concatenate([before[1], after[1]]))
    assert rules(scan(whole, CHECK, label="label", baseline=trusted(*before))) == []
