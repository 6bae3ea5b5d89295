"""What a decision reads of its input: never less than it really does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard_core.policy.bundle import make_bundle
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.lifecycle.input_use import InputUse, input_use

LIB = """package guard.lib.x

deep := input.deep.er

unused := input.secret

f(x) := x.y

g(_) := input.through.a_function
"""


def use(body: str, *, head: str = "", config: dict[str, Any] | None = None) -> InputUse:
    text = f"package guard.t\n\nimport data.guard.lib.x\n{head}\n{body}\n"
    return input_use({"t.rego": text, "x.rego": LIB}, "guard/t/decision", config=config)


@pytest.mark.parametrize(
    ("body", "whole", "typed"),
    [
        ("decision := input.a.b", {"a.b"}, set()),
        ('decision := input["a"].b', {"a.b"}, set()),
        ("decision := input.a[i].b if some i in [1]", {"a"}, set()),
        ("decision if is_number(input.now_ns)", set(), {"now_ns"}),
        ("decision if is_number(input.now_ns + 1)", {"now_ns"}, set()),
        ('decision := object.get(input.a, "k", input.b)', {"a.k", "b"}, {"a"}),
        ("decision := object.get(input.a, input.k, 1)", {"a", "k"}, set()),
        ("decision := x.deep", {"deep.er"}, set()),
        ("decision := data.guard.lib.x.deep", {"deep.er"}, set()),
        ("decision := x.f(input.a)", {"a"}, set()),
        ("decision := x.g(1)", {"through.a_function"}, set()),
        ("decision := other\n\nother := input.o", {"o"}, set()),
        ("decision := [v | some v in input.list]", {"list"}, set()),
        ("decision if every v in input.list { v > input.least }", {"list", "least"}, set()),
        ("decision if not input.a.b", {"a.b"}, set()),
        ("decision := 1 if input.a else := 2 if input.b", {"a", "b"}, set()),
        ("decision := data.guard.config.tenants[input.t]", {"t"}, set()),
        ("decision := {input.key: input.value}", {"key", "value"}, set()),
        ('decision := sprintf("%v", [input.a])', {"a"}, set()),
        ("decision := data.guard.lib", {"deep.er", "secret", "through.a_function"}, set()),
        ("decision := data.guard.lib[input.k].deep", {"deep.er", "secret", "through.a_function", "k"}, set()),
        ("decision := 1", set(), set()),
    ],
)  # fmt: skip
def test_it_finds_what_is_read(body: str, whole: set[str], typed: set[str]) -> None:
    found = use(body)
    assert {".".join(p) for p in found.whole} == whole
    assert {".".join(p) for p in found.typed} == typed
    assert not found.everything


@pytest.mark.parametrize(
    "body",
    [
        "decision := input",
        "decision := input[k] if some k in [1]",
        "decision := count(input)",
        "decision := x.f(input)",
        "decision if other with input.a as 1\n\nother := input.a",
        "decision := [v | walk(input, [_, v])]",
    ],
)
def test_in_doubt_everything_is_read(body: str) -> None:
    assert use(body).everything


def test_an_import_of_a_part_of_the_input_is_that_part() -> None:
    assert use("decision := p.user", head="import input.principal as p").whole == {("principal", "user")}


def test_what_is_said_of_members_of_an_empty_collection_is_not_read() -> None:
    body = (
        "decision if {\n\tsome w in data.guard.config.waivers.waivers\n\tinput.now_ns < w.until\n}\n"
        "\ndecision if input.a"
    )
    assert use(body, config={"waivers": {"waivers": []}}).whole == {("a",)}
    assert use(body, config={"waivers": {"waivers": [{"until": 3}]}}).whole == {("a",), ("now_ns",)}
    assert use(body, config={}).whole == {("a",), ("now_ns",)}, "unknown data may hold anything"


def test_a_masked_field_touches_what_is_above_and_below_it() -> None:
    found = InputUse(frozenset({("a", "b")}), frozenset({("t",), ("n", "m")}))
    for part in (("a",), ("a", "b"), ("a", "b", "c"), ("t",), ("n",), ("n", "m")):
        assert found.touches(part), part
    for part in (("b",), ("a", "c"), ("t", "below"), ("n", "k")):
        assert not found.touches(part), part


RULES = """package guard.t

decision := {
	"number": is_number(input.a),
	"string": is_string(input.a),
	"b": object.get(input.b, "c", "none"),
	"tags": count(tags),
	"d": d,
}

tags contains tag if some tag in input.tags

default d := "none"

d := input.d.e if input.d.e != "x"
"""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "y"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcdetags"), inner, max_size=3)
    ),
    max_leaves=6,
)
INPUTS = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "tags", "other"]), VALUES)


@cache
def _asked() -> tuple[EmbeddedEngine, Callable[[Any], Any]]:
    """An engine with the rules, and what counts of its inputs: the same for every example."""
    bundle = make_bundle({"t.rego": RULES}, {"tenants": {}})
    return EmbeddedEngine(bundle), input_use(bundle.modules, "guard/t/decision").projector()


@settings(max_examples=300, deadline=None)
@given(st.lists(INPUTS, min_size=2, max_size=12))
def test_inputs_that_count_alike_are_answered_alike(inputs: list[dict[str, Any]]) -> None:
    engine, counted = _asked()
    answers: dict[str, Any] = {}
    for question in inputs:
        answer = engine.evaluate("guard/t/decision", question)
        said = (answer.value, answer.defined, answer.error is None)
        assert answers.setdefault(repr(_sorted(counted(question))), said) == said


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
