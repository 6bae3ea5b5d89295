"""From a bad version to the runs that used it."""

import json
from dataclasses import replace

import mlflow
import pyarrow as pa
import pytest

from dataset_guard.integrations.mlflow_data import dataset, record_registration
from dataset_guard.integrations.mlflow_lineage import MARK, mark_runs, runs_using
from dataset_guard.registration.register import register
from guard_core.cli import main
from guard_core.findings import Verdict


def train(report, name, context="training"):
    with mlflow.start_run(run_name=name) as run:
        mlflow.log_input(dataset(report), context=context)
    return run.info.run_id


def test_runs_of_all_experiments_that_used_the_bytes_are_found(report, tracking):
    record_registration(report, tracking_uri=tracking)
    first = train(report, "first")
    mlflow.set_experiment("another")
    second = train(replace(report, name="renamed"), "second", context="validation")
    train(replace(report, fingerprint="dg1:" + "00" * 32, digest=""), "clean")

    found = runs_using(report.digest, tracking_uri=tracking)
    assert [(u.run_id, u.run_name, u.dataset, u.contexts) for u in found] == [
        (first, "first", "digits", ("training",)),
        (second, "second", "renamed", ("validation",)),
    ]


def test_runs_of_a_quarantined_version_are_marked_once_and_it_is_on_record(report, client, tracking, home):
    bad = train(report, "bad")
    clean = train(replace(report, fingerprint="dg1:" + "00" * 32, digest=""), "clean")

    assert [u.run_id for u in mark_runs(report, tracking_uri=tracking, home=home)] == [bad]
    tags = client.get_run(bad).data.tags
    assert tags[MARK] == "acme/digits@3"
    assert tags[f"{MARK}.reason"] == "quarantine: 1 critical, 1 warning"
    assert MARK not in client.get_run(clean).data.tags
    [event] = home.audit.records(kind="dataset.runs_marked")
    assert event["subject"] == "acme/digits@3"
    assert event["data"]["runs"] == [bad]
    assert event["enforcement"] == "detective"

    moment = tags[f"{MARK}.at"]
    assert [u.marks for u in mark_runs(report, tracking_uri=tracking, home=home)] == [("acme/digits@3",)]
    assert client.get_run(bad).data.tags[f"{MARK}.at"] == moment


def test_runs_of_an_allowed_version_are_marked_only_for_a_reason(report, client, tracking, home):
    allowed = replace(report, verdict=Verdict.ALLOW)
    run = train(allowed, "was fine")
    with pytest.raises(ValueError, match="say the reason"):
        mark_runs(allowed, tracking_uri=tracking, home=home)
    mark_runs(allowed, reason="labels found to be wrong", tracking_uri=tracking, home=home)
    assert client.get_run(run).data.tags[f"{MARK}.reason"] == "labels found to be wrong"


def test_the_command_lists_and_marks_runs_of_a_registered_version(tracking, home, client, capsys):
    table = pa.table({"x": [1.0, 2.0], "label": [0, 1]})
    registered = register(table, name="set", tenant="acme", label="label", home=home, checks=[])
    run = train(registered, "used it")
    capsys.readouterr()
    assert main(["dataset", "runs", "acme/set@1"]) == 0
    out, err = capsys.readouterr()
    assert out.split()[:3] == [run, "used", "it"]
    assert "1 run logged the content of acme/set@1" in err
    assert main(["dataset", "runs", "acme/set@1", "--mark"]) == 2
    assert "say the reason" in capsys.readouterr().err
    assert main(["dataset", "runs", "acme/set@1", "--mark", "--reason", "labels were wrong"]) == 0
    assert client.get_run(run).data.tags[f"{MARK}.reason"] == "labels were wrong"
    capsys.readouterr()
    assert main(["dataset", "runs", "acme/set@1", "--format", "json"]) == 0
    [use] = json.loads(capsys.readouterr().out)
    assert (use["run_id"], use["marks"]) == (run, ["acme/set@1"])
