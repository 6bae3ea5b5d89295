"""Ways round the gateway, tried as an attacker would: each is refused, or stopped and on record."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request

import pytest

from compute_guard.ledger.store import Ledger
from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.testing import GuardedCluster, intruder, wait_until

pytestmark = pytest.mark.ray

SUBMISSION = {"entrypoint": "echo intruder", "submission_id": "intruder"}


def ask(url: str, *, token: str = "", body: object = None, method: str = "GET", **headers: str):
    """(status, text) of a plain HTTP request."""
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode(), method=method, headers=headers
    )
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def gcs(ray_cluster):
    client = Gcs(ray_cluster.cluster.gcs_address, lambda: ray_cluster.cluster.token)
    yield client
    client.close()


@pytest.fixture
def agent(gcs) -> str:
    return next(iter(gcs.agent_addresses().values()))


def nothing_was_submitted(cluster: GuardedCluster, gcs: Gcs) -> bool:
    return "intruder" not in gcs.submission_ids() and Ledger(cluster.home.storage).get("intruder") is None


def test_the_version_is_public_and_says_that_the_cluster_is_guarded(ray_cluster):
    with urllib.request.urlopen(ray_cluster.cluster.dashboard + "/api/version", timeout=10) as answer:
        assert answer.headers["X-TrainGuard"] == "observe-and-stop"


def test_the_shadowray_sequence_is_refused(ray_cluster, gcs):
    """CVE-2023-48022: submit without credentials, read the result, list what else runs."""
    url = ray_cluster.cluster.dashboard
    assert ask(url + "/api/jobs/", body=SUBMISSION, method="POST")[0] == 401
    assert ask(url + "/api/jobs/intruder/logs")[0] == 401
    assert ask(url + "/api/jobs/")[0] == 401
    assert nothing_was_submitted(ray_cluster, gcs)


@pytest.mark.parametrize("token", ["guessed", "tg_0123456789abcdef_" + "A" * 43, "tg__", "Bearer"])
def test_an_unknown_token_is_refused(ray_cluster, gcs, token):
    status, _ = ask(ray_cluster.cluster.dashboard + "/api/jobs/", token=token, body=SUBMISSION, method="POST")
    assert status == 403
    assert nothing_was_submitted(ray_cluster, gcs)


def test_a_revoked_credential_stops_working_at_once(ray_cluster):
    token = ray_cluster.home.credentials.issue(tenant="acme", user="eve")
    url = ray_cluster.cluster.dashboard + "/api/jobs/"
    assert ask(url, token=token)[0] == 200
    ray_cluster.home.credentials.revoke(token.split("_")[1])
    status, text = ask(url, token=token)
    assert (status, "revoked" in text) == (403, True)


def test_rays_client_shows_our_words_for_an_unknown_credential(ray_cluster):
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(ray_cluster.cluster.dashboard, headers={"Authorization": "Bearer tg_a_b"})
    with pytest.raises(AuthenticationError, match="the credential is not known here"):
        client.list_jobs()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v0/nodes"),
        ("GET", "/api/v0/workers"),
        ("GET", "/api/v0/objects"),
        ("GET", "/nodes?view=summary"),
        ("GET", "/api/cluster_status"),
        ("GET", "/api/component_activities"),
        ("PUT", "/api/serve/applications/"),
        ("GET", "/api/jobs/%2e%2e/x"),
        ("GET", "/api/jobs/a%2Flogs"),
        ("POST", "/api/packages/gcs/_ray_pkg_x.zip"),
        ("PUT", "/api/packages/gcs/other.zip"),
    ],
)
def test_what_is_not_on_the_allow_list_is_refused_for_tenants(ray_cluster, method, path):
    status, text = ask(
        ray_cluster.cluster.dashboard + path, token=ray_cluster.token("acme"), body={}, method=method
    )
    assert status == 429
    assert "TrainGuard" in text


def test_a_tenant_cannot_act_for_another(ray_cluster):
    url = ray_cluster.cluster.dashboard + "/api/jobs/"
    headers = {"X-TrainGuard-Tenant": "beta"}
    status, text = ask(url, token=ray_cluster.token("acme"), **headers)
    assert status == 403
    assert "may not act for tenant beta" in text


def test_a_platform_admin_sees_all_and_submits_for_a_tenant_through_the_same_admission(ray_cluster):
    admin = ray_cluster.home.credentials.local_token(ray_cluster.home.path("credentials"))
    url = ray_cluster.cluster.dashboard + "/api/jobs/"
    job = ray_cluster.client("beta").submit_job(entrypoint="true")
    assert job in {details["submission_id"] for details in json.loads(ask(url, token=admin)[1])}
    headers = {"X-TrainGuard-Tenant": "beta"}
    body = {"entrypoint": "true", "entrypoint_num_gpus": 50}
    status, text = ask(url, token=admin, body=body, method="POST", **headers)
    assert (status, "quota-never-fits" in text) == (429, True)


def test_a_job_may_not_submit_jobs(ray_cluster):
    token = ray_cluster.home.credentials.issue(tenant="acme", user="ada", kind="job", workload="w")
    url = ray_cluster.cluster.dashboard + "/api/jobs/"
    status, text = ask(url, token=token, body={"entrypoint": "true"}, method="POST")
    assert (status, "a job may not submit jobs" in text) == (429, True)


def test_the_clusters_own_token_submits_nothing_at_the_dashboard(ray_cluster, gcs):
    url = ray_cluster.cluster.dashboard + "/api/jobs/"
    status, text = ask(url, token=ray_cluster.cluster.token, body=SUBMISSION, method="POST")
    assert status == 429
    assert "submits no jobs" in text
    assert nothing_was_submitted(ray_cluster, gcs)


@pytest.mark.parametrize("who", ["nobody", "tenant", "cluster"])
def test_the_forgotten_port_of_the_node_agent_admits_nobody(ray_cluster, gcs, agent, who):
    token = {"nobody": "", "tenant": ray_cluster.token("acme"), "cluster": ray_cluster.cluster.token}[who]
    status, text = ask(agent + "/api/job_agent/jobs/", token=token, body=SUBMISSION, method="POST")
    assert status == (401 if who == "nobody" else 429)
    assert who == "nobody" or "TrainGuard" in text
    assert nothing_was_submitted(ray_cluster, gcs)


# Connects beside the gateway and goes on asking for work.
WORKER = (
    "import ray, sys; ray.init(address=sys.argv[1], logging_level='error', log_to_driver=False); "
    "ray.get([ray.remote(lambda: __import__('time').sleep(600)).remote()])"
)


def stopped_driver(cluster: GuardedCluster, gcs: Gcs, process: subprocess.Popen[bytes]) -> str:
    """The reason on record for the driver of ``process``, once Ray says that it is dead."""
    try:
        wait_until(lambda: any(d.pid == process.pid and d.is_dead for d in gcs.drivers()), seconds=90)
        driver = next(d for d in gcs.drivers() if d.pid == process.pid)
    finally:
        process.kill()
        process.wait()
    records = [
        r for r in cluster.home.audit.records(kind="workload.unadmitted") if r["subject"] == driver.job_id
    ]
    assert [record["enforcement"] for record in records] == ["detective"]
    return str(records[0]["data"]["reason"])


def test_a_driver_that_connects_with_a_stolen_token_is_stopped_and_recorded(ray_cluster, gcs):
    assert "did not pass the admission gateway" in stopped_driver(
        ray_cluster, gcs, intruder(ray_cluster, WORKER)
    )


def test_a_stolen_submission_id_does_not_help_a_driver_that_was_not_started_by_it(ray_cluster, gcs, gated):
    client = ray_cluster.client("acme")
    entrypoint, _ = gated()
    job = client.submit_job(entrypoint=entrypoint)
    ray_cluster.wait(client, job, ["RUNNING"])
    forged = {"metadata": {"job_submission_id": job}}
    why = stopped_driver(ray_cluster, gcs, intruder(ray_cluster, WORKER, claims=forged))
    assert "was not started by it" in why
    assert client.get_job_status(job) == "RUNNING"


def test_a_namespace_of_rays_own_does_not_hide_a_driver(ray_cluster, gcs):
    forged = {"ray_namespace": "_ray_internal_dashboard"}
    why = stopped_driver(ray_cluster, gcs, intruder(ray_cluster, WORKER, claims=forged))
    assert "namespace of Ray's own" in why or "did not pass" in why
