"""`doctor` on a cluster with gates: harmless violations with a tenant's token, at every door.

The token is the canary tenant's. Each attempt only reads, or names an object that does not exist.
"""

from __future__ import annotations

import json
from pathlib import Path

import grpc
from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.connection import Cluster
from compute_guard.ray_body import POOL_LABEL
from compute_guard.ray_plugin.gates.tokens import TOKENS_FOLDER, Tokens
from guard_core.doctor import Probe

AREA = "compute"
REMEDY = "trainguard compute down, then trainguard compute up"
CANARY = "canary"
_SECONDS = 5.0
_NOBODY = bytes.fromhex("fffffffe")
_CLOSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_LIST_JOBS = "JobInfoGcsService/GetAllJobInfo"
_NODE_STATS = "NodeManagerService/GetNodeStats"


def gate_probes(cluster: Cluster) -> list[Probe]:
    """Findings about the gates of a cluster that `compute up` started on this machine."""
    folder = Path(cluster.temp_dir)
    if not (folder / "head" / "guard" / TOKENS_FOLDER).exists():
        return [Probe(AREA, "gates", "info", "the head's gate is not on this machine; run doctor there")]
    token = Tokens(folder / "head" / "guard" / TOKENS_FOLDER).of(CANARY)
    gate, gcs = cluster.gate_address, cluster.gcs_address
    finished = pb.MarkJobFinishedRequest(job_id=_NOBODY).SerializeToString()
    drain = "autoscaler.AutoscalerStateService/DrainNode"
    found = [
        _closed("a tenant's token at the GCS itself", gcs, _LIST_JOBS, token),
        _closed("no token at the gate", gate, _LIST_JOBS, ""),
        _closed("another's job at the gate", gate, "JobInfoGcsService/MarkJobFinished", token, finished),
        _closed("cluster management at the gate", gate, drain, token),
        _closed("an unknown call at the gate", gate, "JobInfoGcsService/NoSuchCall", token),
        _only_own_jobs(gate, token),
        *_nodes(cluster, token),
        _limits(),
    ]
    if cluster.profile == "hardened":
        found.append(_users(folder))
    return found


def _ask(address: str, method: str, token: str, request: bytes = b"") -> bytes:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/ray.rpc." + method)
        reply: bytes = call(request, metadata=metadata, timeout=_SECONDS)
    return reply


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


def _nodes(cluster: Cluster, token: str) -> list[Probe]:
    """Every node of the GCS's table: does it have a gate, and is its raylet closed beside it?"""
    reply = pb.GetAllNodeInfoReply.FromString(
        _ask(cluster.gcs_address, "NodeInfoGcsService/GetAllNodeInfo", cluster.token)
    )
    gates = {
        (facts["address"], facts["port"]): facts["raylet_port"]
        for file in Path(cluster.temp_dir).glob("node-*/guard/config.json")
        for facts in [json.loads(file.read_text(encoding="utf-8"))]
    }
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


def _users(folder: Path) -> Probe:
    file = folder / "head" / "guard" / TOKENS_FOLDER
    if file.stat().st_mode & 0o077:
        return Probe(AREA, "tenants' tokens", "broken", f"{file} is open to others", f"chmod 700 {file}")
    return Probe(AREA, "tenants' Unix users", "ok", "each tenant's workers run as a user of their own")


def _limits() -> Probe:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        text = "cgroup v2 is there, but tenants' workers are not limited by it yet"
    else:
        text = "no cgroup v2 on this machine: CPU and memory beyond what was asked for are not limited"
    return Probe(AREA, "physical limits", "info", text)
