"""A registered version in a real MLflow store: what its own client reads back, and what its UI shows."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dataset_guard.integrations.mlflow_data import dataset, log_registration, record_registration
from guard_core.errors import UserError
from guard_core.findings import Verdict


def test_a_registration_becomes_a_finished_run_with_the_dataset_on_it(report, client, tracking):
    run = client.get_run(record_registration(report, tracking_uri=tracking))

    assert run.info.status == "FINISHED"
    assert run.info.run_name == "register acme/digits@3"
    [taken] = run.inputs.dataset_inputs
    assert (taken.dataset.name, taken.dataset.digest) == ("digits", "dg1:" + "5a" * 16)
    assert len(taken.dataset.digest) == 36
    assert [(t.key, t.value) for t in taken.tags] == [("mlflow.data.context", "registration")]


def test_the_ui_gets_a_source_type_it_shows_flat_profile_and_a_schema_table(report, client, tracking):
    run = client.get_run(record_registration(report, tracking_uri=tracking))
    shown = run.inputs.dataset_inputs[0].dataset

    assert shown.source_type == "local"
    assert json.loads(shown.source) == {"uri": report.source_uri}
    profile = json.loads(shown.profile)
    assert profile["guard_verdict"] == "quarantine"
    assert profile["num_rows"] == 1_797
    assert all(isinstance(v, str | int) and len(str(v)) <= 45 for v in profile.values())
    assert json.loads(shown.schema)["mlflow_colspec"][0] == {
        "type": "double",
        "name": "pixel_1",
        "required": False,
    }


def test_data_without_an_address_gets_ours(report, client, tracking):
    run = client.get_run(record_registration(replace(report, source_uri="table"), tracking_uri=tracking))
    shown = run.inputs.dataset_inputs[0].dataset
    assert shown.source_type == "trainguard"
    assert json.loads(shown.source) == {"uri": "trainguard://acme/digits@3"}


def test_verdicts_are_searchable_as_run_tags(report, client, tracking):
    made = record_registration(report, tracking_uri=tracking)
    experiment = client.get_experiment_by_name("trainguard-registrations").experiment_id
    query = "tags.`guard.dataset.registration.verdict` = 'quarantine' and tags.`guard.tenant` = 'acme'"
    assert [r.info.run_id for r in client.search_runs([experiment], query)] == [made]
    tags = client.get_run(made).data.tags
    assert tags["guard.dataset.registration"] == "acme/digits@3"
    assert tags["guard.dataset.registration.fingerprint"] == report.fingerprint
    assert "**TrainGuard: quarantine**" in tags["mlflow.note.content"]
    assert tags["mlflow.user"]
    assert client.get_run(made).data.metrics["guard.findings.critical"] == 1


def test_report_and_findings_are_artifacts(report, client, tracking, tmp_path):
    made = record_registration(report, tracking_uri=tracking)

    there = Path(client.download_artifacts(made, "guard", str(tmp_path / "down")))
    assert sorted(p.name for p in there.iterdir()) == ["findings.json", "report.html"]
    assert json.loads((there / "findings.json").read_text())["findings"][0]["rule_id"] == "POIS003"
    assert "a trigger occurs in 54 rows" in (there / "report.html").read_text()


def test_a_registration_inside_a_run_goes_onto_that_run_and_keeps_its_description(report, client, tracking):
    import mlflow

    with mlflow.start_run(description="mine") as run:
        assert log_registration(report) == run.info.run_id
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["mlflow.note.content"] == "mine"
    assert tags["guard.dataset.registration.verdict"] == "quarantine"


def test_without_a_run_there_is_nothing_to_log_to(report, tracking):
    with pytest.raises(UserError, match="no active MLflow run"):
        log_registration(report)


def test_two_versions_with_equal_bytes_keep_their_own_verdicts_in_tags(report, client, tracking):
    waived = replace(report, version=4, verdict=Verdict.ALLOW)
    first, second = (record_registration(r, tracking_uri=tracking) for r in (report, waived))
    verdicts = [client.get_run(r).data.tags["guard.dataset.registration.verdict"] for r in (first, second)]
    assert verdicts == ["quarantine", "allow"]


def test_an_unreachable_server_is_one_sentence_and_says_that_the_registration_stands(report, unused_port):
    with pytest.raises(UserError, match=r"acme/digits@3 is registered, but MLflow at .* did not take"):
        record_registration(report, tracking_uri=f"http://127.0.0.1:{unused_port}")


def test_mlflows_own_log_input_accepts_our_dataset(report, client, tracking):
    import mlflow

    with mlflow.start_run() as run:
        mlflow.log_input(dataset(report), context="training")
    [taken] = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert taken.dataset.digest == report.digest
    back = mlflow.data.get_source(taken)
    assert back.uri == report.source_uri


@pytest.mark.parametrize(
    ("first", "warnings_are"),
    [
        ("mlflow", "error"),
        ("dataset_guard.integrations.mlflow_data", "error"),
        # MLflow meets this one half made and says so; it registers itself once it is whole.
        ("dataset_guard.integrations.mlflow_constructor", "default"),
    ],
)
def test_mlflow_really_has_our_plugins_whatever_is_imported_first(first, warnings_are):
    program = f"""
import warnings
warnings.simplefilter("{warnings_are}")
import {first}
from dataset_guard.integrations.mlflow_data import TrainGuardSource
import mlflow.data
from mlflow.data.dataset_source_registry import _dataset_source_registry, resolve_dataset_source
from mlflow.tracking.context.registry import _run_context_provider_registry
assert [s for s in _dataset_source_registry.sources if s is TrainGuardSource] == [TrainGuardSource]
for name in ("from_trainguard", "from_arrow"):
    assert name in mlflow.data.__all__ and callable(getattr(mlflow.data, name))
assert any(type(p).__name__ == "TrainGuardContext" for p in _run_context_provider_registry)
source = resolve_dataset_source("trainguard://acme/digits@3")
assert type(source) is TrainGuardSource and source.ref == "acme/digits@3"
assert mlflow.data.dataset_source_registry.get_dataset_source_from_json(
    source.to_json(), "trainguard").uri == source.uri
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_constructors_module_keeps_real_annotations():
    """Text annotations make MLflow drop the constructor with a warning (see the module)."""
    from dataset_guard.integrations import mlflow_constructor

    source = Path(mlflow_constructor.__file__).read_text()
    code = [line for line in source.splitlines() if line.startswith(("from ", "import "))]
    assert "from __future__ import annotations" not in code
    for made in (mlflow_constructor.from_trainguard, mlflow_constructor.from_arrow):
        assert isinstance(made.__annotations__["return"], type)


def test_a_source_is_unpickled_where_nothing_was_imported_before():
    from dataset_guard.integrations.mlflow_data import TrainGuardSource

    pickled = pickle.dumps(TrainGuardSource.of("acme/digits@3"))
    program = f"import pickle, warnings; warnings.simplefilter('error'); print(pickle.loads({pickled!r}).uri)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "trainguard://acme/digits@3\n", done.stderr


@pytest.mark.parametrize(
    "foreign",
    [
        "trainguard://acme/digits",
        "trainguard://digits@3",
        "acme/digits@3",
        "s3://b/x@1",
        "x.parquet",
        7,
        None,
    ],
)
def test_our_source_claims_only_its_own_addresses(foreign):
    from dataset_guard.integrations.mlflow_data import TrainGuardSource

    assert not TrainGuardSource._can_resolve(foreign)
