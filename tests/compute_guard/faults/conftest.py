"""A cluster with gates of these tests' own: they break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compute_guard.testing import GuardedCluster, guarded_cluster
from guard_core.policy.bundle import shipped_policies

POOLS = 'pools:\n  shared: {title: All nodes, tenants: ["*"], labels: {}}\n'


@pytest.fixture(scope="session")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedCluster]:
    """Profile `gate`, a head and two nodes, both shared. Acme may have 2 CPUs, and 2,000 jobs in line."""
    quotas = (shipped_policies() / "data" / "quotas.yaml").read_text()
    with guarded_cluster(
        tmp_path_factory.mktemp("faults"),
        object_store_bytes=100_000_000,
        profile="gate",
        pools=("shared", "shared"),
        data={"nodes.yaml": POOLS, "quotas.yaml": quotas.replace("max_pending: 1000", "max_pending: 2000")},
    ) as cluster:
        yield cluster
