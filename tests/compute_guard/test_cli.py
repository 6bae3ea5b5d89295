"""``trainguard compute`` as a person at a terminal uses it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from compute_guard.gateway import Gateway
from guard_core.cli import root


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
    assert "in use by     runs (queue acme): cpu_milli 2, jobs 1" in done.output
    assert "fits now      jobs 3, cpu_milli 0" in done.output


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
    assert {row["queue"] for row in json.loads(done.stdout)["queues"]} == {"beta"}


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
