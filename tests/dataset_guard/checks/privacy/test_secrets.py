"""Planted secrets are found wherever they stand, ordinary text is left alone, and no value gets out."""

import json
import random
import string
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from check_kit import only, rules, scan
from hypothesis import given, settings
from hypothesis import strategies as st
from made_secrets import MAKERS, json_web_token, pick, private_key

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.privacy.secret_kinds import DOCUMENTED
from dataset_guard.checks.privacy.secrets import CHECK, Secrets
from guard_core.findings import Severity

BASE62 = string.ascii_letters + string.digits


def texts(*rows) -> pa.Table:
    return pa.table({"text": pa.array(rows, pa.string())})


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_is_critical_and_told_by_name_and_row(kind):
    rng = random.Random(kind)
    rows = ["Nothing here.", "", None, f"see {MAKERS[kind](rng)} and go on", "nor here"]
    finding = only(scan(texts(*rows), CHECK), "PRIV001")
    assert finding.severity is Severity.CRITICAL
    assert list(finding.rows) == [3]
    assert finding.columns == ("text",)
    assert finding.evidence == {"kinds": {kind: 1}, "distinct": 1}


_AROUND = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(MAKERS)),
    seed=st.integers(0, 2**32),
    others=st.lists(st.one_of(st.none(), _AROUND), max_size=6),
    at=st.integers(0, 6),
    before=_AROUND,
    after=_AROUND,
)
def test_a_planted_secret_is_found_wherever_it_stands(kind, seed, others, at, before, after):
    secret = MAKERS[kind](random.Random(seed))
    at = min(at, len(others))
    rows = [*others[:at], f"{before} {secret} {after}", *others[at:]]
    finding = only(scan(texts(*rows), CHECK), "PRIV001")
    assert list(finding.rows) == [at]
    assert kind in finding.evidence["kinds"]


@pytest.mark.parametrize("kind", MAKERS)
def test_neither_neighbour_row_hides_a_secret_nor_helps_to_make_one(kind):
    secret = MAKERS[kind](random.Random(1))
    assert list(only(scan(texts("word", secret, "word"), CHECK), "PRIV001").rows) == [1]
    halves = [secret[: len(secret) // 3], secret[len(secret) // 3 :]]
    found = scan(texts("x", *halves, "x"), CHECK).findings
    assert not [f for f in found if f.severity is Severity.CRITICAL]


def test_a_hit_that_straddles_two_rows_does_not_hide_the_one_inside_it():
    key = MAKERS["aws_access_key_id"](random.Random(2))
    assert list(only(scan(texts("AKI", key), CHECK), "PRIV001").rows) == [1]
    assert list(only(scan(texts("AKIA", key, "AKIA"), CHECK), "PRIV001").rows) == [1]


SECRET = MAKERS["stripe_key"](random.Random(3))


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.binary_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_every_layout_of_text_is_read(kind):
    rows = ["a", SECRET, None, "b", SECRET]
    if "binary" in str(kind):
        rows = [r and r.encode() for r in rows]
    for column in (
        pa.array(rows, kind),
        pa.array(["skip", *rows] if isinstance(rows[0], str) else [b"", *rows], kind)[1:],
    ):
        finding = only(scan(pa.table({"c": column}), CHECK), "PRIV001")
        assert list(finding.rows) == [1, 4]
        assert finding.evidence == {"kinds": {"stripe_key": 2}, "distinct": 1}


NESTED = {
    "list": pa.array([["a"], None, [], ["b", SECRET]], pa.list_(pa.string())),
    "large list": pa.array([["a"], None, [], ["b", SECRET]], pa.large_list(pa.string())),
    "list view": pa.array([["a"], None, [], ["b", SECRET]], pa.list_view(pa.string())),
    "fixed-size list": pa.array([["a", "b"], None, ["c", "d"], ["b", SECRET]], pa.list_(pa.string(), 2)),
    "struct": pa.array([{"a": "x"}, None, {"a": None}, {"a": SECRET}]),
    "list of structs": pa.array([[{"a": "x"}], None, [], [{"a": None}, {"a": SECRET}]]),
    "map": pa.array([[("k", "v")], None, [], [("k", SECRET)]], pa.map_(pa.string(), pa.string())),
    "list of dictionaries": pa.array(
        [["a"], None, [], ["a", SECRET]], pa.list_(pa.dictionary(pa.int8(), pa.string()))
    ),
    "run ends": pc.run_end_encode(pa.array(["a", "a", "a", SECRET])),
    "chat messages": pa.array(
        [[], None, [{"role": "user", "content": ["hello"]}], [{"role": "user", "content": ["x", SECRET]}]]
    ),
}


@pytest.mark.parametrize("shape", NESTED)
def test_text_inside_nested_columns_is_read(shape):
    assert list(only(scan(pa.table({"c": NESTED[shape]}), CHECK), "PRIV001").rows) == [3]


def state_over(column) -> list:
    batch = pa.record_batch({"c": column})
    state = CHECK.start(CheckContext(schema=batch.schema))
    state.update(batch, 0, None, None)
    return [list(f.rows) for f in state.finish()]


@pytest.mark.parametrize("shape", NESTED)
def test_a_slice_of_a_nested_column_counts_from_its_own_start(shape):
    assert state_over(NESTED[shape][2:]) == [[1]]
    assert state_over(NESTED[shape][:3]) == []


@pytest.mark.parametrize("mode", ["dense", "sparse"])
def test_unions_are_read(mode):
    codes = pa.array([0, 1, 0], pa.int8())
    if mode == "dense":
        offsets = pa.array([0, 0, 1], pa.int32())
        column = pa.UnionArray.from_dense(codes, offsets, [pa.array(["x", SECRET]), pa.array([1])])
    else:
        column = pa.UnionArray.from_sparse(codes, [pa.array(["x", SECRET, SECRET]), pa.array([1, 2, 3])])
    assert state_over(column) == [[2]]
    assert state_over(column[1:]) == [[1]]


def test_bytes_under_a_null_are_not_text():
    whole = pa.array(["a", SECRET, "b"])
    masked = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(bytes([0b101])), *whole.buffers()[1:]])
    assert state_over(masked) == []


