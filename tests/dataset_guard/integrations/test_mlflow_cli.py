"""``trainguard dataset register --mlflow``: the version first, then MLflow's copy of it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guard_core.cli import main


@pytest.fixture
def register(home_dir, tracking, tmp_path, capsys):
    """Runs the command in a folder with ``t.parquet``; gives (status, stdout, stderr)."""
    pq.write_table(pa.table({"x": [1.0, 2.0], "label": [0, 1]}), tmp_path / "t.parquet")

    def command(*more):
        capsys.readouterr()
        arguments = ["register", "t.parquet", "--name", "t", "--tenant", "acme", "--format", "json", *more]
        status = main(["dataset", *arguments])
        return status, *capsys.readouterr()

    return command


def test_a_registration_is_recorded_where_asked_and_json_stays_alone_on_stdout(register, client, tracking):
    status, out, err = register("--mlflow", tracking)
    assert status == 0
    run = client.get_run(err.split("MLflow run ")[1].split()[0])
    [taken] = run.inputs.dataset_inputs
    assert taken.dataset.digest == json.loads(out)["digest"]
    assert run.data.tags["guard.dataset.registration"] == "acme/t@1"


def test_the_environment_variable_of_mlflow_is_enough(register, client):
    _, _, err = register()
    assert client.get_run(err.split("MLflow run ")[1].split()[0]).info.status == "FINISHED"


def test_without_an_address_mlflow_is_left_alone(register, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    status, _, err = register()
    assert (status, "MLflow" in err) == (0, False)


def test_when_mlflow_is_away_the_version_stands_and_one_sentence_says_so(register, home, unused_port):
    status, out, err = register("--mlflow", f"http://127.0.0.1:{unused_port}")
    assert status == 2
    assert "acme/t@1 is registered, but MLflow at" in err
    assert json.loads(out)["version"] == 1
    assert [e["subject"] for e in home.audit.records(kind="dataset.registered")] == ["acme/t@1"]
