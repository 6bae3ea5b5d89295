"""Data withdrawn while a job runs opens one incident, by policy."""

from __future__ import annotations

import pytest

import dataset_guard
from compute_guard.admission.gateway import Admitted, Gateway
from compute_guard.admission.withdrawn import DataWatch
from compute_guard.incidents.store import Incidents
from dataset_guard.registry.destroy import delete


@pytest.fixture
def job(home, tmp_path):
    """An admitted job of acme that declared ``digits``."""
    file = tmp_path / "digits.csv"
    file.write_text("x,y\n" + "".join(f"{i},{i * i}\n" for i in range(100)))
    dataset_guard.register(file, name="digits", tenant="acme", home=home)
    gateway = Gateway(home)
    ada = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
    body = {"entrypoint": "x", "submission_id": "reads", "metadata": {"datasets": "digits"}}
    assert isinstance(gateway.submit(ada, body), Admitted)
    return gateway


def test_sound_data_opens_nothing(home, job):
    assert DataWatch(home, job.ledger).look() == []


def test_a_deleted_set_opens_one_incident_that_names_set_and_decision(home, job):
    watch = DataWatch(home, job.ledger)
    watch.look()
    delete(home, "digits@1", tenant="acme")
    found = DataWatch(home, job.ledger).look()
    assert [(i.tenant, i.job, i.kind, i.severity) for i in found] == [
        ("acme", "reads", "dataset_withdrawn", "incident")
    ]
    assert found[0].channels == ("dataset:acme/digits",)
    assert DataWatch(home, job.ledger).look()[0].id == found[0].id
    assert len(Incidents(home).list()) == 1
