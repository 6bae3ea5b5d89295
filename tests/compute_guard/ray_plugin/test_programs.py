"""Ordinary libraries and tools on a cluster with gates, and what `doctor` proves of it."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from compute_guard.admission.held_leases import held_leases
from compute_guard.admission.why import why
from compute_guard.cluster.doctor import probes
from compute_guard.ray_plugin.gates.probes import gate_probes
from compute_guard.testing import GuardedCluster, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.gated]


def submitted(cluster: GuardedCluster, tenant: str, code: str, folder: Path, **more: object) -> str:
    folder.mkdir()
    (folder / "job.py").write_text("import ray\nray.init(log_to_driver=False)\n" + code)
    environment = {"working_dir": str(folder)}
    return cluster.client(tenant).submit_job(entrypoint="python job.py", runtime_env=environment, **more)


def result(
    cluster: GuardedCluster, tenant: str, code: str, folder: Path, seconds: float = 240, **more: object
):
    """The JSON after RESULT in the log of a job that has succeeded."""
    name, client = submitted(cluster, tenant, code, folder, **more), cluster.client(tenant)
    details = cluster.wait(client, name, seconds=seconds)
    logs = client.get_job_logs(name)
    assert details.status == "SUCCEEDED", f"{details.message} {logs[-2500:]}"
    line = next(row for row in logs.splitlines() if row.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def test_doctor_proves_which_profile_is_in_force(gated_cluster):
    found = probes(gated_cluster.home.settings)
    assert [probe for probe in found if probe.status == "broken"] == []
    said = {probe.name: probe.message for probe in found}
    assert said["profile in force"].startswith("hardened, as configured")
    assert sum(name.endswith("its raylet beside the gate") for name in said) == 3
    assert said["the cluster's secrets as a tenant's Unix user"] == "none can be read"


def test_doctor_says_when_less_is_in_force_than_configured(gated_cluster):
    with tempfile.NamedTemporaryFile(dir="/tmp") as token:
        token.write(gated_cluster.cluster.token.encode())
        token.flush()
        Path(token.name).chmod(0o644)
        open_cluster = replace(gated_cluster.cluster, token_file=token.name)
        found = {probe.name: probe for probe in gate_probes(open_cluster, gated_cluster.home.settings)}
    assert token.name in found["the cluster's secrets as a tenant's Unix user"].message
    verdict = found["profile in force"]
    assert (verdict.status, verdict.message.split(":")[0]) == (
        "broken",
        "gate, though hardened is configured",
    )


LISTS = """
import json
from ray.util.state import list_actors, list_jobs
@ray.remote(num_cpus=0)
class Own:
    def here(self):
        return 1
own = Own.options(name="own").remote()
assert ray.get(own.here.remote(), timeout=120) == 1
rows = [row for row in list_actors() if row.state == "ALIVE"]
print("RESULT", json.dumps({"names": [row.name for row in rows], "jobs": len(list_jobs())}), flush=True)
"""


def test_rays_state_api_lists_ones_own_inside_and_outside_of_a_job(gated_cluster, tmp_path):
    found = result(gated_cluster, "acme", LISTS, tmp_path / "lists")
    assert found["names"] == ["own"]
    assert found["jobs"] >= 1
    url = gated_cluster.cluster.dashboard + "/api/v0/actors?detail=1"
    totals = {}
    for tenant in ("acme", "beta"):
        headers = {"Authorization": f"Bearer {gated_cluster.token(tenant)}"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            rows = json.load(answer)["data"]["result"]["result"]
        totals[tenant] = [row["name"] for row in rows].count("own")
    assert totals == {"acme": 1, "beta": 0}


SPILLS = """
import json
import numpy
objects = [ray.put(numpy.full(2_500_000, number)) for number in range(9)]  # 180 MB; the store holds 100
print("RESULT", json.dumps([int(ray.get(one, timeout=60)[0]) for one in objects]), flush=True)
"""


def test_objects_that_do_not_fit_into_memory_are_spilled_and_come_back(gated_cluster, tmp_path):
    assert result(gated_cluster, "acme", SPILLS, tmp_path / "spills") == list(range(9))


TUNE = """
import json, time
from ray import tune
def trial(config):
    tune.report({"score": config["x"] ** 2})
tuner = tune.Tuner(
    tune.with_resources(trial, {"CPU": 0.5}),
    param_space={"x": tune.grid_search([1, 2])},
    run_config=tune.RunConfig(storage_path=f"/tmp/tune-of-acme-{time.time_ns()}", name="trials", verbose=0),
)
found = tuner.fit()
scores = sorted(one.metrics["score"] for one in found)
print("RESULT", json.dumps({"scores": scores, "errors": len(found.errors)}))
"""


def test_ray_tune_runs_unchanged(gated_cluster, tmp_path):
    assert result(gated_cluster, "acme", TUNE, tmp_path / "tune") == {"scores": [1, 4], "errors": 0}


TRAIN = """
import json, tempfile, time
from ray import train
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
def loop(config):
    context = train.get_context()
    seen = {"rank": context.get_world_rank(), "size": context.get_world_size()}
    with tempfile.TemporaryDirectory() as folder:
        # Ray Train keeps the metrics that came with a checkpoint, and no others.
        kept = Checkpoint.from_directory(folder) if seen["rank"] == 0 else None
        train.report(seen, checkpoint=kept)
found = DataParallelTrainer(
    loop,
    scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.25}),
    run_config=RunConfig(storage_path=f"/tmp/train-of-acme-{time.time_ns()}", name="run"),
).fit()
print("RESULT", json.dumps({"size": found.metrics["size"], "error": str(found.error)}))
"""


@pytest.mark.clusters
def test_ray_train_runs_unchanged(gated_cluster, tmp_path):
    assert result(gated_cluster, "acme", TRAIN, tmp_path / "train") == {"size": 2, "error": "None"}


SERVE = """
import json
from ray import serve
@serve.deployment(ray_actor_options={"num_cpus": 0.25})
class Echo:
    async def __call__(self, request):
        return "hello"
