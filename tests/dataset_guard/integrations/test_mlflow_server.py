"""A real MLflow server with our app in front, spoken to by MLflow's own client and as by a browser."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import mlflow
import pyarrow as pa
import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.exceptions import MlflowException

from dataset_guard.integrations.mlflow_data import (
    dataset,
    evaluation_records,
    evaluation_tags,
    record_registration,
)
from dataset_guard.integrations.mlflow_fields import input_tags
from dataset_guard.integrations.mlflow_lineage import MARK
from dataset_guard.registration.register import register
from dataset_guard.registration.report import Report
from guard_core.config import load_settings
from guard_core.errors import UserError
from guard_core.home import Home

ROWS = pa.table({"x": [float(i) for i in range(40)], "label": [0, 1] * 20})  # enough that chance is no excuse


@dataclass
class Server:
    url: str
    home: Home
    good: Report
    bad: Report
    acme: str
    beta: str

    def client(self, monkeypatch, token):
        """MLflow's client with ``token``, and a fresh run's id."""
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        if token:
            monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        else:
            monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
        client = mlflow.MlflowClient(tracking_uri=self.url)
        return client, client.create_run("0").info.run_id

    def page(self, path, token=None):
        request = urllib.request.Request(self.url + path)
        if token:
            basic = base64.b64encode(f"me:{token}".encode()).decode()
            request.add_header("Authorization", f"Basic {basic}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory, mlflow_database):
    folder = tmp_path_factory.mktemp("mlflow-server")
    shutil.copy(mlflow_database, folder / "mlflow.db")
    with Home.open(load_settings(home=folder / "home")) as home:
        good = register(ROWS, name="good", tenant="acme", label="label", home=home, checks=[])
        against = {"against": ["good@1"], "checks": ["exact_overlap"]}
        more = pa.concat_tables([ROWS, pa.table({"x": [99.0], "label": [1]})])
        bad = register(more, name="bad", tenant="acme", label="label", home=home, **against)
        assert bad.verdict.value == "quarantine"
        tokens = [home.credentials.issue(tenant=t, user="lin") for t in ("acme", "beta")]
        with serving(folder, folder / "home") as url:
            yield Server(url, home, good, bad, *tokens)


@contextmanager
def serving(folder, home, **environment):
    """The address of a real MLflow server with our app, on ``folder/mlflow.db``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "trainguard", "--workers", "1"]
    place = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port", str(port)]
    settings = {"TRAINGUARD_HOME": str(home), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        command + place,
        env={**os.environ, **settings, **environment},
        cwd=folder,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url, folder / "server.log")
        yield url
    finally:
        # mlflow's command starts uvicorn as its child: the group that we made is all of it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(timeout=30)
        log.close()


def _wait(process, url, log):
    for _ in range(1200):
        try:
            with urllib.request.urlopen(url + "/health", timeout=2):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"the MLflow server did not start: {log.read_text()[-2000:]}")


def training(logged):
    return DatasetInput(logged._to_mlflow_entity(), [InputTag("mlflow.data.context", "training")])


def test_an_allowed_version_with_a_forged_profile_is_refused(server, monkeypatch):
    client, run = server.client(monkeypatch, server.acme)
    forged = dataset(replace(server.good, findings=(), decision_id="looked at twice"))
    with pytest.raises(MlflowException, match="not what the registry says"):
        client.log_inputs(run, [training(forged)])
    assert not client.get_run(run).inputs.dataset_inputs


def test_an_allowed_version_is_logged_by_its_tenant(server, monkeypatch):
    client, run = server.client(monkeypatch, server.acme)
    client.log_inputs(run, [training(dataset(server.good))])
    [taken] = client.get_run(run).inputs.dataset_inputs
    assert taken.dataset.digest == server.good.digest


def test_a_quarantined_version_is_refused_and_the_client_is_told_why(server, monkeypatch):
    client, run = server.client(monkeypatch, server.acme)
    with pytest.raises(
        MlflowException, match=r"TrainGuard: .*acme/bad@1 is quarantined.*decision dec-"
    ) as refused:
        client.log_inputs(run, [training(dataset(server.bad))])
    assert refused.value.error_code == "PERMISSION_DENIED"
    assert client.get_run(run).inputs.dataset_inputs == []
    decision = str(refused.value).rpartition("(decision ")[2].partition(")")[0]
    assert server.home.decision_record(decision)["enforcement"] == "enforced"


def test_what_the_client_claims_does_not_help(server, monkeypatch):
    client, run = server.client(monkeypatch, server.acme)
    claims = json.dumps({"guard_verdict": "allow", "guard_version": "acme/good@1"})
    forged = Dataset("good", server.bad.digest, "local", "{}", profile=claims)
    with pytest.raises(MlflowException, match="acme/bad@1 is quarantined"):
        client.log_inputs(run, [DatasetInput(forged, [InputTag("mlflow.data.context", "training")])])


