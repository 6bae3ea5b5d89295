"""What a lease costs in the gates, without a cluster: recorded calls through the real gate processes.

A server that answers like a raylet (and like a GCS) stands behind the two real gates, each in a process of
its own as on a cluster; the client asks for a lease and gives it back, as a driver does for a task with a
shape of its own. Beside them, in the same run: the same server asked directly, and through a bare
pass-through (a ``grpc.aio`` server on uvloop that hands bytes on, nothing else), and the same on the gates'
own HTTP/2.
CPU is user + system of each process from /proc; a *lease* is a RequestWorkerLease with its ReturnWorkerLease.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from compute_guard.ray_plugin.ports import free_ports
from measure import Measure, cpu_of, report

JOB = "01000000"
WORKLOAD = "bench"
_LEASE = "/ray.rpc.NodeManagerService/RequestWorkerLease"
_RETURN = "/ray.rpc.NodeManagerService/ReturnWorkerLease"


class _Raw(grpc.GenericRpcHandler):
    """Answers every method with ``answer(method, request)``."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def service(self, details: Any) -> Any:
        async def unary(request: bytes, _context: Any) -> bytes:
            return await self._answer(details.method, request)

        return grpc.unary_unary_rpc_method_handler(unary)


async def _serve(answer: Any, port: int) -> None:
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Raw(answer),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def raylet(port: int) -> None:
    """Grants every lease at once; an empty message for every other call."""
    from ray.core.generated import node_manager_pb2 as pb

    granted = pb.RequestWorkerLeaseReply(worker_pid=4711)
    granted.worker_address.worker_id = b"\1" * 28
    granted.worker_address.ip_address = "127.0.0.1"
    granted.worker_address.port = 1
    mapping = granted.resource_mapping.add()
    mapping.name = "CPU"
    mapping.resource_ids.add(index=0, quantity=0.01)
    text = granted.SerializeToString()

    async def answer(method: str, _request: bytes) -> bytes:
        return text if method == _LEASE else b""

    await _serve(answer, port)


async def bare(port: int, behind: int) -> None:
    """The pass-through."""
    channel = aio.insecure_channel(f"127.0.0.1:{behind}")
    calls: dict[str, Any] = {}

    async def answer(method: str, request: bytes) -> bytes:
        ask = calls.get(method)
        if ask is None:
            ask = calls[method] = channel.unary_unary(method)
        return await ask(request)

    await _serve(answer, port)


async def bare_own(port: int, behind: int) -> None:
    """The same pass-through on the gates' own HTTP/2."""
    from compute_guard.ray_plugin.gates.front import Front, serve
    from compute_guard.ray_plugin.gates.upstream import Upstream

    upstream = Upstream(f"127.0.0.1:{behind}", lambda: "token")

    async def handed_on(call: Any, request: bytes) -> bytes:
        return await upstream.call(call.method, request, call.metadata, call.seconds_left)

    await serve(Front(lambda _metadata: None, handed_on, upstream), f"127.0.0.1:{port}")
    await asyncio.Event().wait()


def lease_request(number: int) -> Any:
    """A task's request as Ray 2.60 sends it."""
    from ray.core.generated import node_manager_pb2 as pb

    message = pb.RequestWorkerLeaseRequest(backlog_size=0, is_selected_based_on_locality=False)
    spec = message.lease_spec
    spec.lease_id = number.to_bytes(28, "big")
    spec.job_id = bytes.fromhex(JOB)
    spec.actor_id = b"\xff" * 16
    spec.caller_address.ip_address = "127.0.0.1"
    spec.caller_address.port = 40000
    spec.caller_address.worker_id = spec.caller_address.node_id = b"\2" * 28
    spec.required_resources["CPU"] = 0.01 + 0.0001 * (number % 90)
    spec.runtime_env_info.serialized_runtime_env = '{"env_vars": {"TRAINGUARD_HOME": "/x"}}'
    spec.function_descriptor.python_function_descriptor.function_name = "noop"
    spec.task_name = "noop"
    return message


