"""One setting of quotas.yaml changes; every other byte stays."""

from __future__ import annotations

import pytest
import yaml

from compute_guard.quota.edit import UNSET, edited
from guard_core.errors import UserError

QUOTAS = """\
# kept
cohorts: {}
queues:
  vision:
    tenant: vision   # whose
    weight: 2
    flavors:
      - {name: h100, resources: {gpu_milli: {nominal: 8000, borrowing_limit: null}}}
      - name: a100
        resources:
          gpu_milli: {nominal: 16000, borrowing_limit: null}
    resources:
      jobs: {nominal: 50}
      cpu_milli:
        nominal: 256000  # half of what there is
        borrowing_limit: 0
    preemption: {then: requeue}

  other:
    tenant: other
    resources: {jobs: {nominal: 1}}
"""


@pytest.mark.parametrize(
    ("queue", "what", "value", "old", "new"),
    [
        ("vision", "weight", 3, "weight: 2", "weight: 3"),
        ("vision", "cpu_milli.nominal", 1000, "nominal: 256000  # half", "nominal: 1000  # half"),
        ("vision", "cpu_milli.borrowing_limit", None, "borrowing_limit: 0", "borrowing_limit: null"),
        ("vision", "gpu_milli@h100.nominal", 1, "{nominal: 8000,", "{nominal: 1,"),
        ("vision", "gpu_milli@a100.nominal", 2, "{nominal: 16000,", "{nominal: 2,"),
        ("vision", "preemption.then", "end", "then: requeue", "then: end"),
        (
            "vision",
            "preemption.grace_seconds",
            9,
            "{then: requeue}",
            "{then: requeue, grace_seconds: 9}",
        ),
        (
            "vision",
            "cpu_milli.lending_limit",
            7,
            "        borrowing_limit: 0\n",
            "        borrowing_limit: 0\n        lending_limit: 7\n",
        ),
        (
            "vision",
            "budget.gpu_hours",
            500,
            "{then: requeue}\n",
            "{then: requeue}\n    budget: {gpu_hours: 500, half_life_hours: 168}\n",
        ),
        (
            "other",
            "custom_license.nominal",
            3000,
            "{jobs: {nominal: 1}}",
            "{jobs: {nominal: 1}, custom_license: {nominal: 3000, borrowing_limit: 0, lending_limit: 0}}",
        ),
        (
            "other",
            "per_user.jobs",
            1,
            "{jobs: {nominal: 1}}\n",
            "{jobs: {nominal: 1}}\n    per_user: {jobs: 1}\n",
        ),
    ],
)
def test_one_setting_changes_and_every_other_byte_stays(queue, what, value, old, new):
    assert QUOTAS.count(old) == 1
    text, _ = edited(QUOTAS, queue, what, value)
    assert text == QUOTAS.replace(old, new)


def test_what_it_was_is_said_and_what_was_not_written_is_called_so():
    assert edited(QUOTAS, "vision", "weight", 3)[1] == 2
    assert edited(QUOTAS, "vision", "cpu_milli.borrowing_limit", 3)[1] == 0
    assert edited(QUOTAS, "vision", "budget.gpu_hours", 3)[1] == UNSET


def test_a_budget_that_was_ended_can_be_given_again():
    text, _ = edited(QUOTAS, "vision", "budget.gpu_hours", 500)
    ended, _ = edited(text, "vision", "budget", None)
    again, _ = edited(ended, "vision", "budget.gpu_hours", 20)
    assert yaml.safe_load(again)["queues"]["vision"]["budget"] == {"gpu_hours": 20, "half_life_hours": 168}


@pytest.mark.parametrize(
    ("queue", "what", "words"),
    [
        ("nobody", "weight", "there is no queue 'nobody'; quotas.yaml has vision, other"),
        ("vision", "gpu_milli@h200.nominal", "did you mean gpu_milli@h100.nominal"),
        ("vision", "gpu_milli.nominal", "did you mean gpu_milli@"),
        ("vision", "per_user.tpus", "no setting"),
        (
            "vision",
            "tpu",
            "RESOURCE.nominal | borrowing_limit | lending_limit of jobs, cpu_milli, gpu_milli@h100",
        ),
        ("vision", "budget.half_life_hours", "set budget.gpu_hours first"),
    ],
)
def test_an_unknown_queue_or_setting_is_one_sentence(queue, what, words):
    with pytest.raises(UserError) as error:
        edited(QUOTAS, queue, what, 1)
    assert words in str(error.value)
