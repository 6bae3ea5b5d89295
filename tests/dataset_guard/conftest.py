"""Helper modules beside the tests (``reference_dg1``, ``dg1_tables``) are imported by their bare names."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory):
    """A migrated MLflow store, to be copied: making one takes seconds."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "template.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path