def test_a_metric_that_names_a_dataset_is_asked_about_too(server, monkeypatch):
    client, run = server.client(monkeypatch, server.acme)
    client.log_metric(run, "accuracy", 0.9, dataset_name="good", dataset_digest=server.good.digest)
    with pytest.raises(MlflowException, match="acme/bad@1 is quarantined"):
        client.log_metric(run, "accuracy", 0.9, dataset_name="good", dataset_digest=server.bad.digest)
    named = Metric("accuracy", 0.9, 0, 0, dataset_name="good", dataset_digest=server.bad.digest)
    with pytest.raises(MlflowException, match="acme/bad@1 is quarantined"):
        client.log_batch(run, metrics=[named])
    client.log_batch(run, metrics=[Metric("loss", 0.5, 0, 0)])
    assert set(client.get_run(run).data.metrics) == {"accuracy", "loss"}


def test_another_tenants_version_is_refused(server, monkeypatch):
    client, run = server.client(monkeypatch, server.beta)
    with pytest.raises(MlflowException, match="dataset 'good' belongs to another tenant") as refused:
        client.log_inputs(run, [training(dataset(server.good))])
    assert "acme/good" not in str(refused.value)  # who has the bytes need not learn what others call them


def test_without_a_token_only_data_that_is_not_ours_is_logged(server, monkeypatch):
    client, run = server.client(monkeypatch, None)
    with pytest.raises(MlflowException, match="MLFLOW_TRACKING_TOKEN"):
        client.log_inputs(run, [training(dataset(server.good))])
    client.log_inputs(run, [DatasetInput(Dataset("iris", "0a1b2c3d", "local", "{}"))])


def test_a_registration_of_bad_data_can_still_be_recorded(server, monkeypatch):
    server.client(monkeypatch, server.acme)
    run = record_registration(server.bad, tracking_uri=server.url)
    tags = mlflow.MlflowClient(tracking_uri=server.url).get_run(run).data.tags
    assert tags["guard.dataset.registration.verdict"] == "quarantine"


def test_a_forged_verdict_is_no_run_tag_and_a_mark_stays(server, monkeypatch):
    client, run = server.client(monkeypatch, server.acme)
    true = input_tags(server.good, "training", {})
    with pytest.raises(MlflowException, match="not what the registry says"):
        client.log_batch(
            run, tags=[RunTag(k, "warn" if k.endswith("verdict") else v) for k, v in true.items()]
        )
    with pytest.raises(MlflowException, match="without naming the version"):
        client.set_tag(run, "guard.dataset.training.verdict", "allow")
    with pytest.raises(MlflowException, match="without naming the version"):
        client.create_run("0", tags={"guard.dataset.training.verdict": "allow"})
    client.log_batch(run, tags=[RunTag(key, value) for key, value in true.items()])
    client.set_tag(run, "guard.tainted_by", "acme/good@1")
    for change in (lambda: client.delete_tag(run, "guard.tainted_by"), lambda: client.set_tag(run, MARK, "")):
        with pytest.raises(MlflowException, match="only a platform admin"):
            change()
    assert client.get_run(run).data.tags.items() >= {**true, "guard.tainted_by": "acme/good@1"}.items()


def test_reports_are_served_to_their_tenant_only(server):
    assert server.page("/guard/")[0] == 401
    status, index = server.page("/guard/", server.acme)
    assert status == 200
    assert "/guard/acme/bad/1" in index
    status, page = server.page("/guard/acme/bad/1", server.acme)
    assert status == 200
    assert server.bad.findings[0].rule_id in page
    assert server.page("/guard/acme/bad/1", server.beta)[0] == 404
    assert "acme" not in server.page("/guard/", server.beta)[1]
    admin = (server.home.path("credentials") / "local.token").read_text().strip()
    assert server.page("/guard/acme/good/1", admin)[0] == 200


def test_the_rest_of_mlflow_is_as_it_was(server, monkeypatch):
    client, run = server.client(monkeypatch, None)
    client.log_metric(run, "loss", 0.5)
    assert client.get_run(run).data.metrics == {"loss": 0.5}
    status, page = server.page("/")
    assert status == 200
    assert "<title>MLflow</title>" in page


def test_the_app_is_offered_by_mlflows_command():
    from click.testing import CliRunner
    from mlflow.cli import cli

    assert "trainguard" in CliRunner().invoke(cli, ["server", "--help"]).output


@pytest.mark.parametrize(
    ("inner", "said"), [("trainguard", "would wrap itself"), ("nowhere", "no MLflow app")]
)
def test_an_inner_app_that_cannot_be_wrapped_is_named_at_the_start(home, monkeypatch, inner, said):
    from flask import Flask

    from dataset_guard.integrations import mlflow_server

    monkeypatch.setattr(mlflow_server, "home", lambda: home)
    monkeypatch.setenv("TRAINGUARD_MLFLOW_INNER_APP", inner)
    with pytest.raises(UserError, match=said):
        mlflow_server.create_app(Flask("mlflow"))


