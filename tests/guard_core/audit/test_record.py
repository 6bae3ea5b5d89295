import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_core.audit import record

names = st.from_regex(r"[a-z][^\ud800-\udfff]*", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(body=st.dictionaries(names, values, max_size=6), seq=st.integers(0, 10**12))
def test_whatever_is_written_is_read_back_and_its_frame_needs_no_parser(body, seq):
    prev = "ab" * 32
    line, digest = record.encode(body, seq=seq, prev=prev)
    assert record.frame(line) == (digest, prev, seq)
    assert record.content_hash(line) == digest
    assert record.decode(line) == {**body, "_hash": digest, "_prev": prev, "_seq": seq}
    assert line.count(b"\n") == 1


def test_the_hash_is_that_of_the_same_json_without_it_so_any_tool_can_check_it():
    line, digest = record.encode(
        {"kind": "x", "now_ns": 1795410499927729000, "who": "Ünal"}, seq=3, prev="0" * 64
    )
    value = json.loads(line)
    del value["_hash"]
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_an_integer_beyond_a_double_is_kept_exactly():
    line, _ = record.encode({"now_ns": 1795410499927729001}, seq=0, prev=record.GENESIS)
    assert record.decode(line)["now_ns"] == 1795410499927729001


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes"])
def test_a_value_that_json_cannot_carry_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        record.encode({"value": value}, seq=0, prev=record.GENESIS)


@pytest.mark.parametrize("name", ["_seq", "_", "0", "A", ""])
def test_a_body_cannot_stand_in_the_frame(name):
    with pytest.raises(ValueError, match="lower-case"):
        record.encode({name: 5}, seq=0, prev=record.GENESIS)


def test_half_a_surrogate_pair_in_a_name_stops_no_record():
    line, digest = record.encode({"path": "caf\udce9"}, seq=0, prev=record.GENESIS)
    assert record.content_hash(line) == digest
    assert record.decode(line)["path"] == "caf\udce9"


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b'{"_hash":"' + b"0" * 300 + b"}\n", b"\0" * 400])
def test_a_line_that_is_no_record_is_called_that(line):
    with pytest.raises(record.BadRecord):
        record.frame(line)
