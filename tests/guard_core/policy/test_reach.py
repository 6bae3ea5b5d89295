"""A rule's engine holds every file the rule can reach: in doubt one too many, never one too few."""

from __future__ import annotations

import pytest

from guard_core.policy.bundle import load_bundle, make_bundle, shipped_policies
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.reach import reachable
from guard_core.policy.samples import read_samples
from guard_core.policy.thread_engine import ThreadEngine


def files(*bodies: str) -> dict[str, str]:
    return {f"{n}.rego": body for n, body in enumerate(bodies)}


def test_what_is_imported_or_named_is_reached_and_what_that_reaches_too() -> None:
    modules = files(
        "package guard.a\n\nimport data.guard.b\n\nx := b.x",
        "package guard.b\n\nx := data.guard.c.x",
        "package guard.c\n\nx := 1",
        "package guard.d\n\nx := data.guard.a.x",
        "package guard.c\n\ny := 2",
    )
    assert reachable(modules, "guard.a") == {"0.rego", "1.rego", "2.rego", "4.rego"}


@pytest.mark.parametrize(
    "reference",
    ['data["guard"].b.x', "data.guard[input.name].x", "data[input.root]", "{y | y := data}", "data.guard"],
)
def test_a_reference_that_is_computed_reaches_everything_it_may_name(reference: str) -> None:
    modules = files(f"package guard.a\n\nx := {reference}", "package guard.b\n\nx := 1")
    assert reachable(modules, "guard.a") == {"0.rego", "1.rego"}


@pytest.mark.parametrize(
    "text",
    ['"data.guard.b"', "`\ndata.guard.b`", '"\\"data.guard.b"', "1 # data.guard.b", "input.data.guard.b"],
)
def test_texts_comments_and_fields_are_no_references(text: str) -> None:
    modules = files(f"package guard.a\n\nx := {text}", "package guard.b\n\nx := 1")
    assert reachable(modules, "guard.a") == {"0.rego"}


def test_packages_above_and_below_belong_together() -> None:
    modules = files("package guard.a\n\nx := 1", "package guard.a.b\n\nx := 1", "package guard.ab\n\nx := 1")
    assert reachable(modules, "guard.a") == reachable(modules, "guard.a.b") == {"0.rego", "1.rego"}


def test_a_package_that_cannot_be_read_off_counts_always_and_an_unknown_one_reaches_nothing() -> None:
    strange = files("package guard.a\n\nx := 1", 'package guard["b"]\n\nx := 1')
    assert reachable(strange, "guard.a") == set(strange)
    assert reachable(files("package guard.a\n\nx := 1"), "guard.z") == frozenset()


def test_asked_of_few_files_or_of_all_the_answer_is_the_same() -> None:
    bundle = load_bundle(shipped_policies())
    few = EmbeddedEngine(bundle)
    together = make_bundle(
        {**bundle.modules, "guard/all.rego": 'package guard["all"]\n\nx := 1'}, dict(bundle.config)
    )
    assert reachable(together.modules, "guard.dataset.use") == set(together.modules)
    all_files = EmbeddedEngine(together)
    for sample in read_samples(shipped_policies()):
        answer = few.evaluate(sample.path, sample.question)
        expected = all_files.evaluate(sample.path, sample.question)
        assert (answer.value, answer.error) == (expected.value, expected.error), sample.name


def test_a_fault_costs_the_engine_that_met_it_and_not_the_data() -> None:
    engine = ThreadEngine({"t.rego": "package guard.t\n\nx := data.guard.config.n + count(input.n)"})
    engine.add_data_json('{"guard": {"config": {"n": 1}}}')
    engine.set_input_json('{"n": 1}')
    with pytest.raises(RuntimeError):
        engine.eval_rule_as_json("data.guard.t.x")
    engine.start_afresh()
    engine.set_input_json('{"n": [1, 2]}')
    assert engine.eval_rule_as_json("data.guard.t.x") == "3"
