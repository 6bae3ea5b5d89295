"""No cell of the data leaves it: not into findings, report, record, audit log, database or MLflow."""

import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_guard.integrations.mlflow_data import record_registration
from dataset_guard.reads.verified_read import read
from dataset_guard.registration.register import register
from guard_core.errors import GuardError

CANARY = "zqx7-canary"


@pytest.fixture
def data(tmp_path):
    """Text, label, binary and date columns full of canaries; rows repeat, so that checks find something."""
    random.seed(3)
    rows = 600
    words = [
        f"{CANARY}-{i % 200} password={CANARY}{i % 200} ada{i % 200}@{CANARY}.example" for i in range(rows)
    ]
    table = pa.table(
        {
            "text": words,
            "token": [f"AKIA{CANARY[:4].upper()}{i % 200:012d}" for i in range(rows)],
            "blob": [f"{CANARY}{i % 200}".encode() for i in range(rows)],
            "x": [random.random() for _ in range(rows)],
            "label": [f"{CANARY}-class-{i % 3}" for i in range(rows)],
        }
    )
    path = tmp_path / "data.parquet"
    pq.write_table(table, path)
    return path


def test_nothing_that_is_written_holds_a_cell(home, data, tmp_path, monkeypatch, mlflow_database):
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts below the working directory
    first = register(data, name="first", tenant="acme", label="label", home=home)
    second = register(data, name="second", tenant="acme", label="label", against=["first@1"], home=home)
    assert second.findings
    uri = f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'mlflow.db')}"
    for report in (first, second):
        record_registration(report, tracking_uri=uri)
    try:
        read("acme/second@1", home=home).to_table()
    except GuardError as error:
        assert CANARY not in str(error)
    shown = "".join(text for r in (first, second) for text in (repr(r), r._repr_html_(), r.to_html()))
    assert CANARY not in shown

    written = [p for p in tmp_path.rglob("*") if p.is_file() and p != data]
    assert {"report.html", "findings.json", "record.dsse.json", "mlflow.db"} <= {p.name for p in written}
    for path in written:
        content = path.read_bytes().lower()
        assert CANARY.encode() not in content, path
        assert b"akiazqx7" not in content, path
