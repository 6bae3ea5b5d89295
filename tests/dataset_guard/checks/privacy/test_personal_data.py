"""Numbers of persons are told by their check digits; other numbers that look like them are not."""

import json
import random
import sysconfig
from pathlib import Path

import pyarrow as pa
import pytest
from check_kit import only, rules, scan
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.privacy.numbers import bank_account, payment_card, resident_id
from dataset_guard.checks.privacy.personal_data import CHECK
from guard_core.findings import Severity


def digits(rng, number: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(number))


def right_one(start: str, ends, accepts) -> str:
    """``start`` with the one end that makes its check digits right."""
    return next(start + end for end in ends if accepts(start + end))


def make_resident_id(rng) -> str:
    born = f"{rng.randrange(1940, 2010)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
    return right_one(
        f"{rng.choice([11, 31, 44, 51])}{digits(rng, 4)}{born}{digits(rng, 3)}", "0123456789X", resident_id
    )


def make_card(rng) -> str:
    return right_one(
        rng.choice(["4", "52", "62"]).ljust(2, "7") + digits(rng, 13), "0123456789", payment_card
    )


def make_iban(rng) -> str:
    body = digits(rng, 18)
    return next(t for t in (f"DE{n:02d}{body}" for n in range(2, 99)) if bank_account(t))


def make_phone(rng) -> str:
    return f"1{rng.choice('3589')}{digits(rng, 9)}"


def make_mail(rng) -> str:
    return f"ada.{digits(rng, 4)}@mail{digits(rng, 2)}.org"


MAKERS = {
    "resident_id": make_resident_id,
    "payment_card": make_card,
    "bank_account": make_iban,
    "mobile_number": make_phone,
    "email_address": make_mail,
}


def texts(rows) -> pa.Table:
    return pa.table({"text": pa.array(list(rows), pa.string())})


_AROUND = st.text(st.characters(exclude_categories=["Cs", "N"]), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(MAKERS)),
    seed=st.integers(0, 2**32),
    others=st.lists(st.one_of(st.none(), _AROUND, st.just("12")), max_size=5),
    at=st.integers(0, 5),
    before=_AROUND,
    after=_AROUND,
)
def test_a_planted_number_is_found_wherever_it_stands(kind, seed, others, at, before, after):
    value = MAKERS[kind](random.Random(seed))
    at = min(at, len(others))
    rows = [*others[:at], f"{before}: {value}; {after}", *others[at:]]
    finding = only(scan(texts(rows), CHECK), "PRIV010")
    assert finding.severity is Severity.WARNING
    assert list(finding.rows) == [at]
    assert finding.evidence["kinds"] == {kind: 1}


@pytest.mark.parametrize("kind", MAKERS)
def test_digits_of_neighbour_rows_do_not_count(kind):
    value = MAKERS[kind](random.Random(1))
    assert list(only(scan(texts(["77", value, "42"]), CHECK), "PRIV010").rows) == [1]
    assert rules(scan(texts([value[:9], value[9:]]), CHECK)) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{0:.4}-{0:.4}".format("x"), None),
        ("card 4539 5787 6362 1486.", "payment_card"),
        ("card 4539-5787-6362-1486", "payment_card"),
        ("DE12 5001 0517 0648 4898 90 is mine", "bank_account"),
        ("phone +86 138-0013-9000", "mobile_number"),
        ("call 8613800139000 now", "mobile_number"),
        ("<First.Last+tag@Mail.Uni-Bonn.DE>", "email_address"),
    ],
)
def test_usual_ways_of_writing_are_understood(text, kind):
    told = [next(iter(f.evidence["kinds"])) for f in scan(texts([text]), CHECK).findings]
    assert told == ([] if kind is None else [kind])


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111",
        "GB82 WEST 1234 5698 7654 32",
        "someone@example.com, root@localhost, a@b.test",
        "2023-01-01 12:00:00 1700000000 1700000000123",
        "0.4539578763621486 and 4539578763621486.25",
        "commit 45395787636214861234567 is longer",
        "@decorator.name, x @ y.z, git@host:repo",
        "11010119990230001X has no such day of birth",
    ],
)
def test_examples_times_and_other_numbers_raise_nothing(text):
    assert rules(scan(texts([text]), CHECK)) == []