def test_a_dictionary_value_that_no_row_uses_is_no_finding():
    assert state_over(pa.array(["a", SECRET], pa.dictionary(pa.int8(), pa.string()))[:1]) == []


@pytest.mark.parametrize(
    "text",
    [
        *[d.decode() for d in sorted(DOCUMENTED)],
        *[f"aws_secret_access_key = {d.decode()}" for d in sorted(DOCUMENTED)],
        "ghp_" + "x" * 36,
        "sk-" + "0" * 32,
        "postgres://user:password@localhost/db",
        "postgres://user:${DB_PASSWORD}@db.internal/orders",
        "redis://:<password>@cache:6379",
        "https://example.com/a:b@c",
        "token = tokenizer_v2_from_pretrained_2024_01",
        "password: please-choose-a-long-one-2024",
        "api_key = 123e4567-e89b-12d3-a456-426614174000",
        "-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
        "A key file starts with -----BEGIN PRIVATE KEY----- and goes on with base64 of the DER encoding.",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA" + "Ab3" * 14 + "\n-----END PUBLIC KEY-----",
        json_web_token(random.Random(0), claims={"sub": "1234567890", "name": "John Doe"}),
        json_web_token(random.Random(0), header={"typ": "JWT"}),
        json_web_token(random.Random(0), header=[1]),
        "task-list-item-checkbox-wrapper-outer-long-name, risk-based-authentication-for-everyone",
    ],
)
def test_examples_and_placeholders_are_no_secrets(text):
    assert rules(scan(texts("before", text, "after"), CHECK)) == []


def test_a_key_in_escaped_json_or_a_url_is_found():
    key = MAKERS["github_token"](random.Random(5))
    pem = private_key(random.Random(5))
    rows = [
        json.dumps({"text": f"line\n{key}\nline"}),
        f"https://x.org/?q=%20{key}%20",
        json.dumps({"key": pem}),
    ]
    assert list(only(scan(texts(*rows), CHECK), "PRIV001").rows) == [0, 1, 2]


def test_random_values_beside_a_telling_name_are_warnings():
    rng = random.Random(6)
    rows = [
        f'api_key = "{pick(rng, BASE62, 32)}"',
        f"PASSWORD: {pick(rng, BASE62, 24)}",
        f"clientSecret => '{pick(rng, '0123456789abcdef', 40)}'",
        f'{{"auth_token": "{pick(rng, BASE62 + "_-", 43)}"}}',
    ]
    finding = only(scan(texts("x", *rows), CHECK), "PRIV002")
    assert finding.severity is Severity.WARNING
    assert list(finding.rows) == [1, 2, 3, 4]
    quiet = Secrets(assigned_values=False)
    assert rules(scan(texts("x", *rows), quiet)) == []


