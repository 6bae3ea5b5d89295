"""What would have been allowed is what the policy, asked again with other facts, did allow."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from guard_core.cli import main
from guard_core.findings import Enforcement
from guard_core.policy.bundle import load_bundle, shipped_policies
from guard_core.policy.counterfactual import MAX_ASKED, Search, search
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.explanation import explain
from guard_core.policy.moves import moves
from guard_core.policy.samples import read_samples

ADMISSION = "guard/compute/admission/decision"
USE = "guard/dataset/use/decision"
BUNDLE = load_bundle(shipped_policies())
SAMPLES = read_samples(shipped_policies())


class Policy:
    """The shipped policies, counting what they are asked."""

    def __init__(self) -> None:
        self.engine = EmbeddedEngine(BUNDLE)
        self.asked = 0

    def __call__(self, path: str, question: Any) -> Any:
        self.asked += 1
        answer = self.engine.evaluate(path, question)
        return answer.value if answer.defined and answer.error is None else None


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy()


def sample(path: str, title: str) -> dict[str, Any]:
    [found] = [s for s in SAMPLES if s.path == path and s.title == title]
    return deepcopy(dict(found.question))


def found(policy: Policy, path: str, question: dict[str, Any]) -> list[str]:
    result = search(policy, path, question, policy(path, question), BUNDLE.config)
    return [one.to_text() for one in result.found]


def test_every_change_that_is_printed_is_allowed_by_the_policy_and_leaves_the_question_as_it_was(
    policy: Policy,
) -> None:
    turned = 0
    for one in SAMPLES:
        recorded = policy(one.path, one.question)
        if not isinstance(recorded, dict) or recorded.get("allow") is True:
            continue
        before = deepcopy(dict(one.question))
        result = search(policy, one.path, one.question, recorded, BUNDLE.config)
        assert dict(one.question) == before
        assert result.asked <= MAX_ASKED
        assert bool(result.found) != bool(result.why_not)
        by_words = {move.sentence: move for move in moves(before, BUNDLE.config)}
        for counterfactual in result.found:
            changed = deepcopy(before)
            for sentence in counterfactual.sentences:
                by_words[sentence].apply(changed)
            assert policy(one.path, changed)["allow"] is True, (one.title, counterfactual)
        turned += bool(result.found)
    assert turned >= 40


def test_a_busy_queue_says_how_much_there_is_and_how_much_must_come_free(policy: Policy) -> None:
    question = sample(ADMISSION, "A job that fits, on a clean dataset")
    gpus = question["quota"]["resources"]["gpu_milli"]
    question["workload"]["requests"]["gpu_milli"] = 2000
    gpus |= {"requested": 2000, "used": 1500, "available": 500, "fits": False}
    assert found(policy, ADMISSION, question) == [
        "ask for at most 0.5 GPUs",
        "wait until 1.5 GPUs more are free in the queue",
    ]
    gpus |= {"used": 2000, "available": 0}
    assert found(policy, ADMISSION, question)[0] == "ask for no GPUs"


def test_two_things_wrong_take_two_changes_and_no_third_is_added(policy: Policy) -> None:
    question = sample(ADMISSION, "A job on a quarantined dataset")
    question["workload"]["runtime_env_fields"] = ["pip"]
    said = found(policy, ADMISSION, question)
    assert "leave pip out of the runtime environment, and run without dataset acme/digits@1" in said
    assert all(line.count(", and ") == 1 for line in said)


def test_approvals_are_asked_for_from_as_few_people_as_will_do(policy: Policy) -> None:
    said = found(
        policy,
        "guard/dataset/export/decision",
        sample("guard/dataset/export/decision", "Nobody exports alone"),
    )
    assert said
    assert all(line.startswith("have one more person with the role") for line in said)


def test_a_freeze_is_waited_out(policy: Policy) -> None:
    config = {
        **BUNDLE.config,
        "calendars": {
            "freezes": [{"title": "x", "from": "2026-11-20T00:00:00Z", "to": "2026-12-01T00:00:00Z"}]
        },
    }

    def ask(_path: str, question: Any) -> Any:
        return {"allow": question["now_ns"] >= 1_796_083_200 * 10**9, "deny": [], "hold": []}

    question = {"now_ns": 1_795_392_000 * 10**9}
    result = search(ask, "p/decision", question, ask("", question), config)
    assert [one.to_text() for one in result.found] == ["wait until 2026-12-01 00:00Z"]


def test_it_is_said_when_nothing_was_found_and_when_the_record_is_not_enough(policy: Policy) -> None:
    question = sample(USE, "A tenant the policy data does not know")
    result = search(policy, USE, question, policy(USE, question), BUNDLE.config)
    assert (result.found, "no change of at most 4 facts was found" in result.why_not) == ((), True)
    other = search(
        policy, USE, question, {"allow": False, "deny": [{"rule": "r", "msg": "m"}]}, BUNDLE.config
    )
    assert (other.found, other.asked) == ((), 1)
    assert "answers otherwise" in other.why_not


def test_the_search_is_bounded(policy: Policy) -> None:
    question = sample(ADMISSION, "A job on a quarantined dataset")
    question["workload"]["runtime_env_fields"] = [f"field_{n}" for n in range(30)]
    policy.asked = 0
    result = search(policy, ADMISSION, question, policy(ADMISSION, question), BUNDLE.config, most=50)
    assert result.found == ()
    assert policy.asked <= 52


def test_why_and_the_denial_itself_say_it(home: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa

    import dataset_guard

    decision = home.decide(
        USE,
        {
            "dataset": sample(USE, "The data changed after registration")["dataset"],
            "purpose": "train",
            "workload": None,
        },
        principal=home.principal(tenant="acme"),
        enforcement=Enforcement.COOPERATIVE,
    )
    would = explain(home, decision.decision_id).would
    assert would is not None
    assert would.found[0].to_text() == "have the registered data and record of dataset acme/digits@1 restored"
    assert main(["policy", "why", decision.decision_id]) == 0
    assert "allowed if you have the registered data" in capsys.readouterr().out

    dataset_guard.register(pa.table({"n": range(9)}), name="set", tenant="acme", home=home, checks=["schema"])
    assert main(["dataset", "share", "acme/set@1", "--to", "beta"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: acme/set@1 was not shared")
    assert said[1].startswith("allowed if you have one more person with the role")


def test_what_was_masked_on_writing_is_not_guessed(home: Any) -> None:
    decision = home.decide(
        USE, {"dataset": {"password": "x"}}, principal=home.principal(tenant="acme"),
        enforcement=Enforcement.COOPERATIVE,
    )  # fmt: skip
    would = explain(home, decision.decision_id).would
    assert isinstance(would, Search)
    assert would.found == ()
    assert "masked" in would.why_not
