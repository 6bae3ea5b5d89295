"""A cluster per tenant, one ledger: two homes over one store, each admitting for all and starting its own."""

from __future__ import annotations

import shutil

import pytest
import yaml

from compute_guard.admission.gateway import Admitted, Gateway, Held
from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Ledger
from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies


@pytest.fixture
def gateways(tmp_path, migrated_database):
    """The gateways of acme's and beta's clusters. Acme has 2 CPUs and lends them; beta has 1, and borrows."""
    shutil.copy(migrated_database, tmp_path / "shared.db")
    policies = tmp_path / "policies"
    shutil.copytree(shipped_policies(), policies)
    file = policies / "data" / "quotas.yaml"
    quotas = yaml.safe_load(file.read_text())
    quotas["queues"]["acme"]["resources"]["cpu_milli"]["lending_limit"] = None
    quotas["queues"]["beta"]["resources"]["cpu_milli"]["borrowing_limit"] = None
    file.write_text(yaml.safe_dump(quotas))
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    settings = [
        load_settings(home=tmp_path / name, policy={"dir": policies}, storage_url=url)
        for name in ("acme", "beta")
    ]
    with Home.open(settings[0]) as acme, Home.open(settings[1]) as beta:
        yield Gateway(acme), Gateway(beta)


def submit(gateway: Gateway, tenant: str, name: str, cpus: float) -> Admitted | Held:
    home = gateway.home
    principal = home.credentials.verify(home.credentials.issue(tenant=tenant, user="ada"))
    body = {"entrypoint": "x", "submission_id": name, "entrypoint_num_cpus": cpus}
    return gateway.submit(principal, body)


def test_quota_borrowing_and_the_line_count_over_both_clusters(gateways):
    acme, beta = gateways
    assert isinstance(submit(beta, "beta", "borrows", 3), Admitted)
    assert isinstance(submit(beta, "beta", "more", 1), Held)
    waits = submit(acme, "acme", "own", 2)
    assert isinstance(waits, Held)  # beta's cluster has what is acme's: it was given notice
    assert Ledger(beta.home.storage).get("borrows").eviction is not None
    beta.requeue("borrows", "its notice has run out")
    assert {one.id for one in acme.release()} >= {"own"}
    assert set(Ledger(acme.home.storage).reservations()) == set(Ledger(beta.home.storage).reservations())


def test_what_one_clusters_round_admits_for_another_is_started_by_its_own(gateways):
    acme, beta = gateways
    submit(beta, "beta", "runs", 3)
    submit(beta, "beta", "next", 1)
    acme.finish("runs", WorkloadState.FINISHED, "SUCCEEDED:")
    [admitted] = acme.release()  # acme's round looked first
    assert (admitted.id, admitted.body["metadata"]["trainguard_tenant"]) == ("next", "beta")
    [entry] = beta.ledger.entries(tenant="beta", states=[WorkloadState.ADMITTED])
    again = beta.resubmission(entry)  # what beta's reconciler does for a job that Ray has not heard of
    variables = again.body["runtime_env"]["env_vars"]
    principal = beta.home.credentials.verify(variables["TRAINGUARD_TOKEN"])
    assert (again.id, principal.tenant, principal.workload) == ("next", "beta", "next")
    assert variables["TRAINGUARD_HOME"] == str(beta.home.settings.home)
    assert acme.release() == [] and beta.release() == []


def test_each_cluster_has_a_lead_of_its_own(gateways):
    acme, beta = gateways
    assert acme.ledger.lead("admission/acme", "head-a", 10)
    assert beta.ledger.lead("admission/beta", "head-b", 10)
    assert not beta.ledger.lead("admission/acme", "head-b", 10)
