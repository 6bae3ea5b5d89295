"""Who may join as a driver, and with which environment of its own: the real policy, no Ray."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("ray")

from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.admission.gateway import Admitted, Gateway
from compute_guard.ray_plugin.gates.admitting import Drivers
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.nodes import Gatehouse, NodeFact, Nodes
from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.findings import Enforcement


@pytest.fixture
def admitted(home) -> str:
    """The credential that admission gave a job of acme."""
    principal = home.credentials.verify(home.credentials.issue(tenant="acme", user="ada"))
    outcome = Gateway(home).submit(principal, {"entrypoint": "python x.py", "submission_id": "job-1"})
    assert isinstance(outcome, Admitted)
    return outcome.body["runtime_env"]["env_vars"]["TRAINGUARD_TOKEN"]


def joined(home, tmp_path, token: str, **environment: object):
    """What comes of a driver with this credential and these fields of `runtime_env`."""
    data = pb.AddJobRequest().data
    data.job_id = bytes.fromhex("01000000")
    variables = {"env_vars": {"TRAINGUARD_TOKEN": token}, **environment}
    data.config.runtime_env_info.serialized_runtime_env = json.dumps(variables)
    jobs = Jobs(tmp_path / "jobs.jsonl")
    drivers = Drivers(Judge(Gateway(home), Enforcement.ENFORCED), jobs, lambda: "system")
    return asyncio.run(drivers.admit(data)), jobs


def test_a_driver_is_its_credentials(home, tmp_path, admitted):
    job, jobs = joined(home, tmp_path, admitted, working_dir="gcs://_ray_pkg_x.zip")
    assert (job.tenant, job.workload) == ("acme", "job-1")
    assert jobs.get("01000000") == job


@pytest.mark.parametrize("field", ["pip", "conda", "container", "py_executable"])
def test_what_ray_would_build_before_any_lease_is_decided_when_the_driver_joins(
    home, tmp_path, admitted, field
):
    with pytest.raises(Refusal, match=f"runtime_env field {field}"):
        joined(home, tmp_path, admitted, **{field: ["./evil"]})
    assert not (tmp_path / "jobs.jsonl").exists()


def test_a_dead_raylet_is_unregistered_by_its_own_nodes_word(tmp_path):
    class Upstream:
        def __init__(self) -> None:
            self.calls: list[tuple[str, bytes]] = []

        async def call(self, method, request, timeout):
            self.calls.append((method, request))

    upstream = Upstream()
    nodes = Nodes(upstream, tmp_path / "gates.json")
    nodes.reported(Gatehouse("127.0.0.11", 1, 2, "shared"))
    nodes._facts = {
        b"dead": NodeFact(b"dead", "127.0.0.11:2", "shared", False, {}),
        b"well": NodeFact(b"well", "127.0.0.12:2", "shared", False, {}),
    }
    assert nodes.head_for(["shared"]) == b"dead".hex()
    asyncio.run(nodes.lost("127.0.0.11:2"))
    assert nodes.head_for(["shared"]) == b"well".hex()
    ((method, raw),) = upstream.calls
    assert method.endswith("/UnregisterNode")
    assert pb.UnregisterNodeRequest.FromString(raw).node_id == b"dead"
    assert nodes.ids_in(["shared"]) == {b"well"}
    assert [row["raylet_port"] for row in json.loads((tmp_path / "gates.json").read_text())] == [1]
