"""Agents' ports are chosen before a node starts, so that its raylet waits for no agent."""

import sys
from types import SimpleNamespace

import pytest

from compute_guard.ray_plugin.ports import AGENT_PORTS, choose_agent_ports, free_ports

services = pytest.importorskip("ray._private.services")


@pytest.fixture(autouse=True)
def native(monkeypatch):
    """Ray's own way to start a process is put back after the test."""
    monkeypatch.setattr(services, "start_ray_process", services.start_ray_process)


def params(**given):
    return SimpleNamespace(**dict.fromkeys(AGENT_PORTS.values()) | given)


def test_ports_that_nobody_chose_are_chosen_and_given_ones_stay():
    chosen = params(metrics_export_port=8080, runtime_env_agent_port=0)
    choose_agent_ports(chosen)
    ports = [getattr(chosen, name) for name in AGENT_PORTS.values()]
    assert chosen.metrics_export_port == 8080
    assert len({*ports}) == 4 and all(1024 <= port < 65536 for port in ports)


def test_free_ports_are_all_different():
    assert len({*free_ports(200)}) == 200


@pytest.mark.parametrize(
    ("kind", "told"), [("raylet", ["--dashboard_agent_listen_port=5000"]), ("monitor", [])]
)
def test_the_raylet_is_told_where_its_agent_will_listen_and_no_other_process_is(tmp_path, kind, told):
    choose_agent_ports(params(dashboard_agent_listen_port=5000))
    out = tmp_path / "arguments"
    with out.open("w") as said:
        started = services.start_ray_process(
            [sys.executable, "-c", "import sys; print(sys.argv[1:])"],
            kind,
            fate_share=False,
            stdout_file=said,
        )
    assert started.process.wait(60) == 0
    assert out.read_text().strip() == str(told)
