"""Two recorded inputs have one key exactly when they agree in what the policy reads of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from guard_core.policy.lifecycle.input_use import InputUse
from guard_core.policy.lifecycle.question_key import QuestionKey

USE = InputUse(
    whole=frozenset({("principal", "tenant"), ("workload", "requests")}),
    typed=frozenset({("now_ns",), ("principal", "user"), ("workload", "id")}),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "a", "é", "\ud800", '"}', "null"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
PARTS = st.fixed_dictionaries(
    {}, optional={"tenant": VALUES, "user": VALUES, "id": VALUES, "requests": VALUES}
)
INPUTS = st.fixed_dictionaries(
    {}, optional={"principal": PARTS | VALUES, "workload": PARTS | VALUES, "now_ns": VALUES, "odd": VALUES}
)


def raw(value: Any, *, ascii_only: bool = False) -> msgspec.Raw:
    """As a record writes it: sorted, without spaces, escaped only where it must be."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=ascii_only)
    try:
        return msgspec.Raw(text.encode())
    except UnicodeEncodeError:
        return raw(value, ascii_only=True)


@settings(max_examples=300, deadline=None)
@given(INPUTS, INPUTS)
def test_one_key_means_one_projection_and_the_other_way_round(one: Any, other: Any) -> None:
    key, projected = QuestionKey("guard/t/decision", USE), USE.projector()
    same = json.dumps(projected(one), sort_keys=True) == json.dumps(projected(other), sort_keys=True)
    if "\\ud800" in json.dumps([one, other]):  # not taken by the fast way: may be asked once more than needed
        assert same or key(raw(one)) != key(raw(other))
    else:
        assert (key(raw(one)) == key(raw(other))) == same


@given(VALUES.filter(lambda value: "\\ud800" not in json.dumps(value)))
def test_what_the_policy_does_not_read_changes_no_key(value: Any) -> None:
    key = QuestionKey("guard/t/decision", USE)
    question = {"principal": {"tenant": "acme", "user": "a", "roles": value}, "now_ns": 1, "odd": value}
    other = {"principal": {"tenant": "acme", "user": "b"}, "now_ns": 2}
    assert key(raw(question)) == key(raw(other))


def test_questions_to_different_rules_never_have_one_key() -> None:
    assert QuestionKey("guard/a/decision", USE)(raw({})) != QuestionKey("guard/b/decision", USE)(raw({}))


def test_where_everything_counts_every_byte_does() -> None:
    key = QuestionKey("guard/t/decision", InputUse(frozenset(), frozenset(), everything=True))
    assert key(raw({"a": 1})) != key(raw({"a": 2}))
    assert key(raw({"a": 1})) == key(raw({"a": 1}))
