"""The Job API of a real guarded Ray head, through Ray's own client."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Ledger
from compute_guard.testing import wait_until

pytestmark = pytest.mark.ray


def test_an_admitted_job_runs_to_its_end_and_gives_its_quota_back(ray_cluster):
    client = ray_cluster.client("acme")
    script = (
        "import os, ray; ray.init(logging_level='error'); "
        "from guard_core.home import Home; p = Home.open().principal(); "
        "print('I am', p.kind, p.tenant, p.workload); "
        "print('answer', ray.get(ray.remote(lambda: 6 * 7).remote()))"
    )
    job = client.submit_job(entrypoint=f'python -c "{script}"', entrypoint_num_cpus=1)
    details = ray_cluster.wait(client, job)
    logs = client.get_job_logs(job)
    assert details.status == "SUCCEEDED", logs
    assert "answer 42" in logs
    assert f"I am job acme {job}" in logs
    assert details.metadata["trainguard_tenant"] == "acme"
    ledger = Ledger(ray_cluster.home.storage)
    wait_until(lambda: ledger.get(job).state is WorkloadState.FINISHED)
    assert job not in ledger.reservations()


def test_the_jobs_credential_is_shown_to_nobody_and_dies_with_the_job(ray_cluster):
    client = ray_cluster.client("acme")
    job = client.submit_job(entrypoint="echo $TRAINGUARD_TOKEN | cut -c1-3")
    details = ray_cluster.wait(client, job)
    assert "tg_" in client.get_job_logs(job).splitlines()  # Ray's own lines may come after it
    assert details.runtime_env["env_vars"]["TRAINGUARD_TOKEN"] == "<hidden>"
    credentials = ray_cluster.home.credentials
    mine = [c for c in credentials.list() if c.workload == job]
    wait_until(lambda: next(c for c in credentials.list() if c.workload == job).revoked_at is not None)
    assert [c.kind for c in mine] == ["job"]


@pytest.mark.parametrize(
    ("asked", "rule", "words"),
    [
        ({"entrypoint_num_gpus": 99}, "quota-never-fits", "gpu 99 requested"),
        ({"runtime_env": {"pip": ["numpy"]}}, "runtime-env-field", "pip"),
        ({"metadata": {"datasets": "nobody-registered-this"}}, "dataset", "nobody-registered-this"),
        ({"entrypoint_resources": {"TPU": 1}}, "quota", "custom_tpu"),
    ],
)
def test_a_denied_job_names_rule_and_numbers_in_the_clients_exception(ray_cluster, asked, rule, words):
    client = ray_cluster.client("acme")
    with pytest.raises(RuntimeError) as denied:
        client.submit_job(entrypoint="echo never", **asked)
    text = str(denied.value)
    assert "429" in text
    assert rule in text
    assert words in text
    decision = text.rpartition("(decision ")[2].partition(")")[0]
    assert ray_cluster.home.decision_record(decision)["enforcement"] == "cooperative"


def test_a_malformed_submission_is_told_its_field(ray_cluster):
    with pytest.raises(RuntimeError, match="priority must be an integer"):
        ray_cluster.client("acme").submit_job(entrypoint="true", metadata={"priority": "urgent"})


def test_a_job_over_quota_waits_with_its_reason_and_runs_when_room_frees(ray_cluster, gated):
    client = ray_cluster.client("acme")
    entrypoint, gate = gated()
    first = client.submit_job(entrypoint=entrypoint, entrypoint_num_cpus=2)
    second = client.submit_job(entrypoint="echo second", entrypoint_num_cpus=1)
    third = client.submit_job(entrypoint="echo third", entrypoint_num_cpus=1)
    ray_cluster.wait(client, first, ["RUNNING"])
    waiting = client.get_job_info(second)
    assert waiting.status == "PENDING"
    wait_until(lambda: "0 free (2 of 2 in use) [quota-busy]" in client.get_job_info(second).message)
    wait_until(lambda: f"1 ahead in queue acme: {second}" in client.get_job_info(third).message)
    assert "waiting in queue acme" in client.get_job_logs(second)
    assert {second, third} <= {details.submission_id for details in client.list_jobs()}
    gate.touch()
    assert ray_cluster.wait(client, second).status == "SUCCEEDED"
    assert ray_cluster.wait(client, third).status == "SUCCEEDED"
    assert "second" in client.get_job_logs(second)


def test_tailing_a_waiting_job_tells_why_and_then_becomes_its_log(ray_cluster, gated):
    client = ray_cluster.client("acme")
    entrypoint, gate = gated()
    client.submit_job(entrypoint=entrypoint, entrypoint_num_cpus=2)
    waiting = client.submit_job(entrypoint="echo at last", entrypoint_num_cpus=1)

    async def tail() -> str:
        text = ""
        async for lines in client.tail_job_logs(waiting):
            text += lines
            if "quota-busy" in text:
                gate.touch()
        return text

    text = asyncio.run(asyncio.wait_for(tail(), 90))
    assert "[trainguard] waiting in queue acme" in text
    assert text.rstrip().endswith("at last")


def test_a_waiting_job_can_be_stopped_and_deleted(ray_cluster, gated):
    client = ray_cluster.client("beta")
    entrypoint, _ = gated()
    client.submit_job(entrypoint=entrypoint, entrypoint_num_cpus=1)
    waiting = client.submit_job(entrypoint="echo never", entrypoint_num_cpus=1)
    with pytest.raises(RuntimeError, match="stop it before deleting"):
        client.delete_job(waiting)
    assert client.stop_job(waiting)
    details = client.get_job_info(waiting)
    assert details.status == "STOPPED"
    assert "stopped by ada before it started" in details.message
    assert not client.stop_job(waiting)
    assert client.delete_job(waiting)
    with pytest.raises(RuntimeError, match="does not exist"):
        client.get_job_info(waiting)


def test_a_tenant_neither_sees_nor_touches_anothers_jobs(ray_cluster, gated):
    acme, beta = ray_cluster.client("acme"), ray_cluster.client("beta")
    entrypoint, _ = gated()
    running = acme.submit_job(entrypoint=entrypoint, entrypoint_num_cpus=2)
    waiting = acme.submit_job(entrypoint="echo secret", entrypoint_num_cpus=1)
    ray_cluster.wait(acme, running, ["RUNNING"])
    ray_id = ray_cluster.wait(acme, running, ["RUNNING"]).job_id
    for job in (running, waiting, "no-such-job", *([ray_id] if ray_id else [])):
        for touch in (beta.get_job_info, beta.get_job_logs, beta.stop_job, beta.delete_job):
            with pytest.raises(RuntimeError, match=f"404: Job {job} does not exist"):
                touch(job)
    assert {running, waiting}.isdisjoint({details.submission_id for details in beta.list_jobs()})
    with pytest.raises(RuntimeError, match="already exists"):
        beta.submit_job(entrypoint="echo mine", submission_id=running)
    assert acme.get_job_status(running) == "RUNNING"


def test_the_tenant_is_the_credentials_whatever_the_job_says(ray_cluster):
    client = ray_cluster.client("beta")
    job = client.submit_job(entrypoint="true", metadata={"tenant": "acme", "trainguard_tenant": "acme"})
    assert ray_cluster.wait(client, job).metadata["trainguard_tenant"] == "beta"
    with pytest.raises(RuntimeError, match="tenant beta has no queue 'acme'"):
        client.submit_job(entrypoint="true", metadata={"queue": "acme"})


def test_uploaded_code_arrives_and_is_its_tenants_own(ray_cluster, tmp_path):
    (tmp_path / "hello.txt").write_text("from the working directory")
    acme, beta = ray_cluster.client("acme"), ray_cluster.client("beta")
    job = acme.submit_job(entrypoint="cat hello.txt", runtime_env={"working_dir": str(tmp_path)})
    assert ray_cluster.wait(acme, job).status == "SUCCEEDED"
    assert "from the working directory" in acme.get_job_logs(job)
    from ray._private.runtime_env.packaging import get_uri_for_directory

    uri = get_uri_for_directory(str(tmp_path), False)
    assert acme._package_exists(uri)
    assert not beta._package_exists(uri)
    stolen = beta.submit_job(entrypoint="cat hello.txt", runtime_env={"working_dir": uri})
    assert ray_cluster.wait(beta, stolen).status == "FAILED"


def test_rays_own_command_line_submits_through_the_address_scheme(ray_cluster):
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "RAY_ADDRESS": ray_cluster.cluster.submit_address,
        "TRAINGUARD_TOKEN": ray_cluster.token("acme"),
    }
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "job", "submit", "--", "echo", "through the scheme"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "through the scheme" in done.stdout


def test_a_broken_policy_refuses_everything_and_a_mended_one_admits_again(ray_cluster):
    client = ray_cluster.client("acme")
    with (
        ray_cluster.edited("admission.rego", lambda good: good + "\nthis is no rego {\n"),
        pytest.raises(RuntimeError, match=r"503.*could not decide"),
    ):
        client.submit_job(entrypoint="echo never")
    job = client.submit_job(entrypoint="true")
    assert ray_cluster.wait(client, job).status == "SUCCEEDED"


def test_a_quota_edited_while_the_guard_runs_counts_within_a_tenth_of_a_second(ray_cluster):
    client = ray_cluster.client("acme")
    have, less = "cpu_milli: {nominal: 2000,", "cpu_milli: {nominal: 500,"
    with (
        ray_cluster.edited("quotas.yaml", lambda good: good.replace(have, less, 1)),
        pytest.raises(RuntimeError, match="quota-never-fits"),
    ):
        client.submit_job(entrypoint="echo never", entrypoint_num_cpus=1)


def test_every_step_of_a_job_is_in_the_audit_log(ray_cluster):
    client = ray_cluster.client("acme")
    job = client.submit_job(entrypoint="true")
    ray_cluster.wait(client, job)
    ledger = Ledger(ray_cluster.home.storage)
    wait_until(lambda: ledger.get(job).state is WorkloadState.FINISHED)
    steps = [
        record["data"]["state"]
        for record in ray_cluster.home.audit.records(kind="workload.state")
        if record["subject"] == job
    ]
    assert steps[0] == "admitted"
    assert steps[-1] == "finished"
    assert json.dumps(steps).count("finished") == 1
