"""Admission on a real home with the shipped policies, without Ray."""

from __future__ import annotations

import shutil

import pytest

from compute_guard.admission.gateway import Admitted, Gateway, Held, Refused
from compute_guard.admission.workload import WorkloadState
from guard_core.config import load_settings
from guard_core.errors import Denied
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies


@pytest.fixture
def gateway(home):
    return Gateway(home)


@pytest.fixture
def ada(home):
    return home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))


def ask(name: str, cpus: float = 1, **more: object) -> dict[str, object]:
    return {"entrypoint": f"echo {name}", "submission_id": name, "entrypoint_num_cpus": cpus, **more}


def test_an_admitted_job_is_reserved_before_ray_hears_of_it(gateway, ada):
    outcome = gateway.submit(ada, ask("one", 2))
    assert isinstance(outcome, Admitted)
    assert gateway.ledger.get("one").state is WorkloadState.ADMITTED
    assert gateway.ledger.reservations()["one"]["cpu_milli"] == 2000


def test_ray_gets_the_users_job_with_a_credential_of_its_own(gateway, ada, home):
    metadata = {"team": "vision", "trainguard_tenant": "beta", "datasets": ""}
    outcome = gateway.submit(ada, ask("one", metadata=metadata, runtime_env={"env_vars": {"A": "b"}}))
    assert outcome.body["entrypoint"] == "echo one"
    assert outcome.body["metadata"] == {"team": "vision", "datasets": "", "trainguard_tenant": "acme"}
    variables = outcome.body["runtime_env"]["env_vars"]
    assert variables["A"] == "b"
    assert variables["TRAINGUARD_HOME"] == str(home.settings.home)
    principal = home.credentials.verify(variables["TRAINGUARD_TOKEN"])
    assert (principal.kind, principal.tenant, principal.workload) == ("job", "acme", "one")
    gateway.finish("one", WorkloadState.FINISHED, "SUCCEEDED: done")
    with pytest.raises(Denied, match="revoked"):
        home.credentials.verify(variables["TRAINGUARD_TOKEN"])


def test_what_does_not_fit_waits_in_order_and_is_released_in_order(gateway, ada):
    gateway.submit(ada, ask("runs", 2))
    big, small = gateway.submit(ada, ask("big", 2)), gateway.submit(ada, ask("small", 0))
    assert isinstance(big, Held)
    assert "[quota-busy]" in big.reason
    assert isinstance(small, Held)
    assert "1 ahead in queue acme: big [queue-order]" in small.reason
    assert gateway.release() == []
    gateway.finish("runs", WorkloadState.FINISHED, "SUCCEEDED:")
    assert [admitted.id for admitted in gateway.release()] == ["big", "small"]


def test_a_job_that_was_taken_out_goes_again_as_soon_as_there_is_room(gateway, ada):
    gateway.submit(ada, ask("runs", 2))
    gateway.submit(ada, ask("waits", 2))
    gateway.finish("runs", WorkloadState.FINISHED, "SUCCEEDED:")
    assert [admitted.id for admitted in gateway.release()] == ["waits"]
    # Back in its line it has the numbers it was asked about with before, and that answer was used up.
    assert gateway.requeue("waits", "taken out")
    assert [admitted.id for admitted in gateway.release()] == ["waits"]


def test_what_gets_in_in_one_tree_of_cohorts_is_given_before_anybody_gets_in_in_the_next(gateway, ada, home):
    cleo = home.credentials.verify(home.credentials.issue(tenant="canary", user="cleo"))
    for who, names, cpus in ((ada, ("a1", "a2"), 2), (cleo, ("c1", "c2"), 1)):
        for name in names:
            gateway.submit(who, ask(name, cpus))
    gateway.finish("a1", WorkloadState.FINISHED, "SUCCEEDED:")
    gateway.finish("c1", WorkloadState.FINISHED, "SUCCEEDED:")
    seen = []
    for admitted in gateway.releases():
        seen += [one.id for one in admitted]
        assert set(gateway.ledger.reservations()) == set(seen)
        on_record = [r["subject"] for r in home.audit.records(kind="workload.state")][-1]
        assert on_record == seen[-1]
    assert sorted(seen) == ["a2", "c2"]


def test_what_changes_in_a_tree_before_it_is_its_turn_counts_although_it_was_looked_at(gateway, ada, home):
    cleo = home.credentials.verify(home.credentials.issue(tenant="canary", user="cleo"))
    for who, names, cpus in ((ada, ("a1", "a2"), 2), (cleo, ("c1", "c2"), 1)):
        for name in names:
            gateway.submit(who, ask(name, cpus))
    gateway.finish("a1", WorkloadState.FINISHED, "SUCCEEDED:")
    gateway.finish("c1", WorkloadState.FINISHED, "SUCCEEDED:")
    rounds = gateway.releases()
    (first,) = next(rounds)
    other, cpus = {"a2": ("c", 1), "c2": ("a", 2)}[first.id]
    urgent = ask("urgent", cpus, metadata={"priority": "9"})
    assert isinstance(gateway.submit(cleo if other == "c" else ada, urgent), Admitted)
    assert [one.id for admitted in rounds for one in admitted] == []
    assert gateway.ledger.get(f"{other}2").state is WorkloadState.PENDING
    admitted = [r for r in home.audit.records(kind="workload.state") if r["data"]["state"] == "admitted"]
    assert {r["subject"] for r in admitted} == {"a1", "c1", first.id, "urgent"}


def test_releasing_twice_releases_once(gateway, ada):
    gateway.submit(ada, ask("runs", 2))
    gateway.submit(ada, ask("waits", 2))
    gateway.finish("runs", WorkloadState.FINISHED, "SUCCEEDED:")
    assert len(gateway.release()) == 1
    assert gateway.release() == []


