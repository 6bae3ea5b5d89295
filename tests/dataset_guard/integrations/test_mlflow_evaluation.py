"""Evaluation datasets on a server with the gate: what they say of versions is true, or refused."""

import json

import pytest
from flask import Flask

from dataset_guard.integrations import mlflow_server
from dataset_guard.integrations.mlflow_data import evaluation_tags
from guard_core.errors import Denied

CREATE, RECORDS, TAGS = "create", "d-1/records", "d-1/tags"


@pytest.fixture(params=["0", "1"])
def registered_only(request, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_MLFLOW_REGISTERED_ONLY", request.param)
    return request.param == "1"


@pytest.fixture
def send(gate_home, monkeypatch):
    """What the server answers: 403 for a refusal, else MLflow's own (here: there is no such page)."""
    monkeypatch.setattr(mlflow_server, "home", lambda: gate_home)
    browser = mlflow_server.create_app(Flask("mlflow")).test_client()

    def sent(path, token=None, *, method="post", has=None, **body):
        monkeypatch.setattr(mlflow_server, "_tags_of_evaluation", lambda _: has or {})
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = getattr(browser, method)(f"/api/3.0/mlflow/{path}", json=body, headers=headers)
        return answer.json["message"] if answer.status_code == 403 else None

    return sent


def test_a_dataset_of_a_registered_version_is_made_and_takes_records(
    send, gate_home, good, lin, registered_only
):
    tags = evaluation_tags("acme/good@1", home=gate_home)
    assert send("datasets/create", lin, name="q", tags=json.dumps(tags)) is None
    assert send("datasets/d-1/records", lin, has=tags, records="[]") is None
    assert send("prompt-optimization/jobs", lin, has=tags, config={"dataset_id": "d-1"}) is None


def test_one_that_names_no_version_is_refused_where_registered_data_is_required(send, lin, registered_only):
    for path, body in (
        ("datasets/create", {"name": "q"}),
        ("datasets/create", {"name": "q", "tags": json.dumps({"guard": "no"})}),
        ("datasets/d-1/records", {"records": "[]"}),
        ("prompt-optimization/jobs", {"config": {"dataset_id": "d-1"}}),
    ):
        said = send(path, lin, **body)
        assert ("names no registered version" in said) if registered_only else said is None


def test_what_the_registry_does_not_say_is_refused(send, gate_home, good, lin, registered_only):
    true = evaluation_tags("acme/good@1", home=gate_home)
    forged = json.dumps({**true, "guard.dataset.evaluation.fingerprint": "dg1:" + "0" * 64})
    assert "not what the registry says" in send("datasets/create", lin, name="q", tags=forged)
    assert "not what the registry says" in send("datasets/d-1/tags", lin, method="patch", tags=forged)
    assert "known people" in send("datasets/create", name="q", tags=json.dumps(true))
    assert send("datasets/d-1/tags", lin, method="patch", tags=json.dumps({"mine": "1"})) is None


def test_a_version_that_policy_refuses_is_no_evaluation_data(send, gate_home, good, lin):
    stranger = gate_home.credentials.issue(tenant="beta", user="eve")
    with pytest.raises(Denied):
        evaluation_tags("acme/good@1", tenant="beta", home=gate_home)
    said = send(
        "datasets/create", stranger, name="q", tags=json.dumps(evaluation_tags("acme/good@1", home=gate_home))
    )
    assert "is not there, or is not shared with you" in said


def test_what_mlflow_cannot_read_is_left_to_it(send, lin):
    for tags in ("{", "[1]", 3, None):
        assert send("datasets/create", lin, name="q", tags=tags) is None


def test_a_dataset_is_asked_about_again_when_it_takes_records(send, gate_home, lin, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_MLFLOW_REGISTERED_ONLY", "1")
    gone = {"guard.dataset.evaluation": "acme/nothing@1"}
    assert send("datasets/d-1/records", lin, has=gone, records="[]")
