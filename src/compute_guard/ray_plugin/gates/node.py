"""The process beside one raylet: its lease gate, and the files its launcher reads."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.core.generated import common_pb2
from ray.core.generated import node_manager_pb2 as pb

from compute_guard.ray_plugin.gates.authority import domain_of
from compute_guard.ray_plugin.gates.blocked import lent_by
from compute_guard.ray_plugin.gates.demand import demand_of
from compute_guard.ray_plugin.gates.front import Front, serve
from compute_guard.ray_plugin.gates.grants import Grant, Grants
from compute_guard.ray_plugin.gates.identity import by_token
from compute_guard.ray_plugin.gates.lease_gate import LeaseGate
from compute_guard.ray_plugin.gates.limits import Limits
from compute_guard.ray_plugin.gates.link import Line
from compute_guard.ray_plugin.gates.lost import is_closed
from compute_guard.ray_plugin.gates.reads import reads_environment
from compute_guard.ray_plugin.gates.reaper import Reaper
from compute_guard.ray_plugin.gates.settings import NodeConfig
from compute_guard.ray_plugin.gates.shares import restore
from compute_guard.ray_plugin.gates.tokens import secret_in
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.zygote import start as start_zygote
from guard_core.files import write_atomic

logger = logging.getLogger(__name__)
COMPARE_SECONDS = 1.0
RECOVERED = "worker:"
BLOCKED_SECONDS = 0.2
REFUSED_LOOKS = 4
"""So many looks in a row, `BLOCKED_SECONDS` apart, must find the raylet's port closed."""
ZYGOTE_FIRST_PAUSE, ZYGOTE_LAST_PAUSE = 5.0, 600.0
_LOAD = "/ray.rpc.NodeManagerService/GetResourceLoad"
_STATS = "/ray.rpc.NodeManagerService/GetNodeStats"


