"""``trainguard compute`` as a person at a terminal uses it."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from compute_guard.admission.gateway import Gateway
from compute_guard.admission.why import why_text
from compute_guard.admission.workload import WorkloadState
from guard_core.cli import root
from guard_core.policy.bundle import shipped_policies


@pytest.fixture
def trainguard(home_dir):
    def run(*arguments: str):
        return CliRunner().invoke(root, ["--home", str(home_dir), *arguments])

    return run


@pytest.fixture
def waiting(home):
    """A gateway with one job of acme that fills the queue, and one that waits behind it."""
    gateway = Gateway(home)
    ada = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
    for name in ("runs", "waits", "last"):
        gateway.submit(ada, {"entrypoint": "x", "submission_id": name, "entrypoint_num_cpus": 2})
    return gateway


def test_why_tells_rule_numbers_who_is_ahead_and_what_fits(trainguard, waiting):
    done = trainguard("compute", "why", "last")
    assert done.exit_code == 0, done.output
    assert "job last of acme: pending in queue acme" in done.output
    assert "asks 2, queue acme has 0 free (2 of 2 in use) [quota-busy]" in done.output
    assert "ahead         waits" in done.output
    assert "in use by     runs (queue acme): cpu 2, jobs 1" in done.output
    assert "fits now      jobs 3, cpu 0" in done.output


def test_why_is_the_same_in_json(trainguard, waiting):
    story = json.loads(trainguard("compute", "why", "last", "--format", "json").stdout)
    assert story["ahead"] == ["waits"]
    assert story["numbers"]["cpu_milli"]["available"] == 0
    assert [reason["rule"] for reason in story["reasons"]] == ["quota-busy", "queue-order"]
    assert story["enforcement"] == "cooperative"


def test_another_tenants_job_does_not_exist(home, home_dir, waiting, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="beta", user="bea"))
    done = CliRunner().invoke(root, ["--home", str(home_dir), "compute", "why", "last"])
    assert done.exit_code != 0
    assert "no job 'last'" in str(done.exception)


def test_quota_show_counts_what_is_reserved(trainguard, waiting):
    rows = json.loads(trainguard("compute", "quota", "show", "--format", "json").stdout)["queues"]
    cpu = next(row for row in rows if row["queue"] == "acme" and row["resource"] == "cpu_milli")
    assert (cpu["nominal"], cpu["used"], cpu["available"], cpu["pending"]) == (2000, 2000, 0, 2)
    assert {row["queue"] for row in rows} >= {"acme", "beta", "local"}


def test_a_tenant_sees_its_own_quota_only(home, home_dir, waiting, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="beta", user="bea"))
    done = CliRunner().invoke(root, ["--home", str(home_dir), "compute", "quota", "show", "--format", "json"])
    rows = json.loads(done.stdout)["queues"]
    assert {row["queue"] for row in rows} == {"beta"}
    assert rows[0]["share_percent"] == 0, "of what acme had, which beta does not see"


def test_status_without_a_cluster_says_how_to_get_one(trainguard):
    done = trainguard("compute", "status")
    assert "trainguard compute up" in done.output
    shape = json.loads(trainguard("compute", "status", "--format", "json").stdout)
    assert (shape["running"], shape["guarded"], shape["enforcement"]["reconciler"]) == (
        False,
        False,
        "detective",
    )


def test_down_without_a_cluster_ends_nothing(trainguard):
    assert "no cluster" in trainguard("compute", "down").output


@pytest.mark.parametrize("target", ["ray-start", "ray-up", "kuberay"])
def test_install_prints_what_a_cluster_needs_and_no_secret(trainguard, target, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_TOKEN", "tg_secret")
    monkeypatch.setenv("TRAINGUARD_STORAGE_URL", "postgresql://u:hunter2@db/x")
    done = trainguard("compute", "install", "--target", target)
    assert done.exit_code == 0, done.output
    for needed in (
        "RAY_AUTH_MODE",
        "RAY_START_HOOK",
        "compute_guard.ray_plugin.start.hook",
        "TRAINGUARD_HOME",
    ):
        assert needed in done.output
    assert "hunter2" not in done.output
    assert "tg_secret" not in done.output


def test_why_estimates_the_start_from_what_was_said_or_seen(trainguard, home):
    gateway = Gateway(home)
    ada = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
    told = {"entrypoint": "x", "entrypoint_num_cpus": 2, "metadata": {"expected_seconds": "600"}}
    for name in ("runs", "next", "last"):
        gateway.submit(ada, {**told, "submission_id": name})
    story = json.loads(trainguard("compute", "why", "last", "--format", "json").stdout)
    assert 1150 <= story["estimate"]["starts_in_seconds"] <= 1200
    assert story["status_message"].startswith("waiting in queue acme: cpu: asks 2")
    assert "in about 19 min" in trainguard("compute", "why", "last").output


def test_why_gives_no_estimate_without_a_ground(trainguard, waiting):
    assert "no estimate: no job of these queues has ended yet" in trainguard("compute", "why", "last").output


def test_history_is_a_trace_that_simulate_replays(trainguard, waiting, tmp_path):
    waiting.run("runs", "01")
    waiting.finish("runs", WorkloadState.FINISHED, "SUCCEEDED: done")
    file = tmp_path / "jobs.jsonl"
    assert "1 job in" in trainguard("compute", "history", "--out", str(file)).output
    done = trainguard("compute", "simulate", str(file), "--format", "json")
    outcome = json.loads(done.stdout)["outcomes"][0]
    assert (outcome["quota"], outcome["jobs"], outcome["finished"]) == ("in force", 1, 1)
    told = trainguard("compute", "simulate", str(file)).output
    assert "acme" in told
    assert "in use        cpu " in told


def test_a_history_that_cannot_be_written_and_quotas_that_are_none_are_one_sentence(trainguard, tmp_path):
    lost = trainguard("compute", "history", "--out", str(tmp_path / "nowhere" / "jobs.jsonl"))
    assert "jobs.jsonl cannot be written (No such file or directory)" in str(lost.exception)
    trace, quotas = tmp_path / "jobs.jsonl", tmp_path / "tried.yaml"
    job = {"id": "a", "queue": "q", "user": "u", "arrival_ms": 0, "run_ms": 1, "requests": {"jobs": 1}}
    trace.write_text(json.dumps(job) + "\n")
    for text, said in (
        ("queues: 5\n", "tried.yaml:1: 'cohorts' is a required property"),
        ("queues: {q: {tenant: t, wieght: 2}}\n", "tried.yaml:1: queues.q.wieght: Additional properties"),
    ):
        quotas.write_text(text)
        tried = trainguard("compute", "simulate", str(trace), "--quota", str(quotas))
        assert said in str(tried.exception)


@pytest.fixture
def own_policies(home_dir, tmp_path, monkeypatch):
    """A policy directory in the settings, as an admin has one."""
    policies = tmp_path / "policies"
    shutil.copytree(shipped_policies(), policies)
    monkeypatch.setenv("TRAINGUARD_POLICY_DIR", str(policies))
    return policies / "data" / "quotas.yaml"


def test_quota_set_changes_one_number_and_keeps_the_rest_of_the_file(trainguard, own_policies):
    before = own_policies.read_text()
    done = trainguard("compute", "quota", "set", "acme", "gpu_milli.nominal", "3000")
    assert done.exit_code == 0, done.output
    assert "gpu_milli.nominal 2000 -> 3000 (gpu 2 -> 3)" in done.output
    assert own_policies.read_text() == before.replace(
        "gpu_milli: {nominal: 2000, borrowing_limit: 1000", "gpu_milli: {nominal: 3000, borrowing_limit: 1000"
    )


@pytest.mark.parametrize(
    ("what", "value", "words"),
    [
        ("gpu_milli.nominal", "-5", "no whole number"),
        ("preemption.then", "sometimes", "'sometimes' is not one of ['requeue', 'end']; nothing was changed"),
        ("tpu_milli.nominal", "5", "did you mean gpu_milli.nominal?"),
        ("cpu_milli.nominall", "5", "did you mean cpu_milli.nominal?"),
        ("budget.half_life_hours", "24", "no budget; set budget.gpu_hours first"),
        ("budget.gpu_hours", "many", "quotas.yaml"),
        ("resources", "5", "no setting 'resources'"),
    ],
)
def test_quota_set_refuses_what_would_not_count_and_changes_nothing(
    trainguard, own_policies, what, value, words
):
    before = own_policies.read_text()
    done = trainguard("compute", "quota", "set", "acme", what, "--", value)
    assert done.exit_code != 0
    assert words in str(done.exception) + done.output
    assert own_policies.read_text() == before


def test_quota_set_gives_a_queue_a_budget_and_takes_it_away(trainguard, own_policies):
    done = trainguard("compute", "quota", "set", "acme", "budget.gpu_hours", "500")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "budget.gpu_hours not set -> 500" in done.output
    assert "500 GPU-hours" in trainguard("compute", "quota", "show").output
    assert trainguard("compute", "quota", "set", "acme", "budget", "none").exit_code == 0
    assert "GPU-hours" not in trainguard("compute", "quota", "show").output


def test_without_a_policy_directory_a_change_is_staged_and_not_in_force(trainguard, home):
    done = trainguard("compute", "quota", "set", "acme", "weight", "5")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "staged in shadow" in done.output
    assert Gateway(home).quotas().queues["acme"].weight == 2
    again = trainguard("compute", "quota", "set", "acme", "max_pending", "5")
    assert "instead of chg-" in again.output


def test_a_token_is_rotated_only_where_there_are_gates(trainguard):
    done = trainguard("compute", "rotate-token", "acme")
    assert "no cluster with gates in this home" in str(done.exception)


def test_a_pool_that_is_not_known_is_refused_before_anything_starts(trainguard):
    done = trainguard("compute", "up", "--profile", "gate", "--pool", "a100")
    assert str(done.exception) == "pool a100 is not in nodes.yaml, which has shared"


def test_why_says_whose_room_is_awaited_which_incident_is_open_and_what_ray_said(trainguard):
    story = {
        "job": "j", "tenant": "acme", "queue": "acme", "state": "finished", "requests": {"jobs": 1},
        "reason": "FAILED: Traceback:\n  File x\nOSError: y\n", "decision_id": "",
        "made_room_by": {"jobs": 2, "until": "2026-11-29T08:04:36.000000Z"},
        "incidents": [{"id": "inc-1", "kind": "dataset_withdrawn", "severity": "incident"}],
    }  # fmt: skip
    assert list(why_text(story))[2:] == [
        "  because       FAILED: Traceback:\n                  File x\n                OSError: y",
        "  room is made  2 jobs with notice, gone by 08:04:36 UTC",
        "  incident      inc-1 (dataset_withdrawn, incident): trainguard incident show inc-1",
    ]


def test_nodes_and_pools_need_a_profile_with_gates(trainguard):
    done = trainguard("compute", "up", "--nodes", "2")
    assert done.exit_code == 2
    assert "--nodes and --pool need --profile gate or hardened" in done.output
