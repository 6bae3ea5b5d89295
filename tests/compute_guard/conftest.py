"""Fixtures for incidents and response: a real home, a real ledger with a waiting job, signals about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compute_guard.admission.workload import workload_from_submission
from compute_guard.incidents.observations import Observation
from compute_guard.ledger.store import Ledger
from compute_guard.ray_plugin.jobs import RayCluster
from guard_core.clock import to_ns
from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.testing import FrozenClock

DEVICE = "node-1/GPU-1"


@pytest.fixture
def still_home(home_dir: Path, clock: FrozenClock) -> Iterator[Home]:
    """A home whose clock moves only when told to."""
    with Home.open(load_settings(home=home_dir), clock=clock) as opened:
        yield opened


@pytest.fixture
def waiting_job(still_home: Home) -> Callable[..., str]:
    """Adds a waiting job to the real ledger; gives its id."""

    def add(
        job: str = "job-1", tenant: str = "acme", entrypoint: str = "python train.py", gpus: int = 0
    ) -> str:
        secret = {"env_vars": {"WANDB_API_KEY": "s3cret-value"}}
        workload = workload_from_submission(
            {"entrypoint": entrypoint, "runtime_env": secret, "entrypoint_num_gpus": gpus},
            submission_id=job,
            tenant=tenant,
            user="alice",
            queue=tenant,
            created_ns=to_ns(still_home.clock()),
        )
        Ledger(still_home.storage, still_home.clock).add(workload)
        return job

    return add


@pytest.fixture
def cluster(still_home: Home) -> RayCluster:
    """The real actions, on a home without a running Ray: what it does to the ledger is real."""
    return RayCluster(still_home)


@pytest.fixture
def seen(clock: FrozenClock) -> Callable[..., Observation]:
    """Makes an observation of mining in acme's job-1, or of what is said instead."""

    def make(*channels: str, **more: Any) -> Observation:
        values: dict[str, Any] = {
            "tenant": "acme",
            "job": "job-1",
            "kind": "mining",
            "rule_ids": ("USAG001",),
            "channels": {name: {"message": f"seen by {name}", "score": 800} for name in channels},
            "devices": (DEVICE,),
            "score": 800,
            "invariant": False,
            "synthetic": False,
            "at_ns": to_ns(clock()),
        }
        return Observation(**{**values, **more})

    return make
