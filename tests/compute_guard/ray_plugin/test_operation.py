"""Status, doctor and a second `up`, on the real cluster."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from compute_guard.cluster import local_cluster
from compute_guard.cluster.doctor import probes
from guard_core.cli import root

pytestmark = pytest.mark.ray


def test_status_is_proved_by_the_dashboards_own_answer(ray_cluster):
    home = str(ray_cluster.home.settings.home)
    done = CliRunner().invoke(root, ["--home", home, "compute", "status", "--format", "json"])
    shape = json.loads(done.stdout)
    assert (shape["running"], shape["guarded"]) == (True, True)
    assert shape["processes"] > 5
    assert shape["enforcement"] == {"job_api_admission": "cooperative", "reconciler": "detective"}


def test_doctor_knocks_at_every_door_and_finds_them_shut(ray_cluster):
    found = {probe.name: probe.status for probe in probes(ray_cluster.home.settings)}
    doors = [name for name in found if name.startswith("submission")]
    assert len(doors) >= 3
    assert set(found.values()) == {"ok"}


def test_up_again_is_the_same_cluster(ray_cluster):
    assert local_cluster.up(ray_cluster.home) == ray_cluster.cluster
    done = CliRunner().invoke(root, ["--home", str(ray_cluster.home.settings.home), "compute", "up"])
    assert f"at {ray_cluster.cluster.dashboard} (profile observe-and-stop, running already)" in done.stdout
    assert "starting" not in done.output
