"""``ray start`` on a busy machine, with programs in Ray's place that end when they are told to."""

import os
import shutil
import signal
import time

import pytest

from compute_guard.cluster import processes, ray_start
from compute_guard.cluster.connection import Cluster
from compute_guard.cluster.ray_start import RayEnded, start_node
from guard_core.config import load_settings
from guard_core.errors import UserError


@pytest.fixture
def start(tmp_path, home_dir, monkeypatch):
    """Starts a head, a shell script as ``ray start``; ``./raylet SECONDS`` is a raylet that lives so long."""
    shutil.copy(shutil.which("sleep"), tmp_path / "raylet")
    cluster = Cluster(
        dashboard="http://127.0.0.1:1",
        gcs_address="127.0.0.1:1",
        token_file=str(tmp_path / "token"),
        marker="a-test-of-ray-start",
        temp_dir=str(tmp_path),
    )

    def run(script):
        monkeypatch.setattr(ray_start, "RAY_START", ("sh", "-c", f"cd {tmp_path}; {script}", "ray start"))
        return start_node(load_settings(home=home_dir), cluster, [], {}, 250, "head")

    return run


def test_a_head_has_started_when_ray_start_ends_well_and_ends_with_its_raylet(start):
    head = start("./raylet 6 > /dev/null 2>&1 & sleep 2")
    deadline = time.monotonic() + 60
    while not head.has_ended():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_raylet_that_ends_while_ray_start_waits_for_it_is_noticed(start, tmp_path, monkeypatch):
    look = processes.below

    def below(pid, program):
        found = look(pid, program)
        for process in found:
            os.kill(process.pid, signal.SIGABRT)
        return found

    monkeypatch.setattr(processes, "below", below)
    began = time.monotonic()
    with pytest.raises(RayEnded, match=rf"its raylet ended; see {tmp_path}/head"):
        start("./raylet 100 & sleep 100; :")
    assert time.monotonic() - began < 50


def test_what_ray_says_last_is_told(start):
    with pytest.raises(RayEnded, match=r"Ray did not start: Exception: no node info$"):
        start("echo Traceback; echo Exception: no node info; exit 1")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "echo 'guard_core.errors.UserError: set RAY_AUTH_MODE'; exit 1",
            "Ray did not start: set RAY_AUTH_MODE",
        ),
        ("echo 'Error: No such option: --x'; exit 2", "No such option"),
        ("echo \"No module named 'ray'\"; exit 1", 'pip install "trainguard'),
    ],
)
def test_what_would_fail_again_is_no_reason_to_try_again(start, script, told):
    with pytest.raises(UserError, match=told) as raised:
        start(script)
    assert not isinstance(raised.value, RayEnded)
