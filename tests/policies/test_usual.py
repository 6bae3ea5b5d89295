"""What is told apart first in the admission policy, for speed, is never anything that would be refused."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from tests.policies.test_parity import mutate, samples

from guard_core.policy.bundle import load_bundle, make_bundle, shipped_policies
from guard_core.policy.embedded import EmbeddedEngine

QUESTIONS = 400
ADMISSION = "guard/compute/admission"


@pytest.mark.parametrize("members", [None, {"alice": []}, {"bob": ["viewer"]}])
def test_nothing_is_refused_and_nothing_to_be_minded_of_a_job_as_usual(
    members: dict[str, list[str]] | None,
) -> None:
    shipped = load_bundle(shipped_policies())
    config: dict[str, Any] = json.loads(shipped.data_json)["guard"]["config"]
    for tenant in config["tenants"].values():
        tenant.update({} if members is None else {"members": members})
    # Without the short cut: the same policies, to which no job is as usual.
    whole = {
        name: text.replace("\nusual if {\n", "\nusual if {\n\tinput.principal.user == []\n")
        for name, text in shipped.modules.items()
    }
    assert whole != dict(shipped.modules)
    short, long = (
        EmbeddedEngine(make_bundle(dict(shipped.modules), config)),
        EmbeddedEngine(make_bundle(whole, config)),
    )
    rng, asked = random.Random(20261129), samples()[f"{ADMISSION}/decision"]
    usual = 0
    for _ in range(QUESTIONS):
        question = copy.deepcopy(rng.choice(asked))
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            mutate(rng, question, rng.choice(asked))
        told, whole_answer = (e.evaluate(f"{ADMISSION}/decision", question) for e in (short, long))
        assert (told.value, told.error) == (whole_answer.value, whole_answer.error), question
        usual += short.evaluate(f"{ADMISSION}/usual", question).value is True
    assert (usual > QUESTIONS // 5) == (members is None or "alice" in members)