class Node:
    """Everything in a node's process."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.folder = Path(config.folder)
        self._system = secret_in(Path(config.token_file))
        self.upstream = Upstream(f"{config.address}:{config.raylet_port}", self._system)
        self.grants = Grants()
        host, _, port = config.head.rpartition(":")
        self.line = Line(host, int(port), self._system, self._hello, lambda said: self.gate.hear(said))
        self.gate = LeaseGate(self.upstream, self.line, self.grants, self._admitted)
        self._reaper = Reaper()
        self._zygote: subprocess.Popen[bytes] | None = None
        self._zygote_at = 0.0
        self._zygote_pause = ZYGOTE_FIRST_PAUSE
        self._lent: tuple[str, int] = ("", 0)
        self._told: tuple[str, int] = ("", 0)
        self._written: set[str] = set()
        self._tokens: dict[str, str] = {}
        self._jobs_known = 0
        self._missing: set[str] = set()
        self._limits = Limits.of_environment()
        self._met = False
        self._refused = 0

    def _hello(self) -> Mapping[str, Any]:
        self.gate.allowance.clear()
        return {
            "address": self.config.address,
            "raylet_port": self.config.raylet_port,
            "gate_port": self.config.port,
            "pool": self.config.pool,
            "limits": self._limits is not None,
            "leases": [grant.to_json() for grant in self.grants.all()],
        }

    def _admitted(self, answer: Mapping[str, Any]) -> None:
        """Leave word for the launcher, before the raylet can start a worker for this lease."""
        # A tenant's cgroup comes and goes with its leases, so each of them asks for it.
        cgroup = str(self._limits.part(answer["tenant"])) if self._limits is not None else ""
        supervisor = answer.get("supervisor")
        name = f"credentials/{answer['credential']}" if supervisor else f"jobs/{answer['job']}"
        if not answer.get("here") or name in self._written:
            return
        facts = {name: answer[name] for name in ("tenant", "workload")}
        facts["environment"] = {
            "RAY_AUTH_TOKEN": answer["token"],
            "RAY_CLUSTER_NAME": domain_of(answer["tenant"]),
            **reads_environment(),
        }
        facts |= {"uid": answer["uid"], "groups": answer["groups"], "supervisor": bool(supervisor)}
        if cgroup:
            facts["cgroup"] = cgroup
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(file, json.dumps(facts).encode(), mode=0o600)
        self._written.add(name)

    async def run(self) -> None:
        """Serve until cancelled."""
        self._keep_zygote()
        await self._recover()
        talking = asyncio.ensure_future(self.line.run())
        # A lease that is asked for again after a restart must find its tenant known: Ray repeats what nobody
        # answered, but not what was refused.
        await self._learn()
        tenants = by_token(self._system, lambda: self._tokens)
        front = Front(tenants, self.gate, self.upstream, self.gate.passage)
        server, _ = await serve(front, self.config.listens)
        logger.info("the lease gate is up at %s", self.config.listens)
        try:
            compared = time.monotonic()
            (self.folder / "ready").touch()
            while True:
                await asyncio.sleep(BLOCKED_SECONDS)
                try:
                    await self._lend()
                    if self._limits is not None:
                        self._limits.follow(self.grants.all())
                    if time.monotonic() - compared < COMPARE_SECONDS:
                        continue
                    compared = time.monotonic()
                    self._keep_zygote()
                    await self._learn()
                    await self._compare()
                    self._met, self._refused = True, 0
                except Exception as error:  # noqa: BLE001 - the raylet may be starting or gone; it is looked at again
                    logger.info("the raylet could not be asked: %s", error)
                    await self._look_for_the_raylet()
        finally:
            talking.cancel()
            await server.stop()

    async def _look_for_the_raylet(self) -> None:
        """Tell the head when nobody listens any more where the raylet did."""
        if not await is_closed(self.config.address, self.config.raylet_port):
            self._refused = 0
            return
        self._refused += 1
        if self._met and self._refused == REFUSED_LOOKS:
            logger.warning("the raylet is gone")
            self.line.tell({"op": "lost"})

    def _keep_zygote(self) -> None:
        """Start it, and ever more rarely when it ends; without one workers start the long way."""
        if self._zygote is not None and restore(self._zygote.pid):
            logger.warning("a process lowered the CPU share of this node's workers; it has been put back")
        ended = self._zygote is None or self._zygote.poll() is not None
        if ended and time.monotonic() >= self._zygote_at:
            self._zygote = start_zygote(self.folder)
            self._zygote_at = time.monotonic() + self._zygote_pause
            self._zygote_pause = min(2 * self._zygote_pause, ZYGOTE_LAST_PAUSE)

    async def _learn(self) -> None:
        """The tenants' tokens and jobs, from the head."""
        known = await self.line.ask({"op": "known", "jobs": self._jobs_known})
        self._jobs_known = known["known"]
        if self._tokens != known["tokens"]:
            self._tokens = dict(known["tokens"])
        self.grants.learn(known["jobs"])
        if known["living"] is None:
            return
        ended = self._reaper.round(known["users"], frozenset(known["living"]))
        if ended:
            logger.warning("ended processes that outlived their tenant's jobs: %s", ended)

    async def _lend(self) -> None:
        """Tell the head what this node's waiting workers gave back; seen twice, as leases come and go."""
        lent = ("", 0)
        if self.grants.all():
            raw = await self.upstream.call(_LOAD, b"", timeout=5.0)
            load = pb.GetResourceLoadReply.FromString(raw).resources
            lent = lent_by(self.grants.all(), load.resources_total, load.resources_available)
        steady = (lent[0], min(lent[1], self._lent[1])) if lent[0] == self._lent[0] else ("", 0)
        self._lent = lent
        if steady != self._told:
            self._told = steady
            self.line.tell({"op": "lent", "workload": steady[0], "cpu_milli": steady[1]})

    async def _stats(self) -> Any:
        request = pb.GetNodeStatsRequest(include_memory_info=False).SerializeToString()
        return pb.GetNodeStatsReply.FromString(await self.upstream.call(_STATS, request, timeout=5.0))

    async def _recover(self) -> None:
        """After a restart: what the raylet's workers hold is what was granted."""
        try:
            stats = await self._stats()
        except Exception:  # noqa: BLE001 - at first start there is no raylet yet, and nothing to recover
            return
        self.grants.restore(_grants_in(stats))

    async def _compare(self) -> None:
        """Grants whose worker is gone (twice in a row) are given back, whatever was lost on the way."""
        stats = await self._stats()
        rows = {row.worker_id.hex(): row for row in stats.core_workers_stats}
        gone = {grant.lease for grant in self.grants.all() if grant.worker and grant.worker not in rows}
        # A recovered lease has no id that Ray would ever give back; its worker's idleness ends it.
        gone |= {
            grant.lease
            for grant in self.grants.all()
            if grant.lease.startswith(RECOVERED)
            and grant.worker in rows
            and not rows[grant.worker].used_resources
        }
        for lease in gone & self._missing:
            self.gate.give_back(lease)
        self._missing = gone


def _grants_in(stats: Any) -> list[Grant]:
    found = []
    for row in stats.core_workers_stats:
        held = {
            name: sum(slot.allocation for slot in value.resource_slots)
            for name, value in row.used_resources.items()
        }
        if row.worker_type == common_pb2.WORKER and row.job_id.strip(b"\xff"):
            found.append(
                Grant(
                    lease=RECOVERED + row.worker_id.hex(),
                    job=row.job_id.hex(),
                    workload="",
                    tenant="",
                    amounts=dict(demand_of(held).amounts),
                    worker=row.worker_id.hex(),
                )
            )
    return found


async def serve_node(file: Path) -> None:
    """Run a node's gate as ``file`` (NodeConfig) says."""
    await Node(NodeConfig.load(file)).run()
