"""The ladder: granted by policy, on record first, once, verified, undone, expired, braked; and kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import select

from compute_guard.admission.workload import WorkloadState
from compute_guard.incidents.incident import State
from compute_guard.incidents.store import Incidents
from compute_guard.ledger.store import Ledger
from compute_guard.response.actions import Actions, action_id
from compute_guard.response.clearance import KILL_SWITCH
from compute_guard.response.playbooks import LADDER, choose_playbook, plan
from compute_guard.response.responder import Responder
from guard_core.audit.verify import verify
from guard_core.config import load_settings
from guard_core.errors import Denied, UserError
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies
from guard_core.storage.tables import QueueHoldRow


@pytest.fixture
def mining(still_home, seen, waiting_job):
    """A confirmed mining incident about a waiting job of acme."""
    waiting_job()
    return Incidents(still_home).observe(seen("telemetry", "indicator"))


@pytest.fixture
def responder(still_home, cluster):
    return Responder(still_home, cluster)


def person(home, user, role="incident-approver", tenant="acme"):
    return home.credentials.verify(home.credentials.issue(tenant=tenant, user=user, roles=(role,)))


def state_of(home, job="job-1"):
    return Ledger(home.storage, home.clock).get(job).state


def held_queues(home):
    with home.storage.reading() as session:
        return sorted(session.scalars(select(QueueHoldRow.queue)))


def phases(home, action):
    records = home.audit.records(kind="response.action")
    return [r["data"]["phase"] for r in records if r["subject"] == action.id]


def test_a_confirmed_miner_is_stopped_by_the_playbook_and_seen_to_be_gone(still_home, responder, mining):
    steps = responder.respond(mining, still_home.principal())
    assert [(s.level, s.state) for s in steps] == [(0, "done"), (1, "done"), (2, "done"), (5, "done")]
    assert steps[-1].result["playbook"] == "confirmed-mining"
    assert steps[-1].result["verified"] is True
    assert state_of(still_home) is WorkloadState.EVICTED
    assert Incidents(still_home).get(mining.id).state is State.CONTAINED


def test_a_suspicion_is_notified_and_nothing_more(still_home, responder, seen, waiting_job):
    waiting_job()
    warning = Incidents(still_home).observe(seen("telemetry"))
    assert [s.level for s in responder.respond(warning, still_home.principal())] == [0, 1]
    assert state_of(still_home) is WorkloadState.PENDING


def test_over_its_budget_a_warning_is_only_recorded_but_an_incident_never_silenced(still_home, seen):
    incidents = Incidents(still_home, budget_per_day=0)
    assert plan(incidents.observe(seen("telemetry"))) == (0,)
    assert 5 in plan(incidents.observe(seen("telemetry", "indicator", job="job-2")))


def test_the_record_comes_before_the_effect(still_home, mining):
    order = []

    class Watching:
        def stop_job(self, submission_id, *, reason):
            order.extend(phases(still_home, Actions(still_home.storage, still_home.clock).get(key)))
            raise UserError("far enough")

    key = action_id(mining.id, 5, 0)
    Responder(still_home, Watching()).act(mining, 5, principal=still_home.principal())
    assert order == ["executing"]


def test_asking_again_does_it_once(still_home, mining):
    calls = []

    class Counting:
        def stop_job(self, submission_id, *, reason):
            calls.append(submission_id)
            return Stopped()

    class Stopped:
        def to_json(self):
            return {"verified": True}

    for _ in range(3):
        Responder(still_home, Counting()).respond(mining, still_home.principal())
    assert calls == ["job-1"]
    assert len(Actions(still_home.storage, still_home.clock).of(mining.id)) == 4


def test_a_stop_that_is_not_seen_to_have_worked_is_a_failure_and_tried_again_later(still_home, mining, clock):
    answers = iter([False, True])

    class Slow:
        def stop_job(self, submission_id, *, reason):
            answer = next(answers)

            class Stopped:
                def to_json(self):
                    return {"verified": answer}

            return Stopped()

    responder = Responder(still_home, Slow())
    first = responder.respond(mining, still_home.principal())[-1]
    assert (first.state, first.result["error"]) == ("failed", "it was not seen to have worked")
    assert Incidents(still_home).get(mining.id).state is State.OPEN
    assert responder.respond(mining, still_home.principal()) == []
    clock.advance(seconds=31)
    assert [s.state for s in responder.respond(mining, still_home.principal())] == ["done"]


def test_without_a_cluster_the_step_fails_with_a_reason(still_home, mining):
    step = Responder(still_home, None).act(mining, 5, principal=still_home.principal())
    assert step.state == "failed"
    assert "there is no cluster" in step.result["error"]


def test_a_step_that_failed_while_ray_was_away_is_tried_again_though_its_cause_is_out_of_sight(
    still_home, cluster, mining, clock
):
    who = still_home.principal()
    assert Responder(still_home, None).respond(mining, who)[-1].state == "failed"
    responder = Responder(still_home, cluster)
    assert responder.retry(who) == []  # not at every scrape
    clock.advance(seconds=31)
    (step,) = responder.retry(who)
    assert (step.level, step.state, step.result["error"]) == (5, "done", "")
    assert responder.retry(who) == []
    assert phases(still_home, step) == ["executing", "failed", "executing", "done"]


def test_a_failed_step_is_not_tried_again_after_the_incident_is_closed(still_home, cluster, mining, clock):
    who = still_home.principal()
    Responder(still_home, None).respond(mining, who)
    clock.advance(seconds=31)
    closed = Incidents(still_home).resolve(mining.id, by=who, note="a test of ours")
    assert Responder(still_home, cluster).retry(who) == []
    assert closed.state is State.RESOLVED


def test_a_failed_step_is_not_tried_for_ever(still_home, cluster, mining, clock):
    who = still_home.principal()
    Responder(still_home, None).respond(mining, who)
    clock.advance(seconds=3601)
    assert Responder(still_home, cluster).retry(who) == []


def test_a_job_of_another_tenant_is_never_touched(still_home, cluster, seen, waiting_job):
    waiting_job("theirs", tenant="beta")
    wrong = Incidents(still_home).observe(seen("telemetry", "indicator", job="theirs"))
    step = Responder(still_home, cluster).act(wrong, 5, principal=still_home.principal())
    assert step.state == "failed"
    assert "belongs to tenant beta" in step.result["error"]
    assert state_of(still_home, "theirs") is WorkloadState.PENDING


def test_suspending_waits_for_one_approval_of_another_person(still_home, responder, mining):
    waiting = responder.act(mining, 4, principal=still_home.principal())
    assert waiting.state == "waiting"
    done = responder.approve(waiting.id, person(still_home, "bob"))
    assert done.state == "done"
    assert done.result["queues"] == ["acme"]
    assert [a["by"] for a in done.approvals] == ["bob"]


def test_who_asked_cannot_approve(still_home, responder, mining):
    owner = still_home.principal()
    waiting = responder.act(mining, 4, principal=owner)
    with pytest.raises(Denied, match="cannot approve"):
        responder.approve(waiting.id, owner)
    with pytest.raises(Denied, match="cannot approve"):
        responder.approve(
            waiting.id, person(still_home, owner.user)
        )  # a second credential is no second person


def test_an_approval_without_a_role_or_by_a_job_or_for_another_tenant_counts_for_nothing(
    still_home, responder, mining
):
    waiting = responder.act(mining, 4, principal=still_home.principal())
    token = still_home.credentials.issue(
        tenant="acme", user="robot", roles=("incident-approver",), kind="job", workload="w"
    )
    nobodies = [
        person(still_home, "carol", "data-scientist"),
        person(still_home, "dave", "tenant-admin", "beta"),
        still_home.credentials.verify(token),
    ]
    for nobody in nobodies:
        with pytest.raises(Denied, match="no role whose approval counts"):
            responder.approve(waiting.id, nobody)
    assert Actions(still_home.storage, still_home.clock).get(waiting.id).state == "waiting"


def test_a_quarantine_needs_two_different_people(still_home, responder, mining):
    waiting = responder.act(mining, 6, principal=still_home.principal())
    assert responder.approve(waiting.id, person(still_home, "bob")).state == "waiting"
    assert responder.approve(waiting.id, person(still_home, "bob")).state == "waiting"
    assert responder.approve(waiting.id, person(still_home, "carol")).state == "done"


def test_an_old_approval_counts_no_more(still_home, responder, mining, clock):
    waiting = responder.act(mining, 6, principal=still_home.principal())
    responder.approve(waiting.id, person(still_home, "bob"))
    clock.advance(seconds=3601)
    assert responder.approve(waiting.id, person(still_home, "carol")).state == "waiting"


def test_an_approval_revives_no_request_of_a_revoked_credential(still_home, responder, mining):
    asker = person(still_home, "eve", "incident-responder", "local")
    waiting = responder.act(mining, 4, principal=asker)
    still_home.credentials.revoke(asker.credential_id)
    with pytest.raises(Denied, match="revoked"):
        responder.approve(waiting.id, person(still_home, "bob"))


def test_a_step_is_undone_and_may_be_asked_for_again(still_home, responder, mining):
    waiting = responder.act(mining, 4, principal=still_home.principal())
    done = responder.approve(waiting.id, person(still_home, "bob"))
    assert held_queues(still_home) == ["acme"]
    undone = responder.undo(done.id, still_home.principal())
    assert (undone.state, undone.result["undo"]["queues"]) == ("undone", ["acme"])
    assert held_queues(still_home) == []
    assert phases(still_home, undone)[-2:] == ["undoing", "undone"]
    again = responder.act(mining, 4, principal=still_home.principal())
    assert (again.id != done.id, again.state) == (True, "waiting")


def test_a_throttle_is_automatic_and_gives_the_old_priority_back(still_home, responder, mining):
    ledger = Ledger(still_home.storage, still_home.clock)
    ledger.note("job-1", priority=700)
    step = responder.act(mining, 3, principal=still_home.principal())
    assert (step.state, ledger.get("job-1").workload.priority) == ("done", 0)
    responder.undo(step.id, still_home.principal())
    assert ledger.get("job-1").workload.priority == 700


def test_what_has_an_end_ends_by_itself(still_home, responder, mining, clock):
    step = responder.act(mining, 3, principal=still_home.principal())
    assert responder.expire(still_home.principal()) == []
    clock.advance(seconds=4 * 3600)
    assert [(a.id, a.state) for a in responder.expire(still_home.principal())] == [(step.id, "expired")]


def test_a_stopped_job_cannot_be_unstopped_and_that_is_said(still_home, responder, mining):
    step = responder.act(mining, 5, principal=still_home.principal())
    with pytest.raises(UserError, match="no effect that could be taken back"):
        responder.undo(step.id, still_home.principal())


def test_a_dry_run_says_what_it_would_need_and_changes_nothing(still_home, responder, mining):
    step = responder.act(mining, 6, principal=still_home.principal(), dry_run=True)
    assert step.state == "dry-run"
    assert [r["rule"] for r in step.result["reasons"]] == ["approvals-missing"]
    assert Actions(still_home.storage, still_home.clock).of(mining.id) == []


def test_the_kill_switch_stops_every_effect_and_no_record(still_home, responder, mining):
    path = still_home.path(*KILL_SWITCH)
    path.parent.mkdir(parents=True)
    path.write_text("on")
    steps = responder.respond(mining, still_home.principal())
    assert [(s.level, s.state) for s in steps] == [(0, "done"), (1, "done"), (2, "done"), (5, "blocked")]
    assert state_of(still_home) is WorkloadState.PENDING


def test_made_up_telemetry_acts_on_canaries_only(still_home, cluster, seen, waiting_job):
    waiting_job()
    waiting_job("job-c", tenant="canary")
    store = Incidents(still_home)
    real_tenant = store.observe(seen("telemetry", "indicator", synthetic=True))
    canary = store.observe(seen("telemetry", "indicator", synthetic=True, tenant="canary", job="job-c"))
    responder, who = Responder(still_home, cluster), still_home.principal()
    assert responder.act(real_tenant, 5, principal=who).state == "blocked"
    assert state_of(still_home) is WorkloadState.PENDING
    assert responder.act(canary, 5, principal=who).state == "done"
    allowed = Responder(still_home, cluster, synthetic_may_act=True)
    assert allowed.act(real_tenant, 5, principal=who).state == "done"


def with_policies(tmp_path, home_dir, clock, **changes):
    """A home with a copy of the shipped policies, one data file changed."""
    import shutil

    folder = shutil.copytree(shipped_policies(), tmp_path / "policies")
    file = folder / "data" / "playbooks.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))
    return Home.open(load_settings(home=home_dir, policy={"dir": folder}), clock=clock)


class Cordons:
    """A cluster that remembers what it was told about nodes."""

    def __init__(self):
        self.told = []

    def cordon_node(self, node):
        self.told.append(("cordon", node))
        return {"verified": True, "node_id": "n1-id", "cpus": 1.0}

    def uncordon_node(self, node):
        self.told.append(("uncordon", node))
        return {"verified": True, "node_id": "n1-id", "cpus": 8.0}


def test_a_cordon_needs_two_people_is_renewed_ends_by_itself_and_rests_under_the_kill_switch(
    still_home, seen, waiting_job, clock
):
    waiting_job()
    incident = Incidents(still_home).observe(seen("telemetry", "indicator"))
    cluster = Cordons()
    responder = Responder(still_home, cluster)
    step = responder.act(incident, 7, principal=still_home.principal())
    assert responder.approve(step.id, person(still_home, "grace")).state == "waiting"
    assert responder.approve(step.id, person(still_home, "edsger")).state == "done"
    assert cluster.told == [("cordon", "node-1")]
    responder.renew()
    assert cluster.told[1:] == [("cordon", "n1-id")]
    switch = still_home.path(*KILL_SWITCH)
    switch.parent.mkdir(parents=True, exist_ok=True)
    switch.write_text("ada")
    responder.renew()
    assert len(cluster.told) == 2
    switch.unlink()
    clock.advance(seconds=24 * 3600 + 1)
    (ended,) = responder.expire(still_home.principal())
    assert (ended.state, cluster.told[2:]) == ("expired", [("uncordon", "n1-id")])
    responder.renew()
    assert len(cluster.told) == 3


def test_an_incident_on_several_nodes_cordons_none(still_home, seen, waiting_job):
    waiting_job()
    both = Incidents(still_home).observe(seen("telemetry", "indicator", devices=("n1/GPU-0", "n2/GPU-0")))
    cluster = Cordons()
    responder = Responder(still_home, cluster)
    step = responder.act(both, 7, principal=still_home.principal())
    responder.approve(step.id, person(still_home, "grace"))
    failed = responder.approve(step.id, person(still_home, "edsger"))
    assert (failed.state, cluster.told) == ("failed", [])
    assert "2 nodes" in failed.result["error"]


def test_the_blast_cap_counts_what_was_done_in_the_last_hour(tmp_path, home_dir, clock, seen):
    with with_policies(
        tmp_path, home_dir, clock, blast={"actions_per_hour": 1, "tenants_affected": 9}
    ) as home:
        from compute_guard.admission.workload import workload_from_submission
        from compute_guard.ray_plugin.jobs import RayCluster

        for job in ("job-1", "job-2"):
            spec = {"entrypoint": "python x.py"}
            workload = workload_from_submission(
                spec, submission_id=job, tenant="acme", user="a", queue="acme", created_ns=1
            )
            Ledger(home.storage, clock).add(workload)
        responder, store, who = Responder(home, RayCluster(home)), Incidents(home), home.principal()
        one = store.observe(seen("telemetry", "indicator"))
        two = store.observe(seen("telemetry", "indicator", job="job-2"))
        assert responder.act(one, 5, principal=who).state == "done"
        refused = responder.act(two, 5, principal=who)
        assert (refused.state, refused.result["reasons"][0]["rule"]) == ("denied", "blast-actions")
        clock.advance(seconds=3601)
        assert responder.act(two, 5, principal=who).state == "done"


def test_a_policy_engine_that_fails_is_a_no(still_home, mining, cluster, tmp_path, home_dir, clock):
    settings = load_settings(home=home_dir, policy={"engine": "server", "server_url": "http://127.0.0.1:9"})
    with Home.open(settings, clock=clock) as down:
        step = Responder(down, cluster).act(mining, 5, principal=down.principal())
    assert step.state == "denied"
    assert step.result["reasons"][0]["rule"] == "policy_unavailable"
    assert state_of(still_home) is WorkloadState.PENDING


def test_a_tenants_own_credential_may_not_respond(still_home, responder, mining):
    step = responder.act(mining, 0, principal=person(still_home, "mallory", "data-scientist"))
    assert step.state == "denied"


def test_a_level_that_does_not_exist_is_refused(still_home, responder, mining):
    with pytest.raises(UserError, match="from 0 to 7"):
        responder.act(mining, 8, principal=still_home.principal())


def test_a_playbook_covers_the_plan_and_not_what_someone_asks_for_besides(still_home, mining, clock):
    config = still_home.policy_data()["playbooks"]
    assert choose_playbook(config, mining, 4, clock()) is None


def test_no_playbook_goes_beyond_stopping_a_job_or_outlives_its_date(still_home, mining, clock):
    config = still_home.policy_data()["playbooks"]
    assert choose_playbook(config, mining, 5, clock()) == "confirmed-mining"
    assert choose_playbook(config, mining, 6, clock()) is None
    clock.advance(seconds=20 * 366 * 86_400)
    assert choose_playbook(config, mining, 5, clock()) is None


def test_the_ladder_here_is_the_ladder_of_the_policy_data(still_home):
    shipped = still_home.policy_data()["playbooks"]["ladder"]
    assert [(r["level"], r["name"]) for r in shipped] == [(r.level, r.name) for r in LADDER]


CRASH = """
import os, signal, sys
from guard_core.home import Home
from compute_guard.incidents.store import Incidents
from compute_guard.ray_plugin.jobs import RayCluster
from compute_guard.response.responder import Responder
home = Home.open()
class Crashing(RayCluster):
    def stop_job(self, submission_id, *, reason):
        with open(sys.argv[3], "a") as log:
            log.write("asked\\n")
        if sys.argv[2] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        was = super().stop_job(submission_id, reason=reason)
        if was.was == "pending":
            with open(sys.argv[3], "a") as log:
                log.write("effect\\n")
        if sys.argv[2] == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return was
