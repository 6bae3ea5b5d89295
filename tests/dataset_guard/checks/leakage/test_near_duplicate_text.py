"""Edited copies of texts are found, and only pairs whose similarity was computed are believed."""

import json

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.leakage.near_duplicate_text import CHECK
from guard_core.findings import Severity

HAN = [chr(c) for c in range(0x4E00, 0x4E00 + 1_500)]


def documents(number: int, seed: int, words: int = 90) -> list[list[str]]:
    """Generated: words of a Zipf-like vocabulary, so that unrelated texts share many words."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 3_001)
    picks = rng.choice(3_000, (number, words), p=weights / weights.sum())
    return [[f"w{p:x}x" for p in row] for row in picks]


def edited(words: list[str], changes: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    out = list(words)
    for at in rng.choice(len(words), changes, replace=False):
        out[at] = f"new{rng.integers(10**6)}"
    return out


def similarity(a: list[str], b: list[str]) -> float:
    one, two = ({tuple(t[i : i + 5]) for i in range(len(t) - 4)} for t in (a, b))
    return len(one & two) / len(one | two)


def text_table(texts) -> pa.Table:
    return pa.table({"text": [" ".join(t) if isinstance(t, list) else t for t in texts]})


def test_pairs_above_the_similarity_are_found_and_others_are_not():
    originals = documents(3_000, 1)
    copies = [edited(originals[i], changes, i) for i, changes in enumerate([0, 1, 2, 3, 4, 5, 8, 20] * 50)]
    truth = {3_000 + i for i, copy in enumerate(copies) if similarity(originals[i], copy) >= 0.7}
    found = set(only(scan(text_table([*originals, *copies]), CHECK), "LEAK003").rows)
    assert found <= truth, "precision is exact: every pair was compared"
    assert len(found) / len(truth) >= 0.995
    assert 100 < len(truth) < 400, "the edits lie on both sides of the limit"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("ÜBER DEN ÄRGER MIT GROSSEN ÖFEN " * 4, "über den ärger mit grossen öfen " * 4),
        ("ПРИВЕТ ВСЕМ КТО ЧИТАЕТ ЭТОТ ТЕКСТ " * 4, "привет всем кто читает этот текст " * 4),
        (
            "Ｆｕｌｌ ｗｉｄｔｈ ｌｅｔｔｅｒｓ ａｒｅ ｔｈｅ ｓａｍｅ " * 4,
            "full width letters are the same " * 4,
        ),
        (
            "Punctuation, spacing -- and CASE do not count; " * 4,
            "punctuation spacing and case do\tnot count " * 4,
        ),
    ],
)
def test_case_width_and_punctuation_make_no_difference(one, two):
    finding = only(scan(text_table([one, *documents(50, 2), two]), CHECK), "LEAK003")
    assert list(finding.rows) == [51]


def test_chinese_without_spaces_is_compared_by_characters():
    rng = np.random.default_rng(0)
    texts = [rng.choice(HAN, 120).tolist() for _ in range(200)]
    copy = list(texts[17])
    copy[60] = "龙"
    table = text_table(["".join(t) for t in [*texts, copy]])
    assert list(only(scan(table, CHECK), "LEAK003").rows) == [200]


def test_short_texts_are_compared_by_bytes():
    texts = [" ".join(d) for d in documents(500, 4, words=8)]
    table = text_table([*texts, texts[3].upper() + "!"])
    assert list(only(scan(table, CHECK), "LEAK003").rows) == [500]


def test_test_texts_copied_with_edits_into_train_are_critical_and_paired():
    test = documents(300, 5)
    copies = [edited(test[i], 2, i) for i in range(40)]
    train = text_table([*documents(1_000, 6), *copies])
    against = (Registered("acme/test@1", text_table(test), None, "test"),)
    finding = only(scan(train, CHECK, split="train", against=against), "LEAK003")
    assert finding.severity is Severity.CRITICAL
    assert list(finding.rows) == list(range(1_000, 1_040))
    assert finding.evidence["pairs"][:2] == [[1_000, 0], [1_001, 1]]


def test_one_shared_text_is_a_warning():
    test = documents(300, 5)
    train = text_table([*documents(1_000, 6), edited(test[9], 1, 0)])
    against = (Registered("acme/test@1", text_table(test), None, "test"),)
    assert only(scan(train, CHECK, split="train", against=against), "LEAK003").severity is Severity.WARNING


def test_a_reference_whose_data_is_gone_is_said_not_to_be_compared():
    train = text_table(documents(50, 6))
    against = (Registered("acme/test@1", train, None, "test", gone=True),)
    finding = only(scan(train, CHECK, against=against), "LEAK003")
    assert finding.severity is Severity.INFO
    assert "its data is gone" in finding.message


def test_unrelated_texts_of_one_vocabulary_raise_nothing():
    against = (Registered("acme/test@1", text_table(documents(500, 8)), None, "test"),)
    assert rules(scan(text_table(documents(3_000, 7)), CHECK, split="train", against=against)) == []


def test_words_of_a_category_are_no_texts():
    table = pa.table({"city": ["Shenzhen", "Hangzhou", "Chengdu"] * 300})
    assert rules(scan(table, CHECK)) == []


def test_long_names_of_categories_are_information_only():
    names = ["Faculty of Mathematics and Natural Sciences", "Department of Public Health and Medicine"]
    finding = only(scan(pa.table({"faculty": names * 200}), CHECK), "LEAK003")
    assert finding.severity is Severity.INFO


def test_beyond_the_memory_bound_texts_are_sampled_so_that_copies_stay_together():
    originals = documents(2_000, 1)
    copies = [edited(d, 1, i) for i, d in enumerate(originals)]
    whole = 4_000 * (512 + 4 * 86)
    parameters = {"near_duplicate_text": {"memory_bytes": whole // 4}}
    result = scan(text_table([*originals, *copies]), CHECK, parameters=parameters)
    finding = only(result, "LEAK003")
    share = finding.evidence["sampled_share"]
    assert share in (0.25, 0.125)
    # A sample by row number would keep share ** 2 of the pairs: 125 of 2,000 at a quarter.
    assert len(finding.rows) > 0.8 * share * 2_000


def test_the_batches_do_not_matter_nor_the_order_of_merging():
    originals = documents(600, 1)
    table = text_table([*originals, *[edited(d, 1, 0) for d in originals[:50]], "", None])
    context = CheckContext(schema=table.schema)
    check = type(CHECK)(memory_bytes=300_000)
    states = []
    for start, stop in ((0, 100), (100, 597), (597, 652)):
        states.append(check.start(context))
        batch = table.slice(start, stop - start).combine_chunks().to_batches()[0]
        states[-1].update(batch, start, None, None)
    states[1].merge(states[2])
    states[1].merge(states[0])
    (merged,) = states[1].finish()
    whole = only(scan(table, check), "LEAK003")
    assert merged.rows == whole.rows
    assert merged.evidence == whole.evidence


def test_no_word_of_a_text_is_in_the_finding():
    secret = "the quick brown canary jumps over thirteen lazy zebras near the old harbour wall today "
    finding = only(scan(text_table([secret, secret + "again"]), CHECK), "LEAK003")
    assert not any(word in json.dumps(finding.to_json()) for word in ("canary", "zebras", "harbour"))


def test_a_table_without_text_skips_the_check():
    assert CHECK.applies(CheckContext(schema=pa.schema([("a", pa.int64())]))) == "there is no text column"
