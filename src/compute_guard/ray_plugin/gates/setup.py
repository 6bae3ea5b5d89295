"""Putting the gates into a node that is about to start, before any of Ray's processes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from compute_guard.admission.ray_body import HEAD_POOL, POOL_LABEL, PROFILE
from compute_guard.ray_plugin.gates.admitting import AGENT_MARK, agent_mark
from compute_guard.ray_plugin.gates.authority import AUTHORITY_FILES, SYSTEM, make_certificate
from compute_guard.ray_plugin.gates.process import start_kept
from compute_guard.ray_plugin.gates.settings import HeadConfig, NodeConfig, Profile
from compute_guard.ray_plugin.ports import free_ports
from guard_core.errors import UserError
from guard_core.files import write_atomic

GATE = "COMPUTE_GUARD_GATE"
LINK = "COMPUTE_GUARD_LINK"
POOL = "COMPUTE_GUARD_POOL"
NODE_FOLDER = "COMPUTE_GUARD_NODE"
LISTEN = "COMPUTE_GUARD_LISTEN"
"""Where the head's gates listen, when that is not the address that others reach them by (a pod)."""
AUTHORITY = "COMPUTE_GUARD_AUTHORITY"
"""A folder with the authority's key and certificates, where they come from outside (a mounted Secret)."""
READY_SECONDS = 120.0
RAY_SETTINGS = {
    # Ray's processes ask the head's token authority who calls, and have a domain each.
    "RAY_ENABLE_K8S_TOKEN_AUTH": "1",
    "RAY_CLUSTER_NAMESPACE": "trainguard",
    # A worker without a lease would be one without a tenant.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # The gates carry Ray's health checks; a gate that is down for a minute must kill no node.
    "RAY_health_check_failure_threshold": "40",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
    # What was under way in a gate that was killed is sent again at Ray's next look: once a second as shipped.
    "RAY_grpc_client_check_connection_status_interval_milliseconds": "100",
    "RAY_JOB_ALLOW_DRIVER_ON_WORKER_NODES": "1",
}


def guard_head(params: Any, gcs_port: int) -> None:
    """Start the head's gates. The head itself runs Ray's own processes only."""
    profile = _profile()
    os.environ.update(RAY_SETTINGS)
    os.environ["RAY_CLUSTER_NAME"] = SYSTEM
    params.labels = {**(params.labels or {}), POOL_LABEL: HEAD_POOL}
    folder = _folder()
    _close_home(Path(os.environ["TRAINGUARD_HOME"]))
    host, port = _address(GATE)
    _, link_port = _address(LINK)
    if given := os.environ.get(AUTHORITY):
        for name in AUTHORITY_FILES:
            write_atomic(folder / name, (Path(given) / name).read_bytes(), mode=0o600)
    make_certificate(folder, os.environ["KUBERNETES_SERVICE_HOST"])
    config = HeadConfig(
        profile=profile,
        gcs=f"{params.node_ip_address or _own_address()}:{gcs_port}",
        host=os.environ.get(LISTEN, host),
        port=port,
        link_port=link_port,
        authority_port=int(os.environ["KUBERNETES_SERVICE_PORT"]),
        token_file=os.environ["RAY_AUTH_TOKEN_PATH"],
        folder=str(folder),
    )
    file = folder / "config.json"
    config.save(file)
    _start_gate("head", folder, file, "the head's gates did not come up")


def guard_node(params: Any) -> None:
    """Start this node's lease gate and put the launcher before every worker."""
    os.environ.update(RAY_SETTINGS)
    os.environ["RAY_CLUSTER_NAME"] = SYSTEM
    folder = _folder()
    address = params.node_ip_address or os.environ.get("COMPUTE_GUARD_ADDRESS") or _own_address()
    params.node_ip_address = address
    free, gate_port = free_ports(2, address)
    params.node_manager_port = params.node_manager_port or free
    pool = os.environ.get(POOL, "shared")
    host, port = _address(LINK)
    config = NodeConfig(
        profile=_profile(),
        head=f"{host}:{port}",
        address=address,
        port=gate_port,
        raylet_port=params.node_manager_port,
        pool=pool,
        token_file=os.environ["RAY_AUTH_TOKEN_PATH"],
        folder=str(folder),
    )
    params.labels = {**(params.labels or {}), POOL_LABEL: pool}
    file = folder / "config.json"
    config.save(file)
    _write_launcher(folder, config)
    _start_gate("node", folder, file, f"the lease gate did not reach the head at {host}:{port}")
    sys.executable = str(folder / "launcher")
    if config.profile == "hardened":
        os.umask(0o077)  # what Ray's own processes write is nobody else's to read


def _start_gate(role: str, folder: Path, config: Path, trouble: str) -> None:
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    start_kept(role, config, folder / "gate.log")
    deadline = time.monotonic() + READY_SECONDS
    while not ready.exists():
        if time.monotonic() > deadline:
            raise UserError(f"{trouble}; see {folder}/gate.log")
        time.sleep(0.02)


def _close_home(home: Path) -> None:
    """Shut the home to others: the folder of a mounted volume is open to all of them."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(PermissionError):  # some network file systems; `doctor` says that it is open
        home.chmod(0o700)


def _write_launcher(folder: Path, config: NodeConfig) -> None:
    mark = agent_mark(Path(config.token_file).read_text(encoding="ascii").strip())
    facts = {
        "python": sys.executable,
        "port": config.port,
        "raylet_port": config.raylet_port,
        "agent_job": json.dumps({"runtime_env": {}, "metadata": {AGENT_MARK: mark}}),
    }
    write_atomic(folder / "launcher.json", json.dumps(facts).encode(), mode=0o600)
    source = Path(__file__).with_name("launcher.py")
    script = f'#!/bin/sh\nexec "{sys.executable}" -I -S "{source}" "$@"\n'
    write_atomic(folder / "launcher", script.encode(), mode=0o755)


def _profile() -> Profile:
    name = os.environ.get(PROFILE, "")
    if name == "gate":
        return "gate"
    if name == "hardened":
        return "hardened"
    raise UserError(f"{PROFILE} must be gate or hardened, got {name!r}")


def _folder() -> Path:
    name = os.environ.get(NODE_FOLDER, "")
    if not name:
        raise UserError(f"{NODE_FOLDER} must name a directory of this node's gate, for Ray's user only")
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _address(variable: str) -> tuple[str, int]:
    host, _, port = os.environ.get(variable, "").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{variable} must be HOST:PORT of the head's gate")
    return host, int(port)


def _own_address() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())
