"""`doctor` on a cluster with gates: harmless violations with a tenant's token, at every door.

The token is the canary tenant's. Each attempt only reads, or names an object that does not exist. What came
of them says which profile is really in force, whatever the configuration says.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.admission.ray_body import POOL_LABEL
from compute_guard.cluster.connection import Cluster
from compute_guard.ray_plugin.gates.limits import CGROUP
from compute_guard.ray_plugin.gates.nodes import GATES_FILE
from compute_guard.ray_plugin.gates.tokens import LOOK_SECONDS, TOKENS_FOLDER, Tokens
from compute_guard.ray_plugin.gates.users import nobodys_id
from guard_core.config import Settings
from guard_core.doctor import Probe

AREA = "compute"
REMEDY = "start the cluster again: trainguard compute down, then up; or its own scripts (compute install)"
CANARY = "canary"
_SECONDS = 5.0
_NOBODY = bytes.fromhex("fffffffe")
_CLOSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_LIST_JOBS = "JobInfoGcsService/GetAllJobInfo"
_NODE_STATS = "NodeManagerService/GetNodeStats"


def gate_probes(cluster: Cluster, settings: Settings) -> list[Probe]:
    """Findings about the gates of ``cluster``; to be asked for on its head's machine."""
    folder = Path(cluster.guard_folder)
    if not (folder / GATES_FILE).exists():
        return [Probe(AREA, "gates", "info", "the head's gate is not on this machine; run doctor there")]
    rows = json.loads((folder / GATES_FILE).read_text(encoding="utf-8"))
    token = Tokens(folder / TOKENS_FOLDER).of(CANARY)
    gate, gcs = cluster.gate_address, cluster.gcs_address
    _wait_until_known(gate, token)
    finished = pb.MarkJobFinishedRequest(job_id=_NOBODY).SerializeToString()
    drain = "autoscaler.AutoscalerStateService/DrainNode"
    doors = [
        _closed("a tenant's token at the GCS itself", gcs, _LIST_JOBS, token),
        _closed("no token at the gate", gate, _LIST_JOBS, ""),
        _closed("another's job at the gate", gate, "JobInfoGcsService/MarkJobFinished", token, finished),
        _closed("cluster management at the gate", gate, drain, token),
        _closed("an unknown call at the gate", gate, "JobInfoGcsService/NoSuchCall", token),
        _only_own_jobs(gate, token),
        *_nodes(cluster, token, rows),
    ]
    files = [
        Path(cluster.token_file),
        folder / TOKENS_FOLDER / CANARY,
        settings.home / "credentials" / "local.token",
        settings.home / "trainguard.db",
    ]
    users = _as_another_user(cluster.profile, [file for file in files if file.exists()])
    return [*doors, users, physical_limits(rows), _in_force(cluster.profile, doors, users)]


def _in_force(claimed: str, doors: Iterable[Probe], users: Probe) -> Probe:
    """The profile that the attempts prove, against the one that is configured."""
    shut = all(probe.status == "ok" for probe in doors)
    proved = ("hardened" if users.status == "ok" else "gate") if shut else "observe-and-stop"
    if proved == claimed:
        return Probe(AREA, "profile in force", "ok", f"{proved}, as configured: every attempt was refused")
    if claimed == "gate" and proved == "hardened":
        return Probe(AREA, "profile in force", "ok", "gate, as configured: every attempt was refused")
    text = f"{proved}, though {claimed} is configured: see what is broken above"
    return Probe(AREA, "profile in force", "broken", text, REMEDY)


def _as_another_user(profile: str, files: Iterable[Path]) -> Probe:
    """Try to read the cluster's and the home's secrets as a Unix user from the tenants' range."""
    name = "the cluster's secrets as a tenant's Unix user"
    if profile != "hardened":
        return Probe(AREA, name, "info", f"profile {profile} runs tenants as Ray's user, who can read them")
    if os.geteuid() != 0:
        return Probe(AREA, name, "info", "not tried: only root can become another user; run doctor as root")
    open_to_all = [str(file) for file in files if _readable_as(nobodys_id(), file)]
    if open_to_all:
        return Probe(AREA, name, "broken", f"readable: {', '.join(open_to_all)}", "chmod 600 these files")
    return Probe(AREA, name, "ok", "none can be read")


