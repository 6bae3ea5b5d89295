"""Evaluation datasets on a server with the gate: what they say of versions is true, or refused."""

import json
from datetime import date

import pyarrow as pa
import pytest
from flask import Flask

import dataset_guard
from dataset_guard.integrations import mlflow_server
from dataset_guard.integrations.mlflow_data import evaluation_records, evaluation_tags
from guard_core.errors import Denied, UserError

RECORDS = "datasets/d-1/records"


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


# --- records that must be rows of the version ----------------------------------------------------


@pytest.fixture(scope="module")
def asked(gate_home):
    """The reference of a version with all that JSON has no word for."""
    rows = pa.table(
        {
            "question": ["one", "two", None],
            "score": pa.array([1.0, 2.5, None], pa.float32()),
            "day": pa.array([date(2026, 1, 2), None, date(2026, 1, 3)]),
            "answer": pa.array([1, 2, 3], pa.int8()),
        }
    )
    return dataset_guard.register(
        rows, name="asked", tenant="acme", label="answer", home=gate_home, checks=[]
    ).ref


@pytest.fixture
def put(send, gate_home, asked, lin):
    """The server's refusal of records for a dataset of that version."""
    tags = evaluation_tags(asked, home=gate_home)
    return lambda records, token=lin: send(RECORDS, token, has=tags, records=json.dumps(records))


def test_rows_of_the_version_are_taken(put, gate_home, asked):
    records = evaluation_records(asked, home=gate_home)
    assert records[0]["expectations"] == {"answer": 1}
    for some in (records, records[1:], records[:1] * 2, []):
        assert put(some) is None


def test_columns_may_be_inputs_or_expectations_as_one_likes(put, gate_home, asked):
    assert put(evaluation_records(asked, expectations=["day", "score"], home=gate_home)) is None
    with pytest.raises(UserError, match="no column 'no'"):
        evaluation_records(asked, expectations=["no"], home=gate_home)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r["expectations"].update(answer=3), "record 1 is no row of acme/asked@1"),
        (lambda r: r["inputs"].update(question="three"), "record 1 is no row of acme/asked@1"),
        (lambda r: r["inputs"].pop("question"), "record 1 lacks column 'question' of"),
        (lambda r: r["inputs"].update(more=1), "record 1 has 'more', which is no column of"),
        (lambda r: r["inputs"].update(answer=2), "record 1 has 'answer' as input and as expectation"),
        (lambda r: r["expectations"].update(answer="x"), "mix types"),
        (lambda r: r["expectations"].update(answer=300), "cannot be taken as int8"),
    ],
)
def test_a_record_that_is_no_row_is_refused_without_its_values(put, gate_home, asked, change, why):
    records = evaluation_records(asked, home=gate_home)[:2]
    change(records[1])
    said = put(records)
    assert why in said
    assert "three" not in said


def test_a_stranger_learns_nothing_about_rows(put, gate_home, asked):
    stranger = gate_home.credentials.issue(tenant="beta", user="eve")
    records = evaluation_records(asked, home=gate_home)
    said = put(records, stranger)
    assert "is not there, or is not shared with you" in said
    assert put([{"inputs": {"question": "guessed"}}], stranger) == said


def test_datasets_that_name_no_version_take_any_records_unless_registered_data_is_required(
    send, lin, registered_only
):
    said = send(RECORDS, lin, records=json.dumps([{"inputs": {"q": 1}}]))
    assert ("names no registered version" in said) if registered_only else said is None


@pytest.mark.parametrize("records", ["{", "[3]", '[{"inputs": 3}]', None])
def test_records_that_mlflow_cannot_read_are_left_to_it(send, gate_home, asked, lin, records):
    assert send(RECORDS, lin, has=evaluation_tags(asked, home=gate_home), records=records) is None


def test_a_server_can_be_told_to_take_the_callers_word(send, put, gate_home, asked, lin, monkeypatch):
    other = [{"inputs": {"question": "of somebody else"}}]
    assert "record 0" in put(other)
    monkeypatch.setenv("TRAINGUARD_MLFLOW_EVALUATION_ROWS", "0")
    assert put(other) is None
    tags = json.dumps(evaluation_tags(asked, home=gate_home))
    assert send("datasets/d-1/tags", lin, method="patch", tags=tags) is None


def test_a_dataset_that_may_hold_other_records_cannot_name_a_version_later(
    send, put, gate_home, asked, good, lin
):
    tags = evaluation_tags(asked, home=gate_home)
    for has in ({}, evaluation_tags("acme/good@1", home=gate_home)):
        said = send("datasets/d-1/tags", lin, method="patch", has=has, tags=json.dumps(tags))
        assert "names its version when it is created" in said
    assert send("datasets/d-1/tags", lin, method="patch", has=tags, tags=json.dumps(tags)) is None
