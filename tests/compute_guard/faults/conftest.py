"""A cluster with gates of these tests' own: they break it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from compute_guard.testing import GuardedCluster, guarded_cluster
from guard_core.policy.bundle import shipped_policies

POOLS = 'pools:\n  shared: {title: All nodes, tenants: ["*"], labels: {}}\n'


def three_nodes(folder: Path) -> AbstractContextManager[GuardedCluster]:
    """Profile `gate`, a head and two nodes, both shared. Acme may have 2 CPUs, and 2,000 jobs in line."""
    quotas = (shipped_policies() / "data" / "quotas.yaml").read_text()
    return guarded_cluster(
        folder,
        object_store_bytes=100_000_000,
        profile="gate",
        pools=("shared", "shared"),
        data={"nodes.yaml": POOLS, "quotas.yaml": quotas.replace("max_pending: 1000", "max_pending: 2000")},
    )


@pytest.fixture(scope="session")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedCluster]:
    """Three nodes that are whole again after each test."""
    with three_nodes(tmp_path_factory.mktemp("faults")) as cluster:
        yield cluster


@pytest.fixture
def losing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedCluster]:
    """Three nodes for one test, which may lose one for good."""
    with three_nodes(tmp_path_factory.mktemp("losing")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    """Address of a real Redis that keeps nothing on disk."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed; apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(
        ["redis-server", *options], cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL
    )
    yield f"127.0.0.1:{port}"
    server.kill()
    server.wait()


@pytest.fixture
def recovering(redis, tmp_path_factory):
    """A cluster of profile `gate`, a head and a node, whose GCS keeps its tables in that Redis.

    It ends with its test: without a GCS, Ray's NodeHead would keep a core busy until the end of the session.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_REDIS_ADDRESS", redis)
        with guarded_cluster(
            tmp_path_factory.mktemp("recovering"),
            num_cpus=2,
            object_store_bytes=100_000_000,
            profile="gate",
            pools=("shared",),
            data={"nodes.yaml": POOLS},
        ) as cluster:
            yield cluster
