"""MLflow and the registry together: really registered versions, read back by MLflow's own client."""

import json
from pathlib import Path

import mlflow
import pyarrow as pa
import pytest

from dataset_guard.integrations.mlflow_data import log_input, record_registration
from dataset_guard.integrations.mlflow_lineage import runs_using
from dataset_guard.registration.register import register
from guard_core.errors import Denied, UserError
from guard_core.findings import Verdict

ROWS = pa.table({"x": [float(i) for i in range(40)], "label": [0, 1] * 20})  # enough that chance is no excuse


@pytest.fixture
def good(home):
    return register(ROWS, name="good", tenant="acme", label="label", home=home, checks=[])


@pytest.fixture
def bad(home, good):
    """The same rows once more, as a training set that may not share rows with ``good``: quarantined."""
    checks = ["exact_overlap"]
    made = register(
        ROWS, name="bad", tenant="acme", label="label", against=["good@1"], home=home, checks=checks
    )
    assert made.verdict is Verdict.QUARANTINE
    return made


def test_the_signed_attestation_is_with_the_run_and_verifies(home, good, client, tracking, tmp_path):
    made = record_registration(good, tracking_uri=tracking)
    there = Path(client.download_artifacts(made, "guard/attestation.intoto.jsonl", str(tmp_path)))
    [line] = there.read_text().splitlines()
    statement = home.signer.verify(json.loads(line))
    assert statement["predicate"]["ref"] == "acme/good@1"
    assert statement["predicate"]["content"]["fingerprint"] == good.fingerprint


def test_logging_an_input_asks_policy_and_puts_the_version_on_the_run(home, good, client, tracking):
    with mlflow.start_run() as run:
        report = log_input("acme/good@1", context="training", home=home)
    assert report.fingerprint == good.fingerprint
    found = client.get_run(run.info.run_id)
    [taken] = found.inputs.dataset_inputs
    assert (taken.dataset.name, taken.dataset.digest) == ("good", good.digest)
    assert json.loads(taken.dataset.profile)["guard_verdict"] == "allow"
    assert found.data.tags["guard.dataset.training"] == "acme/good@1"
    assert found.data.tags["guard.dataset.training.verdict"] == "allow"
    assert [u.run_id for u in runs_using(good.digest, tracking_uri=tracking)] == [run.info.run_id]


def test_a_quarantined_version_is_not_logged_as_training_data(home, bad, client, tracking):
    with mlflow.start_run() as run, pytest.raises(Denied, match="quarantined"):
        log_input("acme/bad@1", context="training", home=home)
    assert client.get_run(run.info.run_id).inputs.dataset_inputs == []


def test_mlflows_constructor_and_source_lead_to_verified_rows(good, home, tracking):
    made = mlflow.data.from_trainguard("acme/good@1")
    assert (made.name, made.digest) == ("good", good.digest)
    with mlflow.start_run() as run:
        mlflow.log_input(made, context="training")
    [taken] = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert made.load().to_table().equals(ROWS)
    assert mlflow.data.get_source(taken).uri == good.source_uri
    source = mlflow.data.dataset_source_registry.resolve_dataset_source("trainguard://acme/good@1")
    assert source.load().to_pandas()["label"].tolist() == [0, 1] * 20
    reads = [e["data"]["purpose"] for e in home.audit.records(kind="dataset.read")]
    assert reads == ["train", "train"]


def test_a_digest_that_is_not_the_versions_own_is_refused(good, tracking):
    for make in (
        lambda d: mlflow.data.from_trainguard("acme/good@1", digest=d),
        lambda d: mlflow.data.from_arrow(ROWS, digest=d),
    ):
        with pytest.raises(UserError, match="has digest"):
            make("dg1:" + "0" * 32)


def test_an_arrow_table_has_the_digest_of_the_version_with_its_rows(good, client, tracking):
    made = mlflow.data.from_arrow(ROWS, source="/data/rows.parquet", name="rows")
    with mlflow.start_run() as run:
        mlflow.log_input(made, context="training")
    [taken] = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert (taken.dataset.name, taken.dataset.digest) == ("rows", good.digest)
    assert json.loads(taken.dataset.profile) == {"num_rows": 40, "num_elements": 80}
    columns = json.loads(taken.dataset.schema)["mlflow_colspec"]
    assert [(c["name"], c["type"]) for c in columns] == [("label", "long"), ("x", "double")]
    assert mlflow.data.from_arrow(ROWS.slice(0, 39)).digest != good.digest


def test_every_run_says_whose_credential_it_was_made_with(home, client, tracking, monkeypatch):
    with mlflow.start_run() as run:
        pass
    tags = client.get_run(run.info.run_id).data.tags
    assert (tags["guard.tenant"], "guard.plugin_version" in tags) == ("local", True)

    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="acme", user="lin"))
    with mlflow.start_run() as run:
        pass
    assert client.get_run(run.info.run_id).data.tags["guard.tenant"] == "acme"

    monkeypatch.setenv("TRAINGUARD_TOKEN", "tg_0123456789abcdef_" + "A" * 43)
    with mlflow.start_run() as run:
        pass
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["guard.identity"] == "unverified"
    assert "guard.tenant" not in tags