handle = serve.run(Echo.bind(), name="echo", route_prefix="/")
print("RESULT", json.dumps(handle.remote(None).result(timeout_s=60)), flush=True)
serve.shutdown()
"""


@pytest.mark.clusters
def test_ray_serve_deploys_for_a_tenant(gated_cluster, tmp_path):
    pytest.importorskip("grpc_reflection", reason="ray[serve] is not installed")
    assert result(gated_cluster, "acme", SERVE, tmp_path / "serve") == "hello"


JOIN = """
import json, os
import dataset_guard
from guard_core.errors import Denied, GuardError
found = {"uid": os.getuid(), "home": os.access(os.environ["TRAINGUARD_HOME"], os.R_OK)}
found["rows"] = len(dataset_guard.read("joined").to_pandas())
found["kept"] = len(dataset_guard.read("kept").to_pandas())
for ref in ("undeclared", "beta/foreign"):
    try:
        found[ref] = len(dataset_guard.read(ref).to_pandas())
    except Denied as error:
        found[ref] = str(error)
try:
    found["changed"] = len(dataset_guard.read("changed").to_pandas())
except GuardError as error:
    found["changed"] = type(error).__name__ + ": " + str(error)
print("RESULT", json.dumps(found), flush=True)
"""


def test_a_hardened_job_reads_what_it_declared_and_sees_nothing_of_the_home(gated_cluster, tmp_path):
    import pandas as pd

    import dataset_guard

    home = gated_cluster.home
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        Path(shared).chmod(0o755)  # the tenant's Unix user reads its data itself
        for tenant, name in (
            ("acme", "joined"),
            ("acme", "undeclared"),
            ("acme", "changed"),
            ("beta", "foreign"),
        ):
            file = Path(shared) / f"{name}.csv"
            file.write_text("x,y\n" + "".join(f"{i},{i * i}\n" for i in range(200)))
            dataset_guard.register(file, name=name, tenant=tenant, home=home, checks=[])
        dataset_guard.register(
            pd.DataFrame({"x": range(50)}), name="kept", tenant="acme", home=home, checks=[]
        )
        file = Path(shared) / "changed.csv"
        file.write_text(file.read_text().replace("7,49", "7,50"))
        declared = {"datasets": "joined, kept, changed"}
        found = result(gated_cluster, "acme", JOIN, tmp_path / "join", metadata=declared)
    assert found["uid"] != 0 and not found["home"]
    assert (found["rows"], found["kept"]) == (200, 50)
    assert "acme/undeclared@1 may not be used" in found["undeclared"]
    assert "beta/foreign" in found["beta/foreign"]
    assert found["changed"].startswith("Tampered: acme/changed@1 was changed")
    reads = {
        (row["data"]["ref"], row["data"]["rows"], row["data"]["complete"])
        for row in home.audit.records(kind="dataset.read")
        if row["data"]["workload"]
    }
    assert {("acme/joined@1", 200, True), ("acme/kept@1", 50, True), ("acme/changed@1", 0, False)} == reads


JOIN_IN_TASKS = """
import json
import dataset_guard
rows = dataset_guard.ray_data.read("spread").iter_rows()  # count() would take Ray's word, and read nothing
print("RESULT", sum(1 for row in rows), flush=True)
"""


@pytest.mark.clusters
def test_tasks_of_a_hardened_job_read_what_it_declared(gated_cluster, tmp_path):
    import dataset_guard

    home = gated_cluster.home
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        Path(shared).chmod(0o755)
        file = Path(shared) / "spread.csv"
        file.write_text("x\n" + "".join(f"{i}\n" for i in range(200)))
        dataset_guard.register(file, name="spread", tenant="acme", home=home, checks=[])
        declared = {"datasets": "spread"}
        assert result(gated_cluster, "acme", JOIN_IN_TASKS, tmp_path / "join", metadata=declared) == 200
    [read] = [r["data"] for r in home.audit.records(kind="dataset.read") if "spread" in r["data"]["ref"]]
    assert (read["rows"], read["complete"]) == (200, True)


WAITS = """
import os, time
@ray.remote(num_cpus=1)
def hold():
    while not os.path.exists(GO):
        time.sleep(0.1)
    return 1
print("RESULT", sum(ray.get([hold.remote() for _ in range(3)], timeout=200)), flush=True)
"""


def asked_by_the_first(cluster, job):
    """What the first of a job's leases that wait asks for, CPU milli."""
    held = held_leases(cluster.cluster.guard_folder).get(job)
    return held and held.needs.get("cpu_milli")


def test_a_running_job_is_told_which_of_its_leases_wait(gated_cluster, tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        Path(shared).chmod(0o755)  # the tenant's Unix user looks into it
        go = Path(shared) / "go"
        code = WAITS.replace("GO", repr(str(go)))
        name, client = (
            submitted(gated_cluster, "acme", code, tmp_path / "waits"),
            gated_cluster.client("acme"),
        )
        # On a busy machine the job's own start, which asks for no CPU, is held for a moment too.
        wait_until(lambda: asked_by_the_first(gated_cluster, name) == 1000, seconds=120)
        said = client.get_job_info(name).message
        assert "waits at the gates" in said or "wait at the gates" in said, said
        story = why(gated_cluster.home, name, gated_cluster.home.principal(tenant="acme"))
        assert story["held_at_gates"]["needs"]["cpu_milli"] == 1000
        go.touch()
        ended = gated_cluster.wait(client, name, seconds=240)
    assert ended.status == "SUCCEEDED"
