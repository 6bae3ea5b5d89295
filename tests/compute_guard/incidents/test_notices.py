"""Notices hold facts, deadlines and no data; they are drafts."""

from __future__ import annotations

import pytest

from compute_guard.incidents import notices
from compute_guard.incidents.store import Incidents
from compute_guard.incidents.words import LANGUAGES
from guard_core.errors import UserError


@pytest.fixture
def incident(still_home, seen):
    return Incidents(still_home).observe(seen("telemetry", "indicator"))


@pytest.mark.parametrize(
    ("audience", "language", "phrases"),
    [
        (
            "customer",
            "en",
            ["Notice of abnormal compute use", "suspected cryptocurrency mining", "2 independent"],
        ),
        ("customer", "zh", ["算力异常使用通知", "疑似加密货币挖矿", "独立证据来源 2 个"]),
        ("regulator", "en", ["T1496.001", "Root cause", "1 tenant, 1 job, 1 device"]),
        ("regulator", "zh", ["T1496.001", "根本原因", "1 个加速卡"]),
    ],
)
def test_each_notice_states_its_facts_in_its_language(still_home, incident, audience, language, phrases):
    text = notices.render(audience, language, incident, now=still_home.clock())
    for phrase in (*phrases, incident.id, "2026-01-02T00:00:00.000000Z"):
        assert phrase in text
    assert "EXERCISE" not in text
    assert "演练" not in text


@pytest.mark.parametrize("audience", notices.AUDIENCES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_exercise_says_so_in_its_first_line(still_home, seen, audience, language):
    made_up = Incidents(still_home).observe(seen("telemetry", synthetic=True))
    first = notices.render(audience, language, made_up, now=still_home.clock()).splitlines()[0]
    assert first.startswith(("**EXERCISE", "**演练"))


def test_the_deadline_is_the_operators(still_home, incident):
    hours = {"customer": 2, "regulator": 6}
    text = notices.render("regulator", "en", incident, deadline_hours=hours, now=still_home.clock())
    assert "2026-01-01T06:00:00.000000Z" in text


def test_only_steps_that_were_done_are_claimed(still_home, incident):
    def step(state):
        return {
            "level": 5, "action": "stop", "state": state, "decision_id": "dec-1",
            "executed_at": "2026-01-01T00:00:01Z", "requested_at": "2026-01-01T00:00:00Z", "undone_at": None,
        }  # fmt: skip

    done = notices.render("customer", "en", incident, [step("done")], now=still_home.clock())
    failed = notices.render("customer", "en", incident, [step("failed")], now=still_home.clock())
    assert "job stopped (2026-01-01T00:00:01Z)" in done
    assert "job stopped" not in failed
    assert "Nothing beyond recording so far" in failed


def test_another_audience_or_language_is_refused_with_the_list(still_home, incident):
    with pytest.raises(UserError, match="customer, regulator"):
        notices.render("press", "en", incident, now=still_home.clock())
    with pytest.raises(UserError, match="en, zh"):
        notices.render("customer", "de", incident, now=still_home.clock())
