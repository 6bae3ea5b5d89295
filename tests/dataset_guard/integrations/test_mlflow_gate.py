"""What the gate takes from a request, and what it does not."""

import base64

import pytest

from dataset_guard.integrations.mlflow_gate import LoggedDataset, refusal, token_of
from dataset_guard.integrations.mlflow_server import logged_datasets


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("own", "authorization", "token"),
    [
        ("", "", None),
        ("", "Bearer tg_1", "tg_1"),
        ("", basic("anyone:tg_2"), "tg_2"),
        ("", basic("anyone"), None),
        ("", "Basic !!!", None),
        ("", "Digest x", None),
        ("tg_3", basic("admin:password"), "tg_3"),
    ],
)
def test_a_token_comes_as_bearer_as_basic_password_or_in_our_own_header(own, authorization, token):
    assert token_of(own, authorization) == token


@pytest.mark.parametrize("run", ["run_id", "runId"])
def test_a_body_is_read_as_mlflow_reads_it_in_either_spelling(run):
    body = {
        run: "r",
        "datasets": [
            {
                "dataset": {"name": "digits", "digest": "dg1:0", "sourceType": "local", "source": "{}"},
                "tags": [{"key": "mlflow.data.context", "value": "training"}],
            }
        ],
    }
    assert logged_datasets(body) == [LoggedDataset("digits", "dg1:0", "training")]


@pytest.mark.parametrize("body", [None, [], "x", {"datasets": 3}])
def test_a_body_that_mlflow_cannot_read_is_left_to_mlflow(body):
    assert logged_datasets(body) == []


def test_a_trainguard_digest_without_a_token_is_refused(home):
    why = refusal(home, None, [LoggedDataset("digits", "dg1:" + "0" * 32, "training")], registered_only=False)
    assert "MLFLOW_TRACKING_TOKEN" in why


def test_a_digest_that_nobody_registered_is_refused(home):
    token = home.credentials.issue(tenant="acme", user="lin")
    logged = [LoggedDataset("digits", "dg1:" + "0" * 32, "training")]
    assert "no registered version has digest" in refusal(home, token, logged, registered_only=False)


def test_an_unknown_token_is_refused(home):
    logged = [LoggedDataset("digits", "dg1:" + "0" * 32, "training")]
    assert refusal(home, "tg_0123456789abcdef_" + "A" * 43, logged, registered_only=False)


def test_foreign_digests_pass_unless_registered_data_is_required(home):
    logged = [LoggedDataset("iris", "0b1c2d3e", "training")]
    assert refusal(home, None, logged, registered_only=False) is None
    assert "not registered" in refusal(home, None, logged, registered_only=True)
