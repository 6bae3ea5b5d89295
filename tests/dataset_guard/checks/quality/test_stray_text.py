"""One word among numbers makes a whole column text: which rows hold it."""

import re
from itertools import pairwise

import pyarrow as pa
import pytest
from check_kit import only, rules, scan
from hypothesis import given
from hypothesis import strategies as st

from dataset_guard.checks.quality import stray_text
from dataset_guard.checks.quality.number_words import NO_VALUE, NO_VALUE_WORDS, NUMBER, OTHER, kinds_of
from dataset_guard.checks.quality.stray_text import CHECK
from guard_core.findings import Severity

NUMBERS = [str(n) for n in range(40)]
PLAIN = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def table(values):
    return pa.table({"v": pa.array(values, pa.string())})


def test_words_for_no_value_are_an_info_with_their_rows():
    finding = only(scan(table([*NUMBERS, "NA", None, " n/a "]), CHECK), "QUAL014")
    assert (finding.severity, list(finding.rows)) == (Severity.INFO, [40, 42])
    assert finding.evidence == {"numbers": 40, "no_value": 2, "other": 0}


def test_other_text_among_numbers_is_a_warning():
    finding = only(scan(table(["12 kg", *NUMBERS, "?"]), CHECK), "QUAL014")
    assert (finding.severity, list(finding.rows)) == (Severity.WARNING, [0, 41])


def test_the_values_themselves_are_not_told():
    finding = only(scan(table(["hush", *NUMBERS]), CHECK), "QUAL014")
    assert "hush" not in str(finding.to_json())


@pytest.mark.parametrize(
    "values",
    {
        "numbers alone": NUMBERS,
        "few numbers": ["1", "2", "NA"],
        "a column of text with numbers in it": [*NUMBERS, *"abcdef"],
        "words alone": ["NA"] * 50,
        "text": ["one", "two"] * 30,
    }.values(),
)
def test_a_column_of_one_kind_is_no_finding(values):
    assert rules(scan(table(values), CHECK)) == []


def test_dictionaries_slices_and_nulls_are_read_as_they_are():
    values = pa.array(["x", *NUMBERS, None, "NA"], pa.string()).dictionary_encode().slice(1)
    finding = only(scan(pa.table({"v": values}), CHECK), "QUAL014")
    assert list(finding.rows) == [41]


def test_rows_beyond_the_limit_are_counted_and_the_first_ones_named_however_the_table_was_cut(monkeypatch):
    monkeypatch.setattr(stray_text, "LISTED", 3)
    values = table(["NA", *NUMBERS] * 5)
    findings = []
    for cuts in ((0, 205), (0, 50, 205), (0, 1, 164, 205)):
        states = []
        for first, end in pairwise(cuts):
            states.append(CHECK.start(stray_text.CheckContext(schema=values.schema)))
            for batch in values.slice(first, end - first).to_batches():
                states[-1].update(batch, first, None, None)
        last = states.pop()
        for state in states:
            last.merge(state)
        findings += last.finish()
    assert [(list(f.rows), f.count) for f in findings] == [([0, 41, 82], 5)] * 3


@given(st.lists(st.text(alphabet="0123456789+-.eE \t\n\x1axNA", max_size=9)))
def test_a_number_is_what_the_grammar_says(values):
    for value, kind in zip(values, kinds_of(pa.array(values, pa.string())), strict=True):
        stripped = value.strip(" \t\n")
        if PLAIN.fullmatch(stripped):
            assert kind == NUMBER
        else:
            assert kind == (NO_VALUE if stripped.lower() in ("", *NO_VALUE_WORDS) else OTHER)