responder = Responder(home, Crashing(home))
if sys.argv[2] == "recover":
    print([a.state for a in responder.recover()])
    print([a.state for a in Responder(home, Crashing(home)).recover()])
else:
    responder.act(Incidents(home).get(sys.argv[1]), 5, principal=home.principal())
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_kill_9_in_the_middle_of_a_stop_is_finished_later_with_one_effect(home, seen, tmp_path, moment):
    from compute_guard.admission.workload import workload_from_submission

    workload = workload_from_submission(
        {"entrypoint": "x"}, submission_id="job-1", tenant="acme", user="a", queue="acme", created_ns=1
    )
    Ledger(home.storage).add(workload)
    found = Incidents(home).observe(seen("telemetry", "indicator"))
    log = tmp_path / "effects"

    def child(when):
        command = [sys.executable, "-c", textwrap.dedent(CRASH), found.id, when, str(log)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ})

    killed = child(moment)
    assert killed.returncode == -9, killed.stderr
    interrupted = Actions(home.storage, home.clock).get(action_id(found.id, 5, 0))
    assert interrupted.state == "executing"
    recovered = child("recover")
    assert recovered.stdout.splitlines() == ["['done']", "[]"], recovered.stderr
    assert log.read_text().count("effect") == 1
    assert Incidents(home).get(found.id).state is State.CONTAINED
    assert verify(home.path("audit"), verifier=home.signer.verifier).ok


