"""The scripts that `compute install` writes, run: a head and a node that `doctor` finds guarded."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from compute_guard.cluster import install
from compute_guard.cluster.connection import load_cluster
from compute_guard.cluster.doctor import probes
from compute_guard.cluster.install import Kit, write_kit
from compute_guard.cluster.ray_start import guarded_environment
from compute_guard.cluster.service_account import with_private_account
from compute_guard.ray_plugin.ports import free_ports
from compute_guard.testing import wait_until
from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies

pytestmark = [pytest.mark.ray, pytest.mark.gated, pytest.mark.clusters, pytest.mark.timeout(400)]

HEAD = "127.0.0.2"  # loopback, but not the address that Ray takes for the machine's outer one
MARK = "COMPUTE_GUARD_TEST_OF_INSTALL"
GATES = b"-m compute_guard.ray_plugin.gates"


def ours(part: bytes = b"") -> list[int]:
    """The processes that carry our mark in their environment, and ``part`` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}=1".encode() in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found += [int(entry.name)] if part in command else []
        except OSError:
            continue
    return found


def end_all(*, but: bytes | None = None) -> None:
    """End what carries our mark, ``but`` those with this in their command line, and nothing else."""
    for pid in set(ours()) - set(() if but is None else ours(but)):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts a script of the kit as `up` would: with a service account of its own, in a folder of its own."""
    services = ("GCS_PORT", "GATE_PORT", "LINK_PORT", "AUTHORITY_PORT")
    for service, port in zip(services, free_ports(len(services)), strict=True):
        monkeypatch.setattr(install, service, port)
    # Ray's socket paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="tg-kit-"))
    environment = {**os.environ, MARK: "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def start(kit: Path, name: str, script: str, *arguments: str, own: bool) -> Path:
        copy = folder / name
        shutil.copytree(kit, copy, dirs_exist_ok=True)
        settings = (copy / "cluster.env").read_text()
        settings = settings.replace(install.GUARD_FOLDER, str(copy / "guard"))
        (copy / "cluster.env").write_text(settings)
        command = ["sh", str(copy / script), *arguments, f"--temp-dir={copy / 'ray'}"]
        log = copy / "start.log"
        with log.open("wb") as output:
            subprocess.Popen(
                with_private_account(command, copy / "ca.crt", own_processes=own),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(lambda: b"Ray runtime started." in log.read_bytes(), seconds=200, seen=log.read_text)
        return copy

    yield start
    for _ in range(3):  # the keepers of the gates first, then what they had still started
        end_all()
        time.sleep(0.3)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_written_scripts_start_a_cluster_that_doctor_finds_guarded(tmp_path, started):
    policies = tmp_path / "policies"
    shutil.copytree(shipped_policies(), policies)
    (policies / "data" / "nodes.yaml").write_text(
        'pools:\n  shared: {title: All nodes, tenants: ["*"], labels: {}}\n'
    )
    settings = load_settings(home=tmp_path / "home", policy={"dir": policies})
    with Home.open(settings) as home:
        environment = guarded_environment(settings, str(tmp_path / "auth_token"))
        kit = Kit(target="ray-start", profile="gate", head=HEAD, pools=["shared"], environment=environment)
        write_kit(kit, tmp_path / "kit")
        dashboard, heads_agent, nodes_agent = free_ports(3)
        ports = [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={heads_agent}"]
        started(tmp_path / "kit", "h", "head.sh", "--node-ip-address=127.0.0.1", *ports, own=False)
        node = [
            "--block",
            "--num-cpus=2",
            "--node-ip-address=127.0.0.21",
            f"--dashboard-agent-listen-port={nodes_agent}",
        ]
        started(tmp_path / "kit", "n", "node.sh", "shared", *node, own=True)
        wait_until(lambda: load_cluster(home.path("ray")) is not None, seconds=120)
        wait_until(lambda: len([p for p in probes(settings) if "raylet beside" in p.name]) == 1, seconds=120)
        found = probes(settings)
        assert [probe for probe in found if probe.status == "broken"] == []
        said = {probe.name: probe.message for probe in found}
        assert said["profile in force"].startswith("gate, as configured")
        cluster = load_cluster(home.path("ray"))
        assert (cluster.profile, cluster.marker) == ("gate", "")


def test_a_head_starts_again_after_ray_was_stopped_and_its_gates_were_not(tmp_path, started):
    settings = load_settings(home=tmp_path / "home")
    with Home.open(settings):
        environment = guarded_environment(settings, str(tmp_path / "auth_token"))
        kit = Kit(target="ray-start", profile="gate", head=HEAD, pools=["shared"], environment=environment)
        write_kit(kit, tmp_path / "kit")
        dashboard, agent = free_ports(2)
        ports = [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        for _ in range(2):
            started(tmp_path / "kit", "h", "head.sh", "--node-ip-address=127.0.0.1", *ports, own=False)
            wait_until(lambda: len(ours(GATES)) == 1, seconds=20)  # the keeper; that of before is gone
            end_all(but=GATES)  # as `ray stop` does: it does not know the gates
            assert len(ours(GATES)) == 1
