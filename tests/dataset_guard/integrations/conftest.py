"""A real MLflow tracking store per test: one migrated SQLite database per session, copied."""

import shutil

import pyarrow as pa
import pytest

import dataset_guard
from dataset_guard.registration.report import Report
from guard_core.findings import Finding, RowSet, Severity, Verdict
from guard_core.testing import temporary_home


@pytest.fixture(scope="module")
def gate_home():
    """One home for a module of the gate's tests, which add versions and change none."""
    with temporary_home() as opened:
        yield opened


@pytest.fixture(scope="session")
def gate_rows():
    """Enough rows that chance is no excuse for finding them again."""
    return pa.table({"x": [float(i) for i in range(40)], "label": [0, 1] * 20})


@pytest.fixture(scope="module")
def good(gate_home, gate_rows):
    """The report of an allowed version, acme/good@1."""
    return dataset_guard.register(gate_rows, name="good", tenant="acme", home=gate_home, checks=[])


@pytest.fixture(scope="module")
def lin(gate_home):
    """The token of somebody of that tenant."""
    return gate_home.credentials.issue(tenant="acme", user="lin")


@pytest.fixture
def tracking(mlflow_database, tmp_path, monkeypatch):
    """The tracking URI of a fresh store; MLflow's own default for this test, artifacts below tmp_path."""
    import mlflow

    database = tmp_path / "mlflow.db"
    shutil.copy(mlflow_database, database)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    uri = f"sqlite:///{database}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # MLflow sets it too, for good: undone after the test
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("trials")
    yield uri
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def client(tracking):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=tracking)


@pytest.fixture
def report(tmp_path):
    """A quarantined version's report, as registration makes it."""
    return Report(
        name="digits",
        tenant="acme",
        version=3,
        fingerprint="dg1:" + "5a" * 32,
        rows=1_797,
        columns=3,
        verdict=Verdict.QUARANTINE,
        decision_id="dec-1",
        findings=(
            Finding(
                rule_id="POIS003",
                severity=Severity.CRITICAL,
                message="a trigger occurs in 54 rows",
                columns=("pixel_1",),
                rows=RowSet.of(range(54)),
            ),
            Finding(rule_id="QUAL001", severity=Severity.WARNING, message="2 nulls", count=2),
        ),
        label="label",
        source_uri=str(tmp_path / "digits.parquet"),
        schema=(("pixel_1", "float64"), ("scan", "fixed_size_list[4]<float32>"), ("label", "int64")),
        profile={"columns": {"pixel_1": {"nulls": 2}, "label": {"nulls": 0}}},
        policy_revision="rev-1",
        key_id="k" * 64,
    )


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
