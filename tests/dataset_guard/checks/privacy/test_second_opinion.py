"""Presidio is shown the values that the first stage found, and says which it takes for such."""

import random

import pyarrow as pa
import pytest
from check_kit import only, rules, scan
from test_personal_data import make_card, make_iban

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.privacy.second_opinion import CHECK, SecondOpinion
from guard_core.findings import Severity

ASKED = SecondOpinion(most_values=20)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(4)
    cards = [f"第{i}单: please charge the card {make_card(rng)} today" for i in range(6)]
    accounts = [f"pay to {make_iban(rng)} before noon" for _ in range(4)]
    return [*cards, "nothing of the kind", *accounts, cards[0]]


def test_presidio_confirms_cards_and_accounts_by_kind(texts):
    result = scan(pa.table({"text": texts}), ASKED)
    told = {f.evidence["kind"]: f for f in result.findings}
    assert list(told["payment_card"].rows) == [0, 1, 2, 3, 4, 5]  # a value that comes again is asked once
    assert list(told["bank_account"].rows) == [7, 8, 9, 10]
    assert {f.severity for f in told.values()} == {Severity.INFO}
    assert told["bank_account"].evidence["confirmed_share_at_least"] == pytest.approx(0.5965, abs=1e-3)


def test_what_presidio_does_not_take_for_one_is_not_among_the_rows():
    # Eight digits behind a country code that assigns none of them: our first stage knows forms, not plans.
    table = pa.table({"text": ["call +49 30 901820 or", "ref +999 12 345 678 of"] * 2})
    finding = only(scan(table, ASKED), "PRIV011")
    assert list(finding.rows) == [0]


def test_the_sample_is_the_same_however_rows_were_cut(texts):
    few = SecondOpinion(most_values=2)
    context = CheckContext(schema=pa.schema({"text": pa.string()}))
    whole, first, second = (few.start(context) for _ in range(3))
    for state, low, high in ((whole, 0, len(texts)), (second, 6, len(texts)), (first, 0, 6)):
        state.update(pa.record_batch({"text": texts[low:high]}), low, None, None)
    second.merge(first)
    assert [f.to_json() for f in second.finish()] == [f.to_json() for f in whole.finish()]


def test_it_asks_only_when_it_is_told_to(texts):
    result = scan(pa.table({"text": texts}), CHECK)
    assert rules(result) == []
    assert "it is off" in result.checks[0]["skipped"]