async def _one(ask: Any, give_back: Any, number: int, metadata: Any) -> None:
    from ray.core.generated import node_manager_pb2 as pb

    message = lease_request(number)
    reply = pb.RequestWorkerLeaseReply.FromString(await ask(message.SerializeToString(), metadata=metadata))
    if not reply.worker_address.worker_id:
        raise SystemExit(f"no lease was given: {reply}")
    done = pb.ReturnWorkerLeaseRequest(lease_id=message.lease_spec.lease_id, worker_port=1)
    await give_back(done.SerializeToString(), metadata=metadata)


async def replay(
    address: str, token: str, leases: int, at_once: int, first: int
) -> tuple[list[float], float]:
    """Milliseconds of each lease and its return, sorted, and the seconds of all."""
    metadata = (("authorization", f"Bearer {token}"),)
    times: list[float] = []
    async with aio.insecure_channel(address) as channel:
        ask, give_back = channel.unary_unary(_LEASE), channel.unary_unary(_RETURN)
        numbers = iter(range(first, first + leases))

        async def lane() -> None:
            for number in numbers:
                begun = time.perf_counter()
                await _one(ask, give_back, number, metadata)
                times.append(1e3 * (time.perf_counter() - begun))

        begun = time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(at_once)))
        return sorted(times), time.perf_counter() - begun


def prepare(folder: Path, behind: int) -> tuple[Path, Path, str, str]:
    """Configuration of both gates, the lease gate's address and a tenant's token: one running job of acme."""
    from compute_guard.ray_plugin.gates.settings import HeadConfig, NodeConfig
    from compute_guard.ray_plugin.gates.tenancy import Job, Jobs
    from compute_guard.ray_plugin.gates.tokens import TOKENS_FOLDER, Tokens
    from compute_guard.testing import running_job
    from guard_core.config import load_settings
    from guard_core.home import Home

    with Home.open(load_settings(home=folder / "home")) as home:
        running_job(home, WORKLOAD)
    for name in ("head", "node"):
        (folder / name).mkdir()
    job = Job(id=JOB, tenant="acme", user="ada", workload=WORKLOAD, namespace="x@acme")
    Jobs(folder / "head" / "jobs.jsonl").add(job)
    token = Tokens(folder / "head" / TOKENS_FOLDER).of("acme")
    token_file = folder / "token"
    token_file.write_text(secrets.token_hex(32))
    link, gcs_gate, authority, node_gate = free_ports(4, "127.0.0.1")
    head = HeadConfig(
        profile="hardened",
        gcs=f"127.0.0.1:{behind}",
        host="127.0.0.1",
        port=gcs_gate,
        link_port=link,
        authority_port=authority,
        token_file=str(token_file),
        folder=str(folder / "head"),
    )
    node = NodeConfig(
        profile="hardened",
        head=f"127.0.0.1:{link}",
        address="127.0.0.1",
        port=node_gate,
        raylet_port=behind,
        pool="shared",
        token_file=str(token_file),
        folder=str(folder / "node"),
    )
    files = folder / "head" / "config.json", folder / "node" / "config.json"
    head.save(files[0])
    node.save(files[1])
    return *files, f"127.0.0.1:{node.port}", token