def test_a_job_that_waits_is_decided_again_when_its_turn_comes(home_dir, tmp_path):
    policies = tmp_path / "policies"
    shutil.copytree(shipped_policies(), policies)
    with Home.open(load_settings(home=home_dir, policy={"dir": policies})) as home:
        gateway = Gateway(home)
        ada = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
        gateway.submit(ada, ask("runs", 2))
        gateway.submit(ada, ask("waits", 2))
        tenants = policies / "data" / "tenants.yaml"
        text = tenants.read_text()
        first = text.index("state: active")
        tenants.write_text(text[:first] + "state: suspended" + text[first + len("state: active") :])
        gateway.finish("runs", WorkloadState.FINISHED, "SUCCEEDED:")
        assert gateway.release() == []
        entry = gateway.ledger.get("waits")
        assert entry.state is WorkloadState.DENIED
        assert "acme" in entry.reason


def test_a_queue_that_used_up_its_gpu_hours_lets_jobs_in_again_once_enough_is_forgotten(
    home_dir, tmp_path, clock
):
    policies = tmp_path / "policies"
    shutil.copytree(shipped_policies(), policies)
    file = policies / "data" / "quotas.yaml"
    budget = "    tenant: acme\n    budget: {gpu_hours: 4, half_life_hours: 10}\n"
    file.write_text(file.read_text().replace("    tenant: acme\n", budget))
    with Home.open(load_settings(home=home_dir, policy={"dir": policies}), clock=clock) as home:
        gateway = Gateway(home)
        ada = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
        assert isinstance(gateway.submit(ada, ask("uses", 1, entrypoint_num_gpus=1)), Admitted)
        clock.advance(seconds=5 * 3600)
        gateway.finish("uses", WorkloadState.FINISHED, "SUCCEEDED:")
        # A GPU for 5 h, half of it forgotten in 10 h: 10 / ln 2 * (1 - 2 ** -0.5) = 4.23 GPU-hours of 4.
        held = gateway.submit(ada, ask("waits", 1, entrypoint_num_gpus=1))
        assert isinstance(held, Held)
        assert "[budget-spent]" in held.reason
        assert isinstance(gateway.submit(ada, ask("without", 1)), Admitted)  # it asks for no GPU
        clock.advance(seconds=0.6 * 3600)  # 4.05
        assert gateway.release() == []
        clock.advance(seconds=0.4 * 3600)  # 3.94
        assert [one.id for one in gateway.release()] == ["waits"]


def test_a_waiting_job_is_not_put_to_policy_again_while_nothing_changes(gateway, ada, home):
    gateway.submit(ada, ask("runs", 2))
    gateway.submit(ada, ask("waits", 1))
    before = len(list(home.audit.records()))
    for _ in range(5):
        gateway.release()
    assert len(list(home.audit.records())) == before


@pytest.mark.parametrize("fault", ["rule", "data", "engine"])
def test_without_a_usable_policy_nothing_is_admitted(home_dir, tmp_path, fault):
    policies = tmp_path / "policies"
    shutil.copytree(shipped_policies(), policies)
    settings = {"dir": policies}
    if fault == "rule":
        rego = next(policies.rglob("admission.rego"))
        rego.write_text(rego.read_text().replace("decision := {", "renamed := {"))
    elif fault == "data":
        (policies / "data" / "quotas.yaml").write_text("queues: 5\n")
    else:
        settings |= {"engine": "server", "server_url": "http://127.0.0.1:9"}
    with Home.open(load_settings(home=home_dir, policy=settings)) as home:
        gateway = Gateway(home)
        ada = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
        outcome = gateway.submit(ada, ask("one"))
        assert isinstance(outcome, Refused)
        assert outcome.status == 503
        assert gateway.ledger.get("one") is None


def test_a_refused_job_may_be_mended_and_keep_its_name(gateway, ada):
    assert isinstance(gateway.submit(ada, ask("one", 99)), Refused)
    assert gateway.ledger.get("one").state is WorkloadState.DENIED
    assert isinstance(gateway.submit(ada, ask("one", 1)), Admitted)


def test_a_name_that_is_in_use_is_refused(gateway, ada):
    gateway.submit(ada, ask("one"))
    outcome = gateway.submit(ada, ask("one"))
    assert outcome.status == 400
    assert "already exists" in outcome.text


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"working_dir": "file:///etc"}, "file of the cluster's machines"),
        ({"working_dir": "/etc"}, "must be URIs"),
        ({"py_modules": ["gcs://somebody.zip"]}, "not a package that Ray's client uploads"),
        ({"py_modules": "gcs://_ray_pkg_1.zip/../x"}, "not a package"),
    ],
)
def test_code_is_only_what_was_uploaded(gateway, ada, environment, words):
    outcome = gateway.submit(ada, ask("one", runtime_env=environment))
    assert outcome.status == 400
    assert words in outcome.text


def test_the_same_upload_has_another_name_for_each_tenant(gateway, ada, home):
    bea = home.credentials.verify(home.credentials.issue(tenant="beta", user="bea"))
    environment = {"working_dir": "gcs://_ray_pkg_abc.zip", "py_modules": ["gcs://_ray_pkg_def.zip"]}
    ours = gateway.submit(ada, ask("one", runtime_env=environment)).body["runtime_env"]
    theirs = gateway.submit(bea, ask("two", runtime_env=environment)).body["runtime_env"]
    assert ours["working_dir"].endswith("_abc.zip")
    assert ours["working_dir"] != theirs["working_dir"]
    assert ours["py_modules"] != theirs["py_modules"]
