"""What the gate takes from a request, and what it does not."""

import base64
import json

import pytest

from dataset_guard.integrations.mlflow_evaluation import PATHS
from dataset_guard.integrations.mlflow_fields import profile
from dataset_guard.integrations.mlflow_gate import LoggedDataset, refusal, token_of
from dataset_guard.integrations.mlflow_server import GATED, PROMPT_JOBS, logged_datasets

TOKEN = "tg_0123456789abcdef_" + "A" * 43
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJsaW4ifQ.c2ln"


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("own", "authorization", "token"),
    [
        ("", "", None),
        ("", "Bearer tg_1", "tg_1"),
        ("", basic(f"anyone:{TOKEN}"), TOKEN),
        ("", basic(f"anyone:{JWT}"), JWT),
        ("", basic("ann:her MLflow password"), None),
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


def test_a_trainguard_digest_without_a_token_is_refused(gate_home):
    why = refusal(
        gate_home, None, [LoggedDataset("digits", "dg1:" + "0" * 32, "training")], registered_only=False
    )
    assert "MLFLOW_TRACKING_TOKEN" in why


def test_a_digest_that_nobody_registered_is_refused(gate_home):
    token = gate_home.credentials.issue(tenant="acme", user="lin")
    logged = [LoggedDataset("digits", "dg1:" + "0" * 32, "training")]
    assert "no registered version has digest" in refusal(gate_home, token, logged, registered_only=False)


def test_an_unknown_token_is_refused(gate_home):
    logged = [LoggedDataset("digits", "dg1:" + "0" * 32, "training")]
    assert refusal(gate_home, TOKEN, logged, registered_only=False)


def test_foreign_digests_pass_unless_registered_data_is_required(gate_home):
    logged = [LoggedDataset("iris", "0b1c2d3e", "training")]
    assert refusal(gate_home, None, logged, registered_only=False) is None
    assert "not registered" in refusal(gate_home, None, logged, registered_only=True)


def with_profile(gate_home, good, lin, **altered):
    said = {key: value for key, value in {**profile(good), **altered}.items() if value is not None}
    logged = LoggedDataset("good", good.digest, "training", json.dumps(said))
    return refusal(gate_home, lin, [logged], registered_only=False)


def test_the_profile_that_our_client_makes_passes(gate_home, good, lin):
    assert with_profile(gate_home, good, lin) is None


@pytest.mark.parametrize(
    "altered",
    [
        {"guard_verdict": "warn"},
        {"guard_version": "acme/good@2"},
        {"guard_findings": "0 critical"},
        {"guard verdict": "allow"},
        {"Guard__Reviewed": "by TrainGuard"},
        {"guard_verdict": None},
        {"guard_policy_revision": "other"},
    ],
)
def test_a_profile_that_says_other_things_in_our_name_is_refused(gate_home, good, lin, altered):
    assert "not what the registry says" in with_profile(gate_home, good, lin, **altered)


def test_a_claim_beside_a_foreign_digest_is_refused(gate_home, good, lin):
    said = json.dumps(profile(good))
    logged = LoggedDataset("iris", "0b1c2d3e", "training", said)
    assert "speaks in TrainGuard's name" in refusal(gate_home, lin, [logged], registered_only=False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"num_rows": 3}'])
def test_a_profile_without_claims_is_nobodys_business(gate_home, text):
    logged = [LoggedDataset("iris", "0b1c2d3e", "training", text)]
    assert refusal(gate_home, None, logged, registered_only=False) is None


TOUCH_NO_RUN = {
    "searchLoggedModels",
    "getDataset",
    "deleteDataset",
    "deleteDatasetTag",
    "getDatasetExperimentIds",
    "getDatasetRecords",
    "deleteDatasetRecords",
    "addDatasetToExperiments",
    "removeDatasetFromExperiments",
}
"""Methods of MLflow 3.17 that name a dataset and put none on a run: queries, and places of records."""


def named_fields(message, above=()):
    for field in message.fields:
        if any(word in field.name for word in ("dataset", "digest", "profile")):
            yield field.name
        if field.message_type is not None and field.message_type.full_name not in above:
            yield from named_fields(field.message_type, (*above, message.full_name))


def test_every_method_of_mlflow_that_names_a_dataset_is_gated_or_puts_none_on_a_run():
    from mlflow.protos import databricks_pb2, service_pb2

    gated, others = set(), set()
    for method in service_pb2.DESCRIPTOR.services_by_name["MlflowService"].methods:
        if any(named_fields(method.input_type)):
            paths = {e.path for e in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints}
            (gated if paths & {*GATED, *PROMPT_JOBS} else others).add(method.name)
    assert len(gated) == len(GATED) + len(PROMPT_JOBS)
    assert others == TOUCH_NO_RUN | {name for _, name in PATHS}