def test_a_living_processs_step_is_not_taken_over(still_home, mining, clock):
    actions = Actions(still_home.storage, still_home.clock)
    action = actions.request(mining.id, 5, "stop", {})
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        claimed = actions.claim(action)
        assert claimed is not None
        actions.move(
            action.id,
            ["executing"],
            "executing",
            result={"claim": {**claimed.result["claim"], "pid": sleeper.pid}},
        )
        assert actions.abandoned() == []
        clock.advance(seconds=121)
        assert [a.id for a in actions.abandoned()] == [action.id]
    finally:
        sleeper.communicate(b"\n")


def test_of_two_processes_that_claim_a_step_one_gets_it(still_home, mining):
    actions = Actions(still_home.storage, still_home.clock)
    action = actions.request(mining.id, 5, "stop", {})
    assert actions.claim(action) is not None
    assert actions.claim(action) is None


def test_an_approver_uses_a_credential_of_their_own(still_home, mining, responder, home_dir, clock):
    waiting = responder.act(mining, 4, principal=still_home.principal())
    token = still_home.credentials.issue(tenant="acme", user="bob", roles=("tenant-admin",))
    settings = load_settings(home=home_dir, token=SecretStr(token))
    with Home.open(settings, clock=clock) as theirs:
        from compute_guard.ray_plugin.jobs import RayCluster

        done = Responder(theirs, RayCluster(theirs)).approve(waiting.id, theirs.principal())
    assert done.state == "done"


def test_the_bundle_shows_before_and_after_and_verifies(still_home, responder, mining):
    from compute_guard.incidents import evidence

    responder.respond(mining, still_home.principal())
    folder: Path = still_home.path("incidents", mining.id)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*.json")}
    assert {
        "before/incident.json",
        "after/incident.json",
        "after/actions.json",
        "after/decisions.json",
    } <= names
    assert evidence.verify(folder, still_home.signer.verifier) == []
