"""Verified reads through the gate's server: real home, credentials, policies and HTTPS; no Ray."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("ray")

import dataset_guard
from compute_guard.admission.gateway import Admitted, Gateway
from compute_guard.ray_plugin.gates.admitting import Drivers
from compute_guard.ray_plugin.gates.authority import CA_FILE, Authority
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.reads import PATH, Reads, reads_environment
from compute_guard.ray_plugin.gates.tenancy import Jobs
from dataset_guard import ray_data
from dataset_guard.reads.access import open_access
from dataset_guard.reads.apart import ADDRESS, AUTHORITY
from guard_core.config import load_settings
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.home import Home


@dataclass
class Cluster:
    """A home with its gate's server, and job `job-1` of acme, which declares `mine`, `kept`, `changed`."""

    home: Home
    folder: Path
    address: str
    token: str
    seen: int = 0

    def events(self) -> list[dict[str, Any]]:
        """What was put on record of reads since the last call."""
        found = [row["data"] for row in self.home.audit.records(kind="dataset.read")]
        new, self.seen = found[self.seen :], len(found)
        return new


def credential(home: Home, name: str, datasets: str) -> str:
    """The credential of an admitted job of acme that declares ``datasets``."""
    principal = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
    body = {"entrypoint": "x", "submission_id": name, "metadata": {"datasets": datasets}}
    outcome = Gateway(home).submit(principal, body)
    assert isinstance(outcome, Admitted), outcome
    return outcome.body["runtime_env"]["env_vars"]["TRAINGUARD_TOKEN"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, migrated_database):
    folder = tmp_path_factory.mktemp("reads")
    (folder / "home").mkdir(mode=0o700)
    shutil.copy(migrated_database, folder / "home" / "trainguard.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with Home.open(load_settings(home=folder / "home")) as home:
        frame = pd.DataFrame({"x": range(200)})
        for tenant, name in (("acme", "mine"), ("acme", "other"), ("acme", "changed"), ("beta", "foreign")):
            file = folder / f"{name}.parquet"
            frame.to_parquet(file)
            dataset_guard.register(file, name=name, tenant=tenant, home=home, checks=[])
        dataset_guard.register(frame, name="kept", tenant="acme", home=home, checks=[])
        token = credential(home, "job-1", "mine, kept, changed")
        # A home of its own, as in the gate's process: an engine of policies stays in the thread that made it.
        judge = Judge(Gateway(Home.open(home.settings)), Enforcement.ENFORCED)
        drivers = Drivers(judge, Jobs(folder / "jobs.jsonl"), lambda: "system")
        authority = Authority(folder / "gate", lambda: "system", dict, Reads(judge, drivers))
        asyncio.run_coroutine_threadsafe(authority.start("127.0.0.1", port), loop).result(30)
        yield Cluster(home, folder, f"https://127.0.0.1:{port}{PATH}", token)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture
def job(cluster, monkeypatch):
    """This process becomes the job: told of its credential and where to ask, and of no home there is."""
    monkeypatch.setenv("TRAINGUARD_HOME", str(cluster.folder / "nothing here"))
    monkeypatch.setenv("TRAINGUARD_TOKEN", cluster.token)
    monkeypatch.setenv(ADDRESS, cluster.address)
    monkeypatch.setenv(AUTHORITY, str(cluster.folder / "gate" / CA_FILE))
    cluster.events()
    yield cluster
    assert not (cluster.folder / "nothing here").exists()


def test_what_was_declared_is_read_and_put_on_record_by_the_home(job):
    assert len(dataset_guard.read("mine").to_pandas()) == 200
    assert len(dataset_guard.read("kept").to_pandas()) == 200
    assert [(e["ref"], e["rows"], e["complete"], e["workload"]) for e in job.events()] == [
        ("acme/mine@1", 200, True, "job-1"),
        ("acme/kept@1", 200, True, "job-1"),
    ]


@pytest.mark.parametrize("ref", ["other", "beta/foreign"])
def test_what_was_not_declared_or_is_anothers_is_refused_by_policy(job, ref):
    with pytest.raises(Denied, match=f"{ref}@1 may not be used") as refused:
        dataset_guard.read(ref)
    assert refused.value.decision_id


def test_what_does_not_exist_and_nonsense_are_said_as_such(job):
    with pytest.raises(UserError, match="there is no dataset 'none'"):
        dataset_guard.read("none")
    with pytest.raises(UserError, match="purpose 'fun' is unknown"):
        dataset_guard.read("mine", purpose="fun")


def test_changed_data_reaches_nobody(job):
    pd.DataFrame({"x": [*range(199), 7]}).to_parquet(job.folder / "changed.parquet")
    with pytest.raises(Tampered, match="acme/changed@1 was changed"):
        dataset_guard.read("changed").to_pandas()
    assert [(e["rows"], e["complete"]) for e in job.events()] == [(0, False)]


def test_tasks_of_ray_leave_their_counts_at_the_gate(job):
    with open_access("mine", purpose="train") as access:
        plan = pickle.loads(pickle.dumps(ray_data.plan_of(access, None)))
    for number, (first, end) in enumerate(plan.ranges(2)):
        list(pickle.loads(pickle.dumps(plan.task(number, first, end)))())
    assert plan.spool.collect(problem=None)
    assert plan.spool.collect(problem=None) is None
    [event] = job.events()
    assert (event["rows"], event["complete"], len(event["tasks"])) == (200, True, 1)


def test_tasks_of_ray_cannot_read_what_only_the_home_keeps(job):
    with open_access("kept", purpose="train") as access, pytest.raises(UserError, match="kept in the home"):
        ray_data.plan_of(access, None)


@pytest.mark.parametrize(
    "counts",
    [
        {"rows": -1},
        {"rows": "many"},
        {"problem": "x" * 5000},
        {"more": "x" * 100},
    ],
)
def test_what_a_task_leaves_is_counts_and_nothing_else(job, counts):
    with open_access("mine", purpose="train") as access:
        good = {"first_block": 0, "rows": 1, "bytes": 1, "blocks": 1, "complete": True, "problem": None}
        with pytest.raises(UserError, match="no question about a read"):
            access.ticket.leave(0, {**good, **counts})
        with pytest.raises(UserError, match="no question about a read"):
            access.ticket.leave(10**7, good)
        assert access.ticket.collect() == []


def test_only_a_jobs_own_credential_counts_and_only_for_its_own_reads(job, monkeypatch):
    with open_access("mine", purpose="train") as access:
        ticket = access.ticket
    monkeypatch.setenv("TRAINGUARD_TOKEN", credential(job.home, "job-2", "mine"))
    with pytest.raises(Denied, match="is not one of job job-2"):
        ticket.collect()
    monkeypatch.setenv("TRAINGUARD_TOKEN", job.home.credentials.issue(tenant="acme", user="ada"))
    with pytest.raises(Denied, match="not the credential of a job"):
        dataset_guard.read("mine")


def test_a_gate_that_stays_away_is_no_yes(job, monkeypatch):
    monkeypatch.setattr("dataset_guard.reads.apart.AWAY_SECONDS", 0.1)
    monkeypatch.setenv(ADDRESS, "https://127.0.0.1:9" + PATH)
    with pytest.raises(Undecidable, match="is away"):
        dataset_guard.read("mine")


def test_a_worker_is_told_where_to_ask_by_its_nodes_gate():
    told = reads_environment({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6392"})
    assert told[ADDRESS] == "https://10.0.0.1:6392/trainguard/reads"
    assert told[AUTHORITY].endswith("/ca.crt")
    assert reads_environment({}) == {}