def _readable_as(uid: int, file: Path) -> bool:
    child = os.fork()
    if child == 0:  # system calls only: this process has other threads
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.close(os.open(file, os.O_RDONLY))
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _ask(address: str, method: str, token: str, request: bytes = b"") -> bytes:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/ray.rpc." + method)
        reply: bytes = call(request, metadata=metadata, timeout=_SECONDS)
    return reply


def _wait_until_known(gate: str, token: str) -> None:
    """Gates look for new tokens a few times a second; one refused as unknown proves nothing of a door."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            _ask(gate, _LIST_JOBS, token)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                return
        else:
            return
        time.sleep(LOOK_SECONDS)


def _closed(name: str, address: str, method: str, token: str, request: bytes = b"") -> Probe:
    try:
        _ask(address, method, token, request)
    except grpc.RpcError as error:
        if error.code() in _CLOSED:
            return Probe(AREA, name, "ok", f"refused ({error.code().name})")
        return Probe(AREA, name, "broken", f"{address}: {error.code().name} {error.details()}", REMEDY)
    return Probe(AREA, name, "broken", f"{address} answered: nothing guards it", REMEDY)


def _only_own_jobs(gate: str, token: str) -> Probe:
    name = "another's jobs in a list"
    try:
        reply = pb.GetAllJobInfoReply.FromString(_ask(gate, _LIST_JOBS, token))
    except grpc.RpcError as error:
        return Probe(AREA, name, "broken", f"{gate}: {error.code().name} {error.details()}", REMEDY)
    foreign = [job for job in reply.job_info_list if job.config.metadata["trainguard_tenant"] != CANARY]
    if foreign:
        return Probe(AREA, name, "broken", f"{len(foreign)} jobs of others are listed", REMEDY)
    return Probe(AREA, name, "ok", "not listed")


def _nodes(cluster: Cluster, token: str, rows: Iterable[Mapping[str, Any]]) -> list[Probe]:
    """Every node of the GCS's table: has it a gate in ``rows``, and is its raylet closed beside it?"""
    reply = pb.GetAllNodeInfoReply.FromString(
        _ask(cluster.gcs_address, "NodeInfoGcsService/GetAllNodeInfo", cluster.token)
    )
    gates = {(row["address"], row["gate_port"]): row["raylet_port"] for row in rows}
    found = []
    for node in reply.node_info_list:
        if node.state != 0 or node.is_head_node:
            continue
        where = (node.node_manager_address, node.node_manager_port)
        name = f"node {where[0]} (pool {node.labels.get(POOL_LABEL, 'none')})"
        if where not in gates:
            found.append(Probe(AREA, name, "broken", "it has no lease gate on record here", REMEDY))
            continue
        address, raylet = f"{where[0]}:{where[1]}", f"{where[0]}:{gates[where]}"
        found.append(_closed(f"{name}: its gate", address, _NODE_STATS, token))
        found.append(_closed(f"{name}: its raylet beside the gate", raylet, _NODE_STATS, token))
    return found


def physical_limits(rows: Iterable[Mapping[str, Any]]) -> Probe:
    """What the nodes' gates report of cgroups; ``rows``: those of the gates' file, living or not."""
    name, held = "physical limits", "tenants' workers run in cgroups as wide as their leases"
    limited = {bool(row.get("limits")) for row in rows}
    if limited == {True}:
        return Probe(AREA, name, "ok", f"on every node {held}")
    text = "CPU and memory beyond what was asked for are not limited"
    if limited == {True, False}:
        return Probe(AREA, name, "info", f"on some nodes {text}; set {CGROUP} there, too")
    return Probe(AREA, name, "info", f"{text}; where a node has cgroup v2, {CGROUP} limits them")
