"""Ports of a node that is about to start, chosen before it starts."""

from __future__ import annotations

import socket
from typing import Any

AGENT_PORTS = {
    "dashboard-agent-grpc-port": "metrics_agent_port",
    "dashboard-agent-listen-port": "dashboard_agent_listen_port",
    "metrics-export-port": "metrics_export_port",
    "runtime-env-agent-port": "runtime_env_agent_port",
}
"""What a node's two agents listen on: ``ray start``'s options, and Ray's names for them."""
_LISTEN = "dashboard_agent_listen_port"


def choose_agent_ports(params: Any) -> None:
    """Choose those that nobody chose, and have the raylet told all of them.

    A raylet that is not told one waits until the agent has chosen it and written it down, for 15 s, which is
    a constant in Ray 2.60 (``NodeManager::WaitForDashboardAgentPorts``). On a busy machine an agent takes
    longer to start, and then the raylet ends itself. One that knows them all waits for nobody.
    """
    missing = [name for name in AGENT_PORTS.values() if not getattr(params, name)]
    for name, port in zip(missing, free_ports(len(missing)), strict=True):
        setattr(params, name, port)
    _tell_raylet(f"--{_LISTEN}={getattr(params, _LISTEN)}")


def _tell_raylet(option: str) -> None:
    """Add ``option``, which the raylet has and Ray 2.60 forgets, when this process starts it."""
    from ray._private import ray_constants, services

    native: Any = services.start_ray_process

    def start_ray_process(command: list[str], process_type: str, *rest: Any, **named: Any) -> Any:
        more = [option] if process_type == ray_constants.PROCESS_TYPE_RAYLET else []
        return native([*command, *more], process_type, *rest, **named)

    services.start_ray_process = start_ray_process


def free_ports(count: int, host: str = "") -> list[int]:
    """Ports nobody listens on now, all different: at ``host``, or at any address of this machine."""
    held = []
    try:
        for _ in range(count):
            listener = socket.socket()
            listener.bind((host, 0))
            held.append(listener)
        return [listener.getsockname()[1] for listener in held]
    finally:
        for listener in held:
            listener.close()
