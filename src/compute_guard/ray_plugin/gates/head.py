"""The process beside the GCS: the gateway's listeners, the lease book, and the desk that nodes ask.

All it must remember is on disk (jobs, listeners) or in the ledger; the leases it gets back from the nodes.
So it may be killed at any moment: nodes hold their questions until it is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from compute_guard.admission.gateway import Gateway
from compute_guard.admission.held_leases import HeldLeasesFile
from compute_guard.quota.amounts import Amounts
from compute_guard.ray_plugin.gates.admitting import Drivers
from compute_guard.ray_plugin.gates.authority import Authority
from compute_guard.ray_plugin.gates.book import LeaseBook
from compute_guard.ray_plugin.gates.booking import Booking
from compute_guard.ray_plugin.gates.cordons import Cordons
from compute_guard.ray_plugin.gates.credit import TICK_SECONDS, Credit
from compute_guard.ray_plugin.gates.front import Front, serve
from compute_guard.ray_plugin.gates.gcs_gate import GcsGate
from compute_guard.ray_plugin.gates.identity import by_token
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.link import Desk
from compute_guard.ray_plugin.gates.lost import Silence, is_closed
from compute_guard.ray_plugin.gates.nodes import GATES_FILE, Nodes
from compute_guard.ray_plugin.gates.reads import Reads
from compute_guard.ray_plugin.gates.settings import HeadConfig
from compute_guard.ray_plugin.gates.sweep import Sweep
from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.tokens import TOKENS_FOLDER, Tokens, secret_in
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.users import USERS_FILE, Users
from guard_core.clock import to_ns
from guard_core.errors import GuardError
from guard_core.findings import Enforcement
from guard_core.home import Home

logger = logging.getLogger(__name__)
JOBS_FILE = "jobs.jsonl"
READY_FILE = "ready"
SWEEP_SECONDS = 0.5


class Head:
    """Everything in the head's process."""

    def __init__(self, config: HeadConfig, home: Home) -> None:
        self.config = config
        self.folder = Path(config.folder)
        token_file = Path(config.token_file)
        self._system = secret_in(token_file)
        self.upstream = Upstream(config.gcs, self._system)
        enforcement = Enforcement.ENFORCED if config.profile == "hardened" else Enforcement.COOPERATIVE
        self.judge = Judge(Gateway(home), enforcement)
        self.jobs = Jobs(self.folder / JOBS_FILE)
        self.credit = Credit(self.judge, LeaseBook())
        self.nodes = Nodes(self.upstream, self.folder / GATES_FILE)
        self.cordons = Cordons(home, self.nodes)
        self.drivers = Drivers(self.judge, self.jobs, self._system)
        self.gate = GcsGate(
            self.upstream,
            self.jobs,
            self.judge,
            self.credit,
            self.nodes,
            self.drivers,
            self._owner,
            self.cordons,
        )
        self.tokens = Tokens(self.folder / TOKENS_FOLDER)
        self.sweep = Sweep(self.upstream, self.jobs)
        self._swept = time.monotonic()
        self._silence = Silence()
        self._held = HeldLeasesFile(self.folder)
        self._noted: dict[str, tuple[int, Amounts, str]] | None = None
        self.booking = Booking(
            self.jobs,
            self.judge,
            self.credit,
            self.nodes,
            self.drivers,
            self.tokens,
            Users(self.folder / USERS_FILE) if config.profile == "hardened" else None,
            self.cordons,
        )
        self.desk = Desk(self._system, self.booking.greet, self.booking.ask, self.booking.hear)
        self.credit.reports.desk = self.desk

    async def _owner(self, submission: str) -> str | None:
        ledger = self.judge.gateway.ledger
        entry = await asyncio.get_running_loop().run_in_executor(None, lambda: ledger.get(submission))
        return entry.workload.tenant if entry is not None and entry.id == submission else None

    async def run(self) -> None:
        """Serve until cancelled."""
        reads = Reads(self.judge, self.drivers)
        authority = Authority(self.folder, self._system, self.tokens.by_token, reads)
        await authority.start(self.config.host, self.config.authority_port)
        tenants = by_token(self._system, self.tokens.by_token)
        front = Front(tenants, self.gate, self.upstream, self.gate.passage)
        gates, _ = await serve(front, self.config.listens)
        # Nodes ask again at once after a restart; what cannot be decided yet would wait half a second.
        await self.judge.refresh()
        server = await self.desk.start(self.config.host, self.config.link_port)
        (self.folder / READY_FILE).touch()
        logger.info("the head's gate is up at %s", self.config.listens)
        async with server:
            try:
                while True:
                    await asyncio.sleep(TICK_SECONDS)
                    await self._round()
            finally:
                await gates.stop()

    def _record(self, what: str) -> None:
        self.judge.gateway.home.audit.event(
            "workload.outlived",
            subject=what,
            data={"action": "ended"},
            enforcement=Enforcement.DETECTIVE,
        )

    async def _round(self) -> None:
        try:
            await self.credit.tick()
            now_ms = to_ns(self.judge.gateway.home.clock()) // 1_000_000
            waiting = {**self.cordons.held(), **self.credit.held()}
            if waiting != self._noted:
                await asyncio.to_thread(self._held.note, waiting, now_ms)
                self._noted = waiting
            for name in await self.nodes.refresh():
                self.credit.book.drop_node(name)
            await self._let_go_of_the_lost()
            alive = self.credit.alive()
            if alive is not None and time.monotonic() - self._swept >= SWEEP_SECONDS:
                self._swept = time.monotonic()
                for what in await self.sweep.round(alive):
                    self._record(what)
        except (GuardError, OSError) as error:
            logger.warning("a round could not be finished: %s", error)
        except Exception:
            logger.exception("a round could not be finished")

    async def _let_go_of_the_lost(self) -> None:
        """Nodes whose gate is silent and whose raylet's port is closed."""
        gates = self.nodes.living()
        for name in self._silence.of(gates, self.desk.connected(), time.monotonic()):
            if await is_closed(gates[name].address, gates[name].raylet_port):
                logger.warning("node %s is gone", name)
                self.credit.book.drop_node(name)
                await self.nodes.lost(name)


async def serve_head(file: Path) -> None:
    """Run the head's gates as ``file`` (HeadConfig) says."""
    config = HeadConfig.load(file)
    with Home.open() as home:
        await Head(config, home).run()
