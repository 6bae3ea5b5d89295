"""Items of an evaluation are found inside longer texts, also with a word in ten changed; others are not."""

import json

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.leakage.contamination import CHECK, Contamination
from guard_core.errors import UserError
from guard_core.findings import Severity


def sentences(number, seed, low=14, high=40):
    """Generated: words of a Zipf-like vocabulary, so that unrelated texts share many words."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 3_001)
    picks = rng.choice(3_000, (number, high), p=weights / weights.sum())
    return [[f"w{p:x}x" for p in row[: rng.integers(low, high)]] for row in picks]


def edited(words, share, seed):
    rng = np.random.default_rng(seed)
    out = list(words)
    for at in rng.choice(len(out), max(1, round(share * len(out))), replace=False):
        out[at] = ["", f"new{seed}", f"{out[at]} added{seed}"][rng.integers(3)]
    return out


def inside(item, seed):
    before, after = sentences(2, seed, 60, 90)
    return " ".join([*before, *item, *after])


ITEMS = sentences(300, 1)
SUITE = Registered("acme/quiz@1", pa.table({"question": [" ".join(i) for i in ITEMS]}), split="test")
CLEAN = [" ".join(s) for s in sentences(400, 2, 100, 200)]


def planted(share):
    return [inside(edited(ITEMS[i], share, i) if share else ITEMS[i], 1_000 + i) for i in range(100)]


@pytest.mark.parametrize(("share", "recall"), [(0.0, 1.0), (0.1, 0.97), (0.2, 0.85)])
def test_items_are_found_whether_verbatim_or_edited_and_clean_texts_are_not(share, recall):
    finding = only(scan(pa.table({"text": CLEAN + planted(share)}), CHECK, suites=(SUITE,)), "LEAK004")
    rows = set(finding.rows)
    assert not rows & set(range(400)), "no clean text is blamed"
    assert len(rows) >= recall * 100
    assert finding.severity is Severity.CRITICAL
    assert finding.evidence["items"] == len(rows)
    assert all(item == row - 400 for row, item in finding.evidence["pairs"]), "and it says which item"


def test_how_much_is_verbatim_and_the_longest_run_are_told_without_any_text():
    finding = only(scan(pa.table({"text": CLEAN + planted(0.0)}), CHECK, suites=(SUITE,)), "LEAK004")
    assert finding.evidence["verbatim_rows"] == 100
    assert finding.evidence["longest_run_tokens"] == max(len(i) for i in ITEMS[:100])
    said = json.dumps(finding.to_json())
    assert not any(word in said for word in ITEMS[0])


def test_case_and_punctuation_hide_nothing():
    texts = [inside([w.upper() + "," for w in ITEMS[7]], 77), *CLEAN]
    finding = only(scan(pa.table({"text": texts}), CHECK, suites=(SUITE,)), "LEAK004")
    assert list(finding.rows) == [0]
    assert finding.severity is Severity.WARNING, "one item among 300 may be an accident"


def test_chinese_items_are_found_by_characters():
    rng = np.random.default_rng(0)
    han = [chr(c) for c in range(0x4E00, 0x4E00 + 1_500)]
    items = ["".join(rng.choice(han, 30)) for _ in range(40)]
    texts = ["".join(rng.choice(han, 200)) for _ in range(100)]
    texts[3] += items[5][:12] + "龙" + items[5][13:]
    suite = Registered("acme/kaoshi@1", pa.table({"q": items}))
    assert list(only(scan(pa.table({"text": texts}), CHECK, suites=(suite,)), "LEAK004").rows) == [3]


def test_the_same_rows_give_the_same_findings_however_they_are_cut():
    table = pa.table({"text": CLEAN + planted(0.1)})
    whole = only(scan(table, CHECK, suites=(SUITE,)), "LEAK004")
    from dataset_guard.checks.base import CheckContext

    context = CheckContext(schema=table.schema, suites=(SUITE,))
    first, second = CHECK.start(context), CHECK.start(context)
    for start in (0, 130, 260, 390, 410):
        stop = {0: 130, 130: 260, 260: 390, 390: 410, 410: 500}[start]
        (second if start % 260 else first).update(
            table.slice(start, stop - start).combine_chunks().to_batches()[0], start, None, None
        )
    second.merge(first)
    (cut,) = second.finish()
    assert (cut.rows, cut.evidence, cut.score) == (whole.rows, whole.evidence, whole.score)


def test_without_a_suite_the_check_says_that_it_was_skipped():
    result = scan(pa.table({"text": CLEAN}), CHECK)
    assert rules(result) == []
    assert result.checks[0]["skipped"] == "no evaluation suite was named (--eval)"


def test_items_too_short_to_tell_are_not_looked_for():
    suite = Registered("acme/short@1", pa.table({"q": ["which of these is true", CLEAN[0][:300]]}))
    texts = ["and which of these is true then", *CLEAN[1:]]
    assert rules(scan(pa.table({"text": texts}), Contamination(), suites=(suite,))) == []


def test_a_suite_without_text_is_refused_in_one_sentence():
    suite = Registered("acme/numbers@1", pa.table({"q": [1, 2]}))
    with pytest.raises(UserError, match=r"acme/numbers@1 has no column of text"):
        scan(pa.table({"text": CLEAN}), CHECK, suites=(suite,))