def test_another_app_is_wrapped_and_the_gate_stands_before_it(home, monkeypatch, tmp_path):
    """The inner app is a plug-in as MLflow defines it: an entry point to a factory that takes the app."""
    from flask import Flask

    from dataset_guard.integrations import mlflow_server

    (tmp_path / "inner_app.py").write_text(
        "def create_app(app):\n    app.before_request(lambda: ('inner says no', 401))\n    return app\n"
    )
    info = tmp_path / "inner_app-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: inner-app\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mlflow.app]\ninner = inner_app:create_app\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mlflow_server, "home", lambda: home)
    monkeypatch.setenv("TRAINGUARD_MLFLOW_INNER_APP", "inner")
    monkeypatch.setenv("TRAINGUARD_MLFLOW_REGISTERED_ONLY", "1")

    browser = mlflow_server.create_app(Flask("mlflow")).test_client()
    logged = {"run_id": "r", "datasets": [{"dataset": {"name": "iris", "digest": "0a"}}]}
    refused = browser.post("/api/2.0/mlflow/runs/log-inputs", json=logged)
    assert refused.status_code == 403
    assert "takes registered data only" in refused.json["message"]
    assert browser.post("/ajax-api/2.0/mlflow/runs/log-inputs/", json=logged).status_code == 403
    assert browser.get("/").get_data() == b"inner says no"


@pytest.mark.slow
def test_mlflows_basic_auth_is_wrapped_and_both_speak(server, tmp_path, mlflow_database, monkeypatch):
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    users = tmp_path / "auth.ini"
    password = "a password of 12"
    users.write_text(
        f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = sqlite:///{tmp_path}/users.db\n"
        f"admin_username = admin\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "TRAINGUARD_MLFLOW_INNER_APP": "basic-auth",
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test",
        "TRAINGUARD_MLFLOW_REGISTERED_ONLY": "1",
    }
    with serving(tmp_path, server.home.settings.home, **environment) as url:
        inner = replace(server, url=url)
        with pytest.raises(MlflowException, match="not authenticated"):
            inner.client(monkeypatch, None)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        client, run = inner.client(monkeypatch, None)
        with pytest.raises(MlflowException, match="TRAINGUARD_MLFLOW_TOKEN"):  # not: your password is unknown
            client.log_inputs(run, [training(dataset(server.good))])
        monkeypatch.setenv("TRAINGUARD_MLFLOW_TOKEN", server.acme)
        client.log_inputs(run, [training(dataset(server.good))])
        with pytest.raises(MlflowException, match="acme/bad@1 is quarantined"):
            client.log_inputs(run, [training(dataset(server.bad))])
        monkeypatch.setenv("TRAINGUARD_MLFLOW_TOKEN", server.beta)
        with pytest.raises(MlflowException, match="belongs to another tenant"):
            client.log_inputs(run, [training(dataset(server.good))])
        assert len(client.get_run(run).inputs.dataset_inputs) == 1
        assert inner.page("/guard/acme/bad/1", server.acme)[0] == 200
        assert inner.page("/guard/acme/bad/1", server.beta)[0] == 404
        monkeypatch.setenv("TRAINGUARD_MLFLOW_TOKEN", server.acme)
        evaluation_datasets_name_their_version(client._tracking_client.store, server)


def evaluation_datasets_name_their_version(store, server):
    """By the calls that ``mlflow.genai.datasets`` makes."""
    record = {"inputs": {"question": "why"}, "expectations": {"expected_response": "because"}}
    with pytest.raises(MlflowException, match="names no registered version"):
        store.create_dataset("untold", experiment_ids=["0"])
    with pytest.raises(MlflowException, match="acme/bad@1 is quarantined"):
        store.create_dataset("bad", tags=input_tags(server.bad, "evaluation", {}), experiment_ids=["0"])
    made = store.create_dataset(
        "good", tags=evaluation_tags("good@1", tenant="acme", home=server.home), experiment_ids=["0"]
    )
    rows = evaluation_records("good@1", tenant="acme", home=server.home)
    assert sum(store.upsert_dataset_records(made.dataset_id, rows).values()) == len(rows)
    with pytest.raises(MlflowException, match="which is no column of acme/good@1"):
        store.upsert_dataset_records(made.dataset_id, [record])
    with pytest.raises(MlflowException, match="acme/bad@1 is quarantined"):
        store.set_dataset_tags(made.dataset_id, {"guard.dataset.evaluation": "acme/bad@1"})
    store.set_dataset_tags(made.dataset_id, {"owner": "lin"})
    store.delete_dataset_tag(made.dataset_id, "guard.dataset.evaluation")
    with pytest.raises(MlflowException, match="names no registered version"):
        store.upsert_dataset_records(made.dataset_id, [record])
