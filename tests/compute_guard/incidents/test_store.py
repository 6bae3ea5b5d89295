"""One incident per tenant, job and kind, whatever flickers, races or crashes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from compute_guard.incidents.incident import State, severity_of
from compute_guard.incidents.store import Incidents
from guard_core.audit.verify import verify
from guard_core.errors import UserError


@pytest.mark.parametrize(
    ("channels", "invariant", "confirmed", "severity"),
    [
        (["telemetry"], False, False, "warning"),
        (["telemetry", "telemetry"], False, False, "warning"),
        (["telemetry", "indicator"], False, False, "incident"),
        (["process"], True, False, "incident"),
        (["telemetry"], False, True, "incident"),
    ],
)
def test_only_two_channels_an_invariant_or_a_person_make_an_incident(
    channels, invariant, confirmed, severity
):
    assert severity_of(channels, invariant=invariant, confirmed=confirmed) == severity


def test_opening_twice_gives_the_same_incident(still_home, seen):
    incidents = Incidents(still_home)
    assert incidents.observe(seen("telemetry")).id == incidents.observe(seen("telemetry")).id
    assert len(incidents.list()) == 1
    assert len(list(still_home.audit.records(kind="incident.opened"))) == 1


def test_many_threads_that_see_it_at_once_open_one(still_home, seen):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(Incidents(still_home).observe(seen("telemetry")).id))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert len(Incidents(still_home).list()) == 1


def test_evidence_grows_and_severity_rises_but_never_falls(still_home, seen):
    incidents = Incidents(still_home)
    assert incidents.observe(seen("telemetry")).severity == "warning"
    grown = incidents.observe(seen("indicator", devices=("node-1/GPU-2",), score=900))
    assert (grown.severity, grown.score) == ("incident", 900)
    assert grown.channels == ("indicator", "telemetry")
    assert grown.evidence["devices"] == ["node-1/GPU-1", "node-1/GPU-2"]
    assert incidents.observe(seen("telemetry", score=100)).severity == "incident"
    assert [r["data"]["severity"] for r in still_home.audit.records(kind="incident.grew")] == ["incident"]


def test_an_incident_that_only_goes_on_is_not_rewritten_every_scrape(still_home, seen, clock):
    incidents = Incidents(still_home)
    opened = incidents.observe(seen("telemetry")).updated_at
    clock.advance(seconds=15)
    assert incidents.observe(seen("telemetry")).updated_at == opened
    clock.advance(seconds=60)
    assert incidents.observe(seen("telemetry")).updated_at > opened


def test_a_persons_confirmation_makes_it_an_incident_and_survives_the_monitor(still_home, seen, clock):
    incidents = Incidents(still_home)
    found = incidents.observe(seen("telemetry"))
    who = still_home.principal()
    confirmed = incidents.acknowledge(found.id, who, confirm=True, note="looked at it")
    assert (confirmed.severity, confirmed.state) == ("incident", State.ACKNOWLEDGED)
    clock.advance(seconds=120)
    after = incidents.observe(seen("telemetry"))
    assert after.evidence["confirmed_by"] == who.user
    assert after.evidence["history"][0]["note"] == "looked at it"


def test_states_go_forward_only(still_home, seen):
    incidents = Incidents(still_home)
    found = incidents.observe(seen("telemetry", "indicator"))
    incidents.contain(found.id, action_id="act-1")
    assert incidents.acknowledge(found.id, still_home.principal()).state is State.CONTAINED
    assert incidents.resolve(found.id, by=still_home.principal(), note="done").state is State.RESOLVED


def test_a_warning_closes_by_itself_and_an_incident_waits_for_a_person(still_home, seen):
    incidents = Incidents(still_home)
    warning = incidents.observe(seen("telemetry"))
    assert incidents.resolve(warning.id, by=None).closed_at is not None
    serious = incidents.observe(seen("telemetry", "indicator"))
    with pytest.raises(UserError, match="a person must resolve it"):
        incidents.resolve(serious.id, by=None)


def test_after_it_was_resolved_the_same_abuse_is_a_new_incident(still_home, seen):
    incidents = Incidents(still_home)
    first = incidents.observe(seen("telemetry"))
    incidents.resolve(first.id, by=None)
    second = incidents.observe(seen("telemetry"))
    assert first.id != second.id
    assert [i.id for i in incidents.list(open_only=True)] == [second.id]


def test_beyond_its_daily_budget_a_tenants_warnings_are_marked(still_home, seen, clock):
    incidents = Incidents(still_home, budget_per_day=2)
    over = [incidents.observe(seen("telemetry", job=f"job-{n}")).evidence["over_budget"] for n in range(4)]
    assert over == [False, False, True, True]
    assert not incidents.observe(seen("telemetry", tenant="beta")).evidence["over_budget"]
    clock.advance(seconds=86_400)
    assert not incidents.observe(seen("telemetry", job="job-9")).evidence["over_budget"]


def test_an_incident_nobody_knows_is_refused(still_home):
    with pytest.raises(UserError, match="there is no incident 'inc-0'"):
        Incidents(still_home).get("inc-0")


def test_mitre_techniques_and_provenance_are_in_the_json(still_home, seen):
    shown = Incidents(still_home).observe(seen("telemetry", synthetic=True)).to_json()
    assert shown["mitre_techniques"] == ["T1496.001"]
    assert shown["synthetic"] is True


def test_the_audit_log_is_whole_after_all_of_it(still_home, seen):
    incidents = Incidents(still_home)
    found = incidents.observe(seen("telemetry", "indicator"))
    incidents.resolve(found.id, by=still_home.principal(), note="x")
    assert verify(still_home.path("audit"), verifier=still_home.signer.verifier).ok


def test_kill_9_between_record_and_row_loses_nothing_and_doubles_nothing(still_home, seen):
    code = """
    import os, signal, sys
    from compute_guard.incidents import rows as incident_rows
    from compute_guard.incidents.store import Incidents
    from compute_guard.incidents.observations import Observation
    from guard_core.home import Home
    def die(found):
        os.kill(os.getpid(), signal.SIGKILL)
    incident_rows._row = die  # the record is written, the row is not
    home = Home.open()
    seen = Observation(tenant="acme", job="job-1", kind="mining", rule_ids=("USAG001",),
        channels={"telemetry": {"message": "m", "score": 1}}, devices=("n/g",), score=1, invariant=False,
        synthetic=False, at_ns=0)
    Incidents(home).observe(seen)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    incidents = Incidents(still_home)
    assert incidents.list() == []
    opened = incidents.observe(seen("telemetry"))
    recorded = {r["subject"] for r in still_home.audit.records(kind="incident.opened")}
    assert recorded == {opened.id}  # the record of before is about the very incident that exists now