def _start(*arguments: str, home: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TRAINGUARD_HOME": str(home), "TRAINGUARD_GATE_LOG": "WARNING"}
    return subprocess.Popen([sys.executable, *arguments], env=environment)


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("a process of the benchmark did not come up")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def measure(address: str, token: str, pids: list[int], leases: int, first: int) -> dict[str, Any]:
    """Latency of single leases, then throughput and CPU by process of many at once."""
    asyncio.run(replay(address, token, 200, 4, first))  # connections, imports, remembered verdicts
    single, _ = asyncio.run(replay(address, token, leases // 4, 1, first + 10_000))
    before = [cpu_of(pid) for pid in pids]
    _, took = asyncio.run(replay(address, token, leases, 16, first + 100_000))
    spent = [1e3 * (cpu_of(pid) - was) / leases for pid, was in zip(pids, before, strict=True)]
    return {
        "p50": single[len(single) // 2],
        "p99": single[int(len(single) * 0.99)],
        "per_s": leases / took,
        "cpu_ms": spent,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path)
    options.add_argument("--leases", type=int, default=2000)
    options.add_argument("--role", nargs="+", default=[], help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.role:
        import uvloop

        role = {"raylet": raylet, "bare": bare, "own": bare_own}[chosen.role[0]]
        uvloop.run(role(*map(int, chosen.role[1:])))
        return
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="tg-lease-") as name:
        folder = Path(name)
        home = folder / "home"
        behind, between, own = free_ports(3, "127.0.0.1")
        try:
            running.append(_start(__file__, "--role", "raylet", str(behind), home=home))
            running.append(_start(__file__, "--role", "bare", str(between), str(behind), home=home))
            running.append(_start(__file__, "--role", "own", str(own), str(behind), home=home))
            head, node, gate, token = prepare(folder, behind)
            _wait_for(lambda: _listens(behind) and _listens(between) and _listens(own))
            for role, file in (("head", head), ("node", node)):
                module = "compute_guard.ray_plugin.gates"
                running.append(_start("-m", module, role, str(file), home=home))
                _wait_for((file.parent / "ready").exists)
            heads, nodes = running[3].pid, running[4].pid
            direct = measure(f"127.0.0.1:{behind}", token, [], chosen.leases, 1)
            floor = measure(f"127.0.0.1:{between}", token, [running[1].pid], chosen.leases, 1)
            ours_bare = measure(f"127.0.0.1:{own}", token, [running[2].pid], chosen.leases, 1)
            ours = measure(gate, token, [nodes, heads], chosen.leases, 1)
            idle = [cpu_of(nodes), cpu_of(heads)]
            time.sleep(5)
            idle = [20 * (cpu_of(pid) - was) for pid, was in zip((nodes, heads), idle, strict=True)]
        finally:
            for process in reversed(running):
                process.terminate()
            for process in running:
                process.wait()
    print_table(direct, floor, ours_bare, ours, idle, chosen.json)


def print_table(direct: Any, floor: Any, own: Any, ours: Any, idle: list[float], file: Path | None) -> None:
    """One line per figure; the peer is the bare pass-through."""

    def line(
        name: str, value: float, unit: str, peer: float | None, target: str = "", met: Any = None
    ) -> Any:
        ratio = value / peer if peer else None
        shown = None if peer is None else round(peer, 3)
        return Measure(name, round(value, 3), unit, "bare pass-through", shown, ratio, target, met)

    node, head = ours["cpu_ms"]
    per_core = 1e3 / (node + head)
    report(
        [
            line("a lease and its return, asked directly, p50", direct["p50"], "ms", None),
            line(
                "added by the gates, p50",
                ours["p50"] - direct["p50"],
                "ms",
                floor["p50"] - direct["p50"],
                "<= 2 ms",
                ours["p50"] - direct["p50"] <= 2,
            ),
            line(
                "added by the gates, p99",
                ours["p99"] - direct["p99"],
                "ms",
                floor["p99"] - direct["p99"],
                "<= 10 ms",
                ours["p99"] - direct["p99"] <= 10,
            ),
            line(
                "CPU per lease, both gates",
                node + head,
                "ms",
                floor["cpu_ms"][0],
                "<= 0.5 ms",
                node + head <= 0.5,
            ),
            line(
                "CPU per lease, bare pass-through on the gates' own HTTP/2",
                own["cpu_ms"][0],
                "ms",
                floor["cpu_ms"][0],
            ),
            line("CPU per lease, lease gate (one per node)", node, "ms", floor["cpu_ms"][0]),
            line(
                "CPU per lease, head (one per cluster): the decision",
                head,
                "ms",
                None,
                "<= 0.5 ms",
                head <= 0.5,
            ),
            line(
                "leases/s on one core, both gates",
                per_core,
                "1/s",
                1e3 / floor["cpu_ms"][0],
                ">= 2000",
                per_core >= 2000,
            ),
            line("decisions/s on one core, head", 1e3 / head, "1/s", None, ">= 2000", head <= 0.5),
            line("leases/s, all on this machine", ours["per_s"], "1/s", floor["per_s"]),
            line("idle lease gate", idle[0], "% of a core", None),
            line("idle head's gate", idle[1], "% of a core", None),
        ],
        file,
    )


if __name__ == "__main__":
    main()
