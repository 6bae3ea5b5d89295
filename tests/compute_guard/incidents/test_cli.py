"""``trainguard incident | response | drill`` as people and scripts use them."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import timedelta

import pytest

from compute_guard.incidents.store import Incidents
from guard_core.cli import main
from guard_core.storage.tables import IncidentRow


@pytest.fixture
def trainguard(capsys, monkeypatch):
    """Runs a command; gives exit status, stdout and stderr."""

    def call(*args, token=None):
        if token is not None:
            monkeypatch.setenv("TRAINGUARD_TOKEN", token)
        try:
            status = main([str(a) for a in args])
        except SystemExit as end:
            status = end.code
        finally:
            monkeypatch.delenv("TRAINGUARD_TOKEN", raising=False)
        out = capsys.readouterr()
        return status, out.out, out.err

    return call


@pytest.fixture
def drilled(trainguard, home_dir):
    """The id of an incident that a drill left."""
    status, out, _ = trainguard("drill", "run", "mining-capped", "--tenant", "canary", "--format", "json")
    assert status == 0
    return json.loads(out)["incident"]


def test_a_drill_runs_from_the_command_line_and_its_incident_can_be_read(trainguard, drilled):
    status, out, _ = trainguard("incident", "list", "--format", "json")
    assert status == 0
    assert [i["id"] for i in json.loads(out) if i["kind"] == "mining"] == [drilled]
    _, out, _ = trainguard("incident", "show", drilled)
    assert out.startswith("EXERCISE")
    _, out, _ = trainguard("incident", "show", drilled, "--format", "json")
    assert {a["action"] for a in json.loads(out)["actions"]} == {"record", "notify", "acknowledge", "stop"}
    _, out, _ = trainguard("incident", "show", drilled, "--format", "html", "--lang", "zh")
    assert out.count("<svg") == 6


def test_a_drill_on_a_tenant_that_is_no_canary_is_denied(trainguard, home_dir):
    status, out, err = trainguard("drill", "run", "mining-capped", "--tenant", "acme")
    assert (status, out) == (1, "")
    assert "canary" in err


def test_a_misspelt_drill_is_the_users_mistake(trainguard, home_dir):
    status, _, err = trainguard("drill", "run", "mining", "--tenant", "canary")
    assert status == 2
    assert "there is no drill 'mining'" in err


def test_evidence_is_exported_and_changed_evidence_is_not(trainguard, drilled, home_dir, tmp_path):
    target = tmp_path / "case.tar"
    status, out, _ = trainguard("incident", "export", drilled, "--output", target)
    assert (status, out.strip()) == (0, str(target))
    with tarfile.open(fileobj=io.BytesIO(target.read_bytes())) as tar:
        assert f"{drilled}/notices/regulator.zh.md" in tar.getnames()
    (home_dir / "incidents" / drilled / "notices" / "regulator.zh.md").write_text("nothing happened")
    status, _, err = trainguard("incident", "export", drilled, "--output", tmp_path / "b.tar")
    assert status == 1
    assert "regulator.zh.md was changed" in err
    assert not (tmp_path / "b.tar").exists()


def test_a_tenant_sees_its_own_incidents_and_not_that_others_exist(trainguard, home, seen):
    mine = Incidents(home).observe(seen("telemetry"))
    theirs = Incidents(home).observe(seen("telemetry", tenant="beta", job="job-b"))
    token = home.credentials.issue(tenant="acme", user="alice")
    _, out, _ = trainguard("incident", "list", "--format", "json", token=token)
    assert [i["id"] for i in json.loads(out)] == [mine.id]
    assert trainguard("incident", "show", theirs.id, token=token)[0] == 2
    assert trainguard("incident", "ack", mine.id, token=token)[:2] == (0, f"{mine.id} warning acknowledged\n")
    status, _, err = trainguard("incident", "resolve", mine.id, "--note", "nothing", token=token)
    assert status == 1
    assert "may not resolve" in err
    assert trainguard("incident", "ack", mine.id, "--confirm", token=token)[0] == 1


def test_a_waiting_step_is_approved_by_another_person_from_the_command_line(trainguard, home, seen):
    found = Incidents(home).observe(seen("telemetry", "indicator"))
    status, out, err = trainguard("response", "request", found.id, 4)
    assert status == 1
    assert "0 of 1 approvals given" in err
    step = out.split()[0]
    assert trainguard("response", "approve", step)[0] == 1  # the one who asked
    token = home.credentials.issue(tenant="acme", user="bob", roles=("incident-approver",))
    status, _, err = trainguard("response", "approve", step, token=token)
    assert "there is no cluster" in err  # approved and tried: only the cluster is missing here
    _, out, _ = trainguard("response", "ladder", "--format", "json")
    (stored,) = json.loads(out)["actions"]
    assert stored["state"] == "failed"
    assert [a["by"] for a in stored["result"]["approvals"]] == ["bob"]


def test_a_dry_run_lists_what_would_be_done_and_what_it_lacks(trainguard, home, seen):
    found = Incidents(home).observe(seen("telemetry", "indicator"))
    status, out, _ = trainguard("response", "dry-run", found.id)
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()][-1] == ["5", "stop", "dry-run"]
    _, out, _ = trainguard("response", "dry-run", found.id, "--level", 7)
    assert "0 of 2 approvals given" in out


def test_the_kill_switch_is_turned_by_admins_only(trainguard, home):
    assert trainguard("response", "kill-switch", "on")[1] == "on\n"
    token = home.credentials.issue(tenant="acme", user="alice")
    assert trainguard("response", "kill-switch", "off", token=token)[0] == 1
    assert trainguard("response", "kill-switch")[1] == "on\n"
    assert trainguard("response", "kill-switch", "off")[1] == "off\n"


def test_an_incident_or_action_nobody_knows_is_the_users_mistake(trainguard, home_dir):
    assert trainguard("incident", "show", "inc-0")[0] == 2
    assert trainguard("response", "undo", "act-0")[0] == 2


def test_a_notice_has_a_deadline_until_somebody_says_that_it_left(trainguard, home, seen, home_dir):
    found = Incidents(home).observe(seen("telemetry", "indicator"))
    at = home.clock() - timedelta(hours=30)
    with home.storage.session() as session:
        session.get(IncidentRow, found.id).opened_at = at
    _, listed, _ = trainguard("incident", "list")
    assert "notice overdue: customer, regulator" in listed
    status, out, _ = trainguard("incident", "sent", found.id, "--to", "regulator", "--note", "by courier")
    assert (status, found.id in out) == (0, True)
    _, shown, _ = trainguard("incident", "show", found.id)
    assert "notice to the customer: due by" in shown
    assert "(overdue)" in shown
    assert "notice to the regulator: sent 20" in shown
    _, again, _ = trainguard("incident", "sent", found.id, "--to", "regulator")
    assert again == out  # the first time counts
    _, raw, _ = trainguard("incident", "show", found.id, "--format", "json")
    assert [(n["audience"], n["overdue"]) for n in json.loads(raw)["notices"]] == [
        ("customer", True),
        ("regulator", False),
    ]
    (told,) = home.audit.records(kind="notice.sent")
    assert (told["subject"], told["data"]["audience"]) == (found.id, "regulator")


def test_only_a_responder_releases_a_notice(trainguard, home, seen):
    found = Incidents(home).observe(seen("telemetry", "indicator"))
    token = home.credentials.issue(tenant="acme", user="ada")
    status, _, words = trainguard("incident", "sent", found.id, "--to", "customer", token=token)
    assert status == 1
    assert "release a notice" in words
