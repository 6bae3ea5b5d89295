"""Drills come round by the calendar, on canaries only, and their last result is known."""

import json

import pytest

from compute_guard.drills.drill import run
from compute_guard.drills.schedule import latest, planned, run_due
from compute_guard.monitoring.metrics import exposition
from guard_core.cli import main
from guard_core.errors import Denied, UserError


@pytest.fixture
def scheduled(still_home, monkeypatch):
    data = still_home.policy_data()

    def plan(*entries):
        changed = {**data, "usage": {**data["usage"], "drills": list(entries)}}
        monkeypatch.setattr(type(still_home), "policy_data", lambda _: changed)

    return plan


WEEKLY = {"name": "mining-full", "tenant": "canary", "every_hours": 168}


def drilled(home, passed=True, name="drill-00019000000000-aa"):
    path = home.path("drills", f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"drill": "mining-full", "tenant": "canary", "passed": passed}))


def test_a_drill_that_never_ran_is_due_and_is_run_once(still_home, scheduled, clock):
    scheduled(WEEKLY)
    (plan,) = planned(still_home)
    assert plan.due(clock())
    (report,) = run_due(still_home, lambda n, t: run(still_home, n, t, cluster=None), clock())
    assert report.passed
    assert report.notices_ok
    (after,) = planned(still_home)
    assert after.passed is True
    assert not after.due(after.last)
    assert run_due(still_home, lambda *_: pytest.fail("not due"), after.last) == []


def test_a_tenant_that_is_no_canary_is_refused_whatever_the_schedule_says(still_home, scheduled, clock):
    scheduled({**WEEKLY, "tenant": "acme"}, WEEKLY)
    ran = []

    def one(name, tenant):
        ran.append(tenant)
        return run(still_home, name, tenant, cluster=None)

    with pytest.raises(Denied, match="canary: true"):
        run_due(still_home, one, clock())
    assert ran == ["acme", "canary"]  # the refused one kept the other from nothing
    assert set(latest(still_home)) == {("mining-full", "canary")}


def test_an_unknown_drill_is_named_and_a_damaged_report_is_due_again(still_home, scheduled, clock):
    scheduled({**WEEKLY, "name": "fire"})
    with pytest.raises(UserError, match="schedules drill 'fire'"):
        planned(still_home)
    drilled(still_home)
    still_home.path("drills", "drill-00019000000000-aa.json").write_text("{")
    assert latest(still_home) == {}


def test_the_last_result_is_a_metric(still_home, scheduled):
    scheduled(WEEKLY)
    drilled(still_home, passed=False)
    text = exposition(still_home)
    assert 'compute_guard_drill_passed{drill="mining-full",tenant="canary"} 0' in text
    assert "compute_guard_drill_age_seconds" in text


def test_the_command_shows_and_runs_what_is_due(home, home_dir, capsys):
    assert main(["drill", "due"]) == 0
    assert "no drills are scheduled" in capsys.readouterr().err
