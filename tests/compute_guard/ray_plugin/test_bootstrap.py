"""How the guard gets into Ray's processes, and what happens when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from compute_guard.ray_plugin.patch import gcs_address_of
from compute_guard.ray_plugin.ports import AGENT_PORTS
from compute_guard.ray_plugin.start import BOOTSTRAP, PATIENCE, guarded_python_path, hook
from guard_core.errors import UserError

SHOW = (
    "import ray._private.authentication.http_token_authentication as m; "
    "f = m.get_token_auth_middleware; print(f.__module__, f.__qualname__)"
)


def run_as(script: Path, tmp_path: Path, *python_path: Path) -> str:
    """What ``script`` prints when run as a process of a guarded node."""
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(SHOW)
    path = os.pathsep.join(map(str, (BOOTSTRAP, *python_path)))
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["dashboard", "agent"])
def test_the_dashboards_processes_get_the_guarded_middleware(tmp_path, name):
    shown = run_as(tmp_path / "ray" / "dashboard" / f"{name}.py", tmp_path)
    assert shown == "compute_guard.ray_plugin.patch install.<locals>.factory"


def test_every_other_process_keeps_rays_own(tmp_path):
    shown = run_as(tmp_path / "train.py", tmp_path)
    assert shown.startswith("ray._private.authentication")


def test_a_guard_that_cannot_be_loaded_refuses_everything(tmp_path):
    broken = tmp_path / "broken"
    (broken / "compute_guard").mkdir(parents=True)
    (broken / "compute_guard" / "__init__.py").write_text("raise RuntimeError('half installed')")
    shown = run_as(tmp_path / "ray" / "dashboard" / "dashboard.py", tmp_path, broken)
    assert shown == "sitecustomize _refuse_everything.<locals>.factory"


def test_a_sitecustomize_that_was_there_before_still_runs(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("print('the site was customised')")
    shown = run_as(tmp_path / "train.py", tmp_path, tmp_path / "site")
    assert shown.splitlines()[0] == "the site was customised"


def test_the_bootstrap_comes_first_on_the_python_path_and_once():
    path = guarded_python_path(os.pathsep.join(["a", str(BOOTSTRAP), "b"]))
    assert path.split(os.pathsep) == [str(BOOTSTRAP), "a", "b"]


@pytest.mark.parametrize(
    ("missing", "words"), [("RAY_AUTH_MODE", "token mode"), ("TRAINGUARD_HOME", "know its home")]
)
def test_a_node_that_would_be_open_does_not_start(monkeypatch, missing, words):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("TRAINGUARD_HOME", "home")
    monkeypatch.delenv(missing)
    with pytest.raises(UserError, match=words):
        hook(SimpleNamespace(), head=True)


def test_a_guarded_head_has_no_ray_client_port_and_no_persons_credential(monkeypatch):
    services = pytest.importorskip("ray._private.services")
    for name, value in {"RAY_AUTH_MODE": "token", "TRAINGUARD_HOME": "h", "TRAINGUARD_TOKEN": "t"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(services, "start_ray_process", services.start_ray_process)
    params = SimpleNamespace(ray_client_server_port=10001, **dict.fromkeys(AGENT_PORTS.values()))
    for name in PATIENCE:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    hook(params, head=True)
    assert params.metrics_agent_port and PATIENCE.items() <= os.environ.items()
    assert params.ray_client_server_port is None
    assert "TRAINGUARD_TOKEN" not in os.environ
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(BOOTSTRAP)


def test_the_gcs_address_is_read_from_rays_own_arguments():
    assert gcs_address_of(["x", "--gcs-address=1.2.3.4:5"]) == "1.2.3.4:5"
    assert gcs_address_of(["x", "--gcs-address", "1.2.3.4:5"]) == "1.2.3.4:5"
    with pytest.raises(ValueError, match="gcs-address"):
        gcs_address_of(["x"])
