"""The embedded engine answers, and every kind of trouble is an answer with an error."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
from types import MappingProxyType
from typing import Any

import pytest

from guard_core.errors import UserError
from guard_core.findings import Enforcement
from guard_core.policy.bundle import Bundle, make_bundle
from guard_core.policy.decision import Answer, Decision
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.thread_engine import ThreadEngine, _left_over


def bundle(rego: str, **config: Any) -> Bundle:
    return make_bundle({"guard/t/t.rego": "package guard.t\n" + rego}, config)


def ask(rego: str, **question: Any) -> Answer:
    return EmbeddedEngine(bundle(rego)).evaluate("guard/t/decision", question)


def decision(answer: Answer) -> Decision:
    return Decision(
        decision_id="d",
        path="guard/t/decision",
        value=answer.value,
        defined=answer.defined,
        error=answer.error,
        revision=answer.revision,
        engine="embedded",
        enforcement=Enforcement.ENFORCED,
    )


def test_it_answers_with_the_rules_value_and_the_revision_that_gave_it() -> None:
    policy = bundle('decision := {"allow": input.n == data.guard.config.n}', n=3)
    answer = EmbeddedEngine(policy).evaluate("guard/t/decision", {"n": 3})
    assert (answer.value, answer.defined, answer.error) == ({"allow": True}, True, None)
    assert answer.revision == policy.revision


def test_an_undefined_rule_is_undefined_and_not_the_text_undefined() -> None:
    assert not ask("decision := 1 if input.x").defined
    answer = ask('decision := "<undefined>"')
    assert (answer.defined, answer.value) == (True, "<undefined>")


@pytest.mark.parametrize(
    ("rego", "said"),
    [
        ("decision := count(input.n)", "t.rego:2"),  # a builtin given the wrong type
        ('decision := strings.count("a", "")', "decision"),  # regorus panics: PanicException is no Exception
        ("decision := no_such_function(1)", "no_such_function"),
        ("decision := 1\ndecision := 2", "conflict"),
    ],
)
def test_every_fault_is_an_error_and_so_a_denial_that_is_undecidable(rego: str, said: str) -> None:
    answer = ask(rego, n=1)
    assert answer.error is not None
    assert said in answer.error
    assert "Stack backtrace" not in answer.error
    assert not decision(answer).allow
    assert decision(answer).undecidable


def test_after_a_panic_the_engine_still_answers() -> None:
    engine = EmbeddedEngine(
        bundle('decision := strings.count(input.s, "") if input.s\nfine := {"allow": true}')
    )
    assert engine.evaluate("guard/t/decision", {"s": "x"}).error
    assert engine.evaluate("guard/t/fine", {}).value == {"allow": True}


@pytest.mark.parametrize(
    "question",
    [
        {"x": 1.5},
        {"x": float("nan")},
        {"x": 2**63},
        {"x": "\ud800"},
        {"x": "nul\x00"},
        {1: "x"},
        {"x": b"bytes"},
        {"x": object()},
    ],
)
def test_a_question_engines_would_read_differently_is_not_asked(question: dict[Any, Any]) -> None:
    engine = EmbeddedEngine(bundle("decision := 1"))
    for asked in (question, {"a": [{"b": question}]}, {"a": (question,)}, {"a": MappingProxyType(question)}):
        answer = engine.evaluate("guard/t/decision", asked)
        assert answer.error is not None
        assert "cannot be asked" in answer.error


def test_a_question_that_spells_a_nul_character_out_is_asked() -> None:
    assert ask("decision := input.x", x="\\u0000 é").value == "\\u0000 é"


def test_a_question_nested_too_deep_is_not_asked() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    assert "nested deeper" in (ask("decision := 1", x=deep).error or "")


@pytest.mark.parametrize(
    "path", ["", "guard/t/../decision", "guard/t/decision;1", "data.guard", "guard//t", 'a["b"]']
)
def test_a_path_is_names_only(path: str) -> None:
    answer = EmbeddedEngine(bundle("decision := 1")).evaluate(path, {})
    assert answer.error is not None


def test_times_in_nanoseconds_are_exact() -> None:
    later = 1_790_000_000_000_000_001
    assert ask("decision := input.a - input.b", a=later, b=later - 1).value == 1


def test_threads_share_an_engine_although_regorus_does_not() -> None:
    engine = EmbeddedEngine(bundle("decision := input.n + 1"))
    answers: dict[int, Answer] = {}

    def run(n: int) -> None:
        answers[n] = engine.evaluate("guard/t/decision", {"n": n})

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: a.value for n, a in answers.items()} == {n: n + 1 for n in range(8)}


def test_a_new_bundle_is_in_force_for_every_thread_at_once() -> None:
    engine = EmbeddedEngine(bundle("decision := 1"))
    asked = threading.Barrier(2)
    seen: list[Any] = []

    def other() -> None:
        seen.append(engine.evaluate("guard/t/decision", {}).value)
        asked.wait()
        asked.wait()
        seen.append(engine.evaluate("guard/t/decision", {}).value)

    thread = threading.Thread(target=other)
    thread.start()
    asked.wait()
    engine.activate(bundle("decision := 2"))
    asked.wait()
    thread.join()
    assert seen == [1, 2]


def test_a_bundle_that_does_not_compile_leaves_the_old_one_in_force() -> None:
    engine = EmbeddedEngine(bundle("decision := 1"))
    before = engine.revision
    with pytest.raises(UserError, match=r"t\.rego:2"):
        engine.activate(bundle("decision := := 2"))
    assert engine.revision == before
    assert engine.evaluate("guard/t/decision", {}).value == 1


def test_an_engine_travels_to_another_process() -> None:
    engine = pickle.loads(pickle.dumps(EmbeddedEngine(bundle("decision := data.guard.config.n", n=7))))
    assert engine.evaluate("guard/t/decision", {}).value == 7


def test_an_engine_collected_by_another_thread_is_freed_by_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    gc.collect()  # what earlier tests left is freed here, not in the other thread
    left = [EmbeddedEngine(bundle("decision := 1"))]
    assert left[0].evaluate("guard/t/decision", {}).value == 1

    def collect() -> None:
        left.clear()
        gc.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    assert len(_left_over().engines) == 1
    EmbeddedEngine(bundle("decision := 2"))
    gc.collect()
    assert _left_over().engines == []
    assert complaints == []


def test_a_thread_that_ends_takes_its_engine_along(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    left = [EmbeddedEngine(bundle("decision := 1"))]
    thread = threading.Thread(target=left[0].evaluate, args=("guard/t/decision", {}))
    thread.start()
    thread.join()
    del thread
    left.clear()
    gc.collect()
    assert complaints == []


def test_an_engine_that_outlives_its_thread_is_left_without_a_complaint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    kept: list[ThreadEngine] = []

    def make() -> None:
        for _ in range(2):
            kept.append(ThreadEngine({"t.rego": "package guard.t\n\ndecision := 1\n"}))
            assert kept[-1].eval_rule_as_json("data.guard.t.decision") == "1"

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    kept.clear()
    gc.collect()
    assert complaints == []