def test_a_known_kind_in_an_assignment_is_told_once():
    rng = random.Random(7)
    row = f'github_token = "{MAKERS["github_token"](rng)}"'
    assert only(scan(texts(row), CHECK), "PRIV001").evidence["kinds"] == {"github_token": 1}


def test_a_token_whose_check_digits_are_wrong_is_only_a_warning():
    token = MAKERS["github_token"](random.Random(8))
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert only(scan(texts(wrong), CHECK), "PRIV001").severity is Severity.WARNING


def test_the_batches_do_not_matter_nor_the_order_of_merging():
    rng = random.Random(9)
    rows = [MAKERS[k](rng) if i % 3 else "ordinary words" for i, k in enumerate(sorted(MAKERS) * 12)]
    table = texts(*rows, *rows[:50])
    context = CheckContext(schema=table.schema)
    states = []
    for start, stop in ((0, 7), (7, 150), (150, table.num_rows)):
        states.append(CHECK.start(context))
        batch = table.slice(start, stop - start).combine_chunks().to_batches()[0]
        states[-1].update(batch, start, None, None)
    states[1].merge(states[2])
    states[1].merge(states[0])
    merged = [(f.rows, f.count, f.evidence, f.message) for f in states[1].finish()]
    whole = [(f.rows, f.count, f.evidence, f.message) for f in scan(table, CHECK).findings]
    assert merged == whole


def test_ordinary_text_raises_nothing():
    """The sources and docstrings of the standard library, sklearn's data descriptions, and licences."""
    import sklearn

    places = [Path(sysconfig.get_path("stdlib")), Path(sklearn.__file__).parent / "datasets"]
    files = [
        p for pattern in ("*.py", "*.rst", "*.csv", "*.txt") for place in places for p in place.glob(pattern)
    ]
    files += [p for p in Path(sysconfig.get_path("purelib")).glob("*/licenses/*") if p.is_file()]
    documents = [p.read_text(errors="replace") for p in sorted(files)]
    lines = [line for d in documents for line in d.splitlines()]
    assert sum(map(len, documents)) > 4_000_000
    assert rules(scan(texts(*documents), CHECK)) == []
    assert rules(scan(texts(*lines), CHECK)) == []


def test_no_part_of_a_secret_is_in_the_finding():
    rng = random.Random(10)
    made = [MAKERS[k](rng) for k in sorted(MAKERS)] + [f"password={pick(rng, BASE62, 24)}"]
    told = json.dumps([f.to_json() for f in scan(texts(*made), CHECK).findings])
    for secret in made:
        body = "".join(secret.split())
        assert not any(body[i : i + 6] in told for i in range(len(body) - 30, len(body) - 5) if i >= 12)
        assert secret not in told


def test_rows_are_right_in_later_batches_and_after_nulls():
    rows: list = [None if i % 7 == 0 else "plain text: \u5bc6\u94a5" for i in range(70_000)]
    for at in (3, 65_535, 65_536, 69_999):
        rows[at] = f"\u5bc6\u94a5\uff1a{SECRET}\u3002\u8c22\u8c22"
    assert list(only(scan(texts(*rows), CHECK), "PRIV001").rows) == [3, 65_535, 65_536, 69_999]


def test_many_rows_are_counted_all_and_listed_up_to_the_bound():
    table = pa.table({"c": pa.array([SECRET, "x"] * 120_000)})
    finding = only(scan(table, CHECK), "PRIV001")
    assert finding.count == 120_000
    assert finding.evidence == {"kinds": {"stripe_key": 120_000}, "distinct": 1, "rows_listed": 100_000}
    assert len(finding.rows) == 100_000
    assert max(finding.rows) == 199_998


def test_numbers_skip_the_check():
    assert (
        CHECK.applies(CheckContext(schema=pa.schema([("a", pa.int64())]))) == "there is no column with text"
    )


def test_only_the_named_columns_are_read():
    table = pa.table({"a": [SECRET], "b": [SECRET]})
    assert only(scan(table, Secrets(columns=("b",))), "PRIV001").columns == ("b",)
