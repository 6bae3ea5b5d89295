"""One attack for the whole session: beta works, acme attacks it from inside a job."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.testing import GuardedCluster

ATTACKER = Path(__file__).parent / "attacker"
WORKERS = 14


@dataclass(frozen=True)
class Attack:
    """What came of every attempt, and who was attacked."""

    results: dict[str, list[Any]]
    attacker: str
    victim: str
    ended_at: float
    facts: dict[str, Any]


def package(folder: Path, facts: dict[str, Any]) -> str:
    """A working directory with the attacker's code and what it knows."""
    shutil.copytree(ATTACKER, folder / "attacker", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "facts.json").write_text(json.dumps(facts))
    return str(folder)


def line_of(client, job: str, word: str, seconds: float = 120) -> dict[str, Any]:
    """The JSON after ``word`` in a job's log."""
    deadline = time.monotonic() + seconds
    while True:
        logs = client.get_job_logs(job)
        for line in logs.splitlines():
            if line.startswith(word + " "):
                return json.loads(line.removeprefix(word + " "))
        details = client.get_job_info(job)
        if time.monotonic() > deadline or details.status in ("FAILED", "STOPPED"):
            raise TimeoutError(
                f"{job} ({details.status}) never said {word}: {details.message} {logs[-1500:]}"
            )
        time.sleep(0.2)


def known(cluster: GuardedCluster, victim: dict[str, Any], submission: str) -> dict[str, Any]:
    """More than an attacker could ever find out."""
    record, folder = cluster.cluster, Path(cluster.cluster.temp_dir)
    gcs = Gcs(record.gcs_address, lambda: record.token)
    try:
        nodes, agents = gcs.nodes(), [*gcs.agent_addresses().values()]
    finally:
        gcs.close()
    gates = {row.node_id: f"{row.address}:{row.port}" for row in nodes}
    configs = [json.loads(file.read_text()) for file in folder.glob("node-*/guard/config.json")]
    own = next(c for c in configs if c["pool"] == "acme")
    return {
        "victim": {**victim, "submission": submission},
        "head_node": next(r.node_id for r in nodes if r.resources.get("node:__internal_head__")),
        "raw_gcs": record.gcs_address,
        "raylets": [f"{c['address']}:{c['raylet_port']}" for c in configs],
        "own_gate": f"{own['address']}:{own['port']}",
        "victim_gate": gates[victim["node"]],
        "link": record.link_address,
        "dashboard": record.dashboard,
        "dashboard_host": "127.0.0.1",
        "agents": agents,
        "agent_grpc": [f"{row.address}:{port}" for row, port in agent_ports(folder, nodes)],
        "secrets": [
            record.token_file,
            str(cluster.home.path("trainguard.db")),
            *(str(file) for file in folder.glob("*/guard/config.json")),
            *(str(file) for file in folder.glob("head/guard/tokens/*")),
            *(str(file) for file in folder.glob("node-*/guard/jobs/*")),
        ],
        "package": str(Path(sys.modules["compute_guard"].__file__).parent),
        "cpus": 2,
        "workers": WORKERS,
    }


def agent_ports(folder: Path, nodes: Any) -> list[tuple[Any, int]]:
    """gRPC ports of the nodes' dashboard agents, from the files Ray leaves in its sessions."""
    found = []
    for row in nodes:
        for file in folder.glob(f"*/session_2*/metrics_agent_port_{row.node_id}"):
            found.append((row, int(file.read_text())))
    return found


@pytest.fixture(scope="session")
def attack(gated_cluster: GuardedCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    import pyarrow as pa

    import dataset_guard

    secret = pa.table({"x": range(10)})
    dataset_guard.register(secret, name="secret", tenant="beta", home=gated_cluster.home, checks=[])
    beta, acme = gated_cluster.client("beta"), gated_cluster.client("acme")
    folder = tmp_path_factory.mktemp("victim")
    environment = {"working_dir": package(folder, {})}
    victim = beta.submit_job(
        entrypoint="python -m attacker.victim",
        runtime_env=environment,
        metadata={"cpus": "0.5"},
        entrypoint_label_selector={"trainguard.io/pool": "beta"},
    )
    facts = known(gated_cluster, line_of(beta, victim, "FACTS"), victim)
    folder = tmp_path_factory.mktemp("attacker")
    attacker = acme.submit_job(
        entrypoint="python -m attacker.run", runtime_env={"working_dir": package(folder, facts)}
    )
    results = line_of(acme, attacker, "RESULTS", 240)
    gated_cluster.wait(acme, attacker)
    yield Attack(results, attacker, victim, time.monotonic(), facts)
    beta.stop_job(victim)
    gated_cluster.wait(beta, victim)