@pytest.mark.parametrize(
    "start", ["4", "62", "1", ""], ids=["like Visa", "like UnionPay", "like phones", "any number"]
)
def test_a_column_of_order_numbers_is_not_believed_for_chance_hits(start):
    rng = random.Random(4)
    size = 11 if start == "1" else 16
    rows = [start + digits(rng, size - len(start)) for _ in range(5_000)]
    assert "payment_card" not in str([f.evidence for f in scan(texts(rows), CHECK).findings])
    if start == "":
        assert rules(scan(texts(digits(rng, 11) for _ in range(5_000)), CHECK)) == []


def test_cards_among_few_order_numbers_are_reported_with_their_share_of_chance():
    rng = random.Random(5)
    rows = [make_card(rng) for _ in range(100)] + ["4" + digits(rng, 15) for _ in range(100)]
    finding = only(scan(texts(rows), CHECK), "PRIV010")
    truly_by_chance = (finding.count - 100) / finding.count
    assert finding.fdr == pytest.approx(truly_by_chance, abs=0.06)


def test_the_batches_do_not_matter_nor_the_order_of_merging():
    rng = random.Random(6)
    rows = [MAKERS[k](rng) for k in sorted(MAKERS) * 40]
    table = texts([*rows, *rows[:30], None, "", "4" + digits(rng, 15)])
    context = CheckContext(schema=table.schema)
    states = []
    for start, stop in ((0, 11), (11, 120), (120, table.num_rows)):
        states.append(CHECK.start(context))
        batch = table.slice(start, stop - start).combine_chunks().to_batches()[0]
        states[-1].update(batch, start, None, None)
    states[1].merge(states[2])
    states[1].merge(states[0])
    merged = {f.message: (f.rows, f.count, f.fdr, f.evidence) for f in states[1].finish()}
    whole = {f.message: (f.rows, f.count, f.fdr, f.evidence) for f in scan(table, CHECK).findings}
    assert merged == whole
    assert len(whole) == 5


def test_ordinary_text_holds_no_numbers_of_persons():
    """The standard library's sources: real e-mail addresses of authors, and nothing else."""
    documents = [
        p.read_text(errors="replace") for p in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    ]
    kinds = [k for f in scan(texts(documents), CHECK).findings for k in f.evidence["kinds"]]
    assert kinds == ["email_address"]


def test_no_part_of_a_number_is_in_the_finding():
    rng = random.Random(7)
    made = [MAKERS[k](rng) for k in sorted(MAKERS)]
    told = json.dumps([f.to_json() for f in scan(texts(made), CHECK).findings])
    assert told.count("PRIV010") == len(MAKERS)
    assert not any(value[i : i + 5] in told for value in made for i in range(len(value) - 4))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("call +44 20 7946 0958 today", "phone_number"),
        ("tel: +1 (415) 555-2671.", "phone_number"),
        ("+4915123456789", "phone_number"),
        ("护照号码：E12345678。", "passport_number"),
        ("Passport No. GB1234567 expires", "passport_number"),
        ("ssn 536-90-4399", "us_social_security_number"),
        ("pay 1BoatSLRHtKNngkdXEeobR76b53LETtpyT now", "wallet_address"),
        ("lives at 221 Baker Street, London", "postal_address"),
        ("地址：上海市黄浦区南京东路299号", "postal_address"),
    ],
)
def test_international_kinds_are_told(text, kind):
    assert kind in only(scan(texts([text]), CHECK), "PRIV010").evidence["kinds"]


@pytest.mark.parametrize(
    "text",
    [
        "x = a +352364506 - 1",
        "+999 12 345 678",
        "+1 415 555",
        "invoice E12345678",
        "666-12-1234 and 123-00-4567",
        "1BoatSLRHtKNngkdXEeobR76b53LETtpyX",
        "on 10 May street vendors",
        "第299号文件",
    ],
)
def test_what_only_resembles_them_is_not(text):
    assert rules(scan(texts([text]), CHECK)) == []
