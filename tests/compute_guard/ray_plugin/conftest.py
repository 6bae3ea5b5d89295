"""Fixtures for tests on the real cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Ledger
from compute_guard.testing import GuardedCluster


@pytest.fixture
def gated(tmp_path: Path) -> Callable[[], tuple[str, Path]]:
    """An entrypoint that runs until its file appears, and that file."""
    made: list[Path] = []

    def make() -> tuple[str, Path]:
        gate = tmp_path / f"go-{len(made)}"
        made.append(gate)
        return f"while [ ! -e {gate} ]; do sleep 0.1; done", gate

    return make


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> None:
    """Each test ends its own jobs, so that the next one finds its quota free."""
    if "ray_cluster" not in request.fixturenames:
        return
    cluster: GuardedCluster = request.getfixturevalue("ray_cluster")
    request.addfinalizer(lambda: stop_everything(cluster))


def stop_everything(cluster: GuardedCluster) -> None:
    from compute_guard.ray_plugin.jobs import RayCluster

    actions = RayCluster(cluster.home)
    for tenant in ("acme", "beta"):
        actions.release_queue(tenant)
    living = [WorkloadState.PENDING, WorkloadState.ADMITTED, WorkloadState.RUNNING]
    for entry in Ledger(cluster.home.storage).entries(states=living):
        assert actions.stop_job(entry.id, reason="end of test").verified
