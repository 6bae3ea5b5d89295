"""The part of the guard that lives in the dashboard head: worker threads, admission loop, reconciliation.

State is in the ledger only. Killing this process at any moment loses nothing: the next one takes the lease,
compares the ledger with Ray and goes on. Decisions run in one thread, one after the other; the dashboard's
event loop is never blocked by them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from compute_guard.admission.gateway import Admitted, Gateway
from compute_guard.admission.held_leases import held_leases
from compute_guard.admission.ray_body import GATED, ONLY_TENANT, PROFILE
from compute_guard.admission.workload import WorkloadState
from compute_guard.cluster.connection import PERIOD_MS, PERIOD_VARIABLE, Cluster, load_cluster
from compute_guard.cluster.processes import MARKER
from compute_guard.ledger.reconcile import Correction, Step, Submission, reconcile
from compute_guard.ray_plugin.gates.identity import same
from compute_guard.ray_plugin.gates.tokens import TOKENS_FOLDER, Tokens
from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.ray_plugin.inbox import Inbox
from compute_guard.ray_plugin.job_api import JobApi
from compute_guard.ray_plugin.last_mile import LastMile
from compute_guard.ray_plugin.origin import Origins
from guard_core.clock import new_id, rfc3339, to_ns
from guard_core.errors import GuardError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from compute_guard.ledger.store import Entry

logger = logging.getLogger(__name__)
T = TypeVar("T")

LEASE = "admission"
LEASE_SECONDS = 10.0
LOOK_SECONDS = 0.1
"""How often the policy folder is looked at for edits."""
INTRUDERS_KEPT = 10_000


class Service:
    """One per dashboard head. `start` needs a running event loop."""

    def __init__(self, gcs_address: str, token: Callable[[], str]) -> None:
        self.token = token
        self._period = max(0.05, int(os.environ.get(PERIOD_VARIABLE) or PERIOD_MS) / 1000)
        self._holder = new_id("head")
        self.only = os.environ.get(ONLY_TENANT, "")
        """The one tenant of this cluster, where others have clusters of their own; empty for all."""
        self._deciding = ThreadPoolExecutor(1, thread_name_prefix="trainguard-decide")
        self._reading = ThreadPoolExecutor(4, thread_name_prefix="trainguard-read")
        self._gcs_address = gcs_address
        self._announced = False
        self._renew_at = 0.0
        self._gcs = Gcs(gcs_address, token)
        self._origins = Origins(gcs_address, self._gcs.supervisors)
        self._opening = threading.Lock()
        self._gateway: Gateway | None = None
        self._ended: set[str] = set()
        self._intruders: set[tuple[str, str]] = set()
        gates = _gates(os.environ)
        self._job_api = JobApi(self.own_address, token)
        self.last_mile = LastMile(self._gcs, self._job_api, self.decide, self.read, self.only)
        self.inbox = Inbox(self.gateway, self.decide, self.last_mile)
        self._worker_tokens = Tokens(Path(gates["guard_folder"]) / TOKENS_FOLDER) if gates else None
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the admission loop in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """Let the next round begin now: room may have been freed."""
        self._woken.set()

    async def decide(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the one deciding thread."""
        return await asyncio.get_running_loop().run_in_executor(self._deciding, work)

    async def read(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a reading thread."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    async def gateway(self) -> Gateway:
        """The gateway, opened at first use. Raises GuardError while the home cannot be opened."""
        if self._gateway is not None:
            return self._gateway
        return await self.read(self._opened)

    def _opened(self) -> Gateway:
        from guard_core.home import Home

        with self._opening:
            if self._gateway is None:
                gateway = Gateway(Home.open())
                gateway.look_every(LOOK_SECONDS)
                self._gateway = gateway
            return self._gateway

    def ids_of(self, tenant: str) -> tuple[frozenset[str], frozenset[str]]:
        """Ray job ids (hex) and submission ids of ``tenant``. Blocking."""
        drivers = self._gcs.drivers()
        known = self._opened().ledger.states({driver.submission_id for driver in drivers} - {""})
        own = frozenset(name for name, (_, whose) in known.items() if whose == tenant)
        return frozenset(driver.job_id for driver in drivers if driver.submission_id in own), own

    def held(self) -> dict[str, str]:
        """What leases of running jobs wait for at the gates, by workload. Blocking."""
        gates = _gates(os.environ)
        now = to_ns(self._opened().home.clock()) // 1_000_000
        lines = held_leases(gates["guard_folder"]) if gates else {}
        return {workload: held.sentence(now) for workload, held in lines.items()}

    def tenant_of_worker(self, token: str) -> str | None:
        """The tenant whose workers carry ``token`` in Ray's protocols, where there are gates. Blocking."""
        if self._worker_tokens is None:
            return None
        return next((t for known, t in self._worker_tokens.by_token().items() if same(known, token)), None)

    async def own_address(self) -> str:
        """``http://host:port`` of this dashboard."""
        return "http://" + await self.read(self._gcs.dashboard_address)

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except GuardError as error:  # the GCS is away, say: a sentence each time, and no traceback
                logger.warning("TrainGuard's admission round was not finished; it is tried again: %s", error)
            except Exception:
                logger.exception("TrainGuard's admission round failed; it is tried again")
            try:
                await asyncio.wait_for(self._woken.wait(), self._period)
            except TimeoutError:
                continue
            self._woken.clear()

    async def _round(self) -> None:
        gateway = await self.gateway()
        if not await self.read(lambda: self._leads(gateway)):
            return
        if not self._announced:
            await self.read(lambda: self._announce(gateway))
        corrections = await self.read(lambda: self._corrections(gateway))
        await self._record(gateway, corrections)
        for correction in corrections:
            await self._apply(gateway, correction)
        for incident in await self.decide(gateway.data_watch.look):
            logger.warning("TrainGuard: %s of %s: %s", incident.kind, incident.job, incident.id)
        await self._release(gateway)

    async def _release(self, gateway: Gateway) -> None:
        """Let in whoever fits; those of one round are on their way to Ray while the next is decided."""
        rounds = gateway.releases()

        def next_round() -> list[Admitted]:
            admitted = next(rounds, [])
            self.last_mile.take(admitted)
            return admitted

        handing: list[asyncio.Task[None]] = []
        try:
            while admitted := await self.decide(next_round):
                handing.append(asyncio.create_task(self.last_mile.hand_over_all(gateway, admitted)))
        finally:
            await asyncio.gather(*handing)

    def _leads(self, gateway: Gateway) -> bool:
        """Whether this process holds the lease; it is renewed when half of it has passed."""
        now = time.monotonic()
        if now < self._renew_at:
            return True
        name = f"{LEASE}/{self.only}" if self.only else LEASE
        held = gateway.ledger.lead(name, self._holder, LEASE_SECONDS)
        self._renew_at = now + LEASE_SECONDS / 2 if held else 0.0
        return held

    def _announce(self, gateway: Gateway) -> None:
        """Record how to reach a cluster that `compute up` did not start: response and doctor read it."""
        self._announced = True
        if MARKER in os.environ:
            return
        folder = gateway.home.path("ray")
        known = load_cluster(folder)
        if known is None or known.gcs_address != self._gcs_address:
            Cluster(
                dashboard="http://" + self._gcs.dashboard_address(),
                gcs_address=self._gcs_address,
                token_file=os.environ.get("RAY_AUTH_TOKEN_PATH", ""),
                marker="",
                temp_dir="",
                **_gates(os.environ),
                started_at=rfc3339(gateway.home.clock()),
            ).save(folder)

    def _corrections(self, gateway: Gateway) -> tuple[Correction, ...]:
        # Ray is read first, the ledger after it: what Ray shows was admitted before it showed, so a job that
        # is admitted in between cannot look like one that waits and runs all the same.
        underway = frozenset(self.last_mile.underway)
        drivers = self._origins.judged(self._gcs.drivers(living=True))
        living = set(self._gcs.submission_ids()) - self._ended
        submissions = dict(self._gcs.submissions(sorted(living)))
        entries = {
            entry.id: entry
            for entry in gateway.ledger.entries(
                tenant=self.only or None,
                states=[WorkloadState.PENDING, WorkloadState.ADMITTED, WorkloadState.RUNNING],
            )
        }
        for submission_id in sorted((living | {d.submission_id for d in drivers}) - {""}):
            if submission_id not in entries and (entry := gateway.ledger.get(submission_id)) is not None:
                entries[entry.id] = entry
        found = reconcile(
            entries.values(),
            submissions,
            drivers,
            being_submitted=underway | self.last_mile.underway,
            now=gateway.home.clock(),
        )
        self._forget_ended(entries, submissions)
        return found

    def _forget_ended(self, entries: dict[str, Entry], submissions: dict[str, Submission]) -> None:
        """Ended submissions, once the ledger knows, are not read again: Ray keeps every one for ever."""
        for submission_id, submission in submissions.items():
            entry = entries.get(submission_id)
            if submission.status in ("SUCCEEDED", "FAILED", "STOPPED") and (
                entry is None or entry.state.terminal
            ):
                self._ended.add(submission_id)

    async def _apply(self, gateway: Gateway, correction: Correction) -> None:
        target, reason = correction.target, correction.reason
        if correction.step in (Step.RUN, Step.FINISH):
            return  # recorded already, all of a round in one transaction
        if correction.step is Step.SUBMIT:
            await self.last_mile.hand_over_lost(gateway, target)
        elif correction.step is Step.STOP_EVICTED:
            await self._job_api.post(f"/api/jobs/{target}/stop", None)
        elif correction.step is Step.TAKE_OUT:
            await self._take_out(gateway, target, reason)
        elif correction.step is Step.STOP_SUBMISSION:
            await self._record_intrusion(gateway, "submission", correction)
            await self._job_api.post(f"/api/jobs/{target}/stop", None)
        else:
            await self._record_intrusion(gateway, "driver", correction)
            done = await self.read(lambda: self._gcs.end_driver(target))
            logger.warning("TrainGuard stopped driver %s: %s (%s)", target, reason, done)

    async def _record(self, gateway: Gateway, corrections: Iterable[Correction]) -> None:
        """What Ray started and ended, in one transaction each."""
        started = [(c.target, c.ray_job_id) for c in corrections if c.step is Step.RUN]
        ended = [(c.target, WorkloadState.FINISHED, c.reason) for c in corrections if c.step is Step.FINISH]
        if started:
            await self.decide(lambda: gateway.run_many(started))
        if ended:
            await self.decide(lambda: gateway.finish_many(ended))

    async def _take_out(self, gateway: Gateway, target: str, reason: str) -> None:
        """A job with notice has stopped: end what it left, then let it wait again, or end."""
        entry = await self.read(lambda: gateway.ledger.get(target))
        if entry is None or entry.eviction is None:
            return
        for driver in await self.read(self._gcs.drivers):
            if driver.submission_id == target:
                await self.read(partial(self._gcs.end_driver, driver.job_id))
        if entry.eviction.requeue:
            self._ended.discard(target)
            await self.decide(lambda: gateway.requeue(target, reason))
        else:
            await self.decide(lambda: gateway.finish(target, WorkloadState.PREEMPTED, reason))

    async def _record_intrusion(self, gateway: Gateway, kind: str, correction: Correction) -> None:
        """Once for each intruder and reason: it is looked at again every round until it is gone."""
        target, reason = correction.target, correction.reason
        if correction.ours or (target, reason) in self._intruders:
            return
        if len(self._intruders) >= INTRUDERS_KEPT:
            self._intruders.clear()
        self._intruders.add((target, reason))
        await self.decide(
            lambda: gateway.home.audit.event(
                "workload.unadmitted",
                subject=target,
                data={"kind": kind, "reason": reason, "action": "stop"},
                enforcement=Enforcement.DETECTIVE,
            )
        )


def _gates(environment: Mapping[str, str]) -> dict[str, str]:
    """Where the gates are, of a cluster that its own scripts started (``trainguard compute install``)."""
    profile = environment.get(PROFILE, "")
    if profile not in GATED:
        return {}
    authority = f"{environment['KUBERNETES_SERVICE_HOST']}:{environment['KUBERNETES_SERVICE_PORT']}"
    return {
        "profile": profile,
        "gate_address": environment["COMPUTE_GUARD_GATE"],
        "link_address": environment["COMPUTE_GUARD_LINK"],
        "authority_address": authority,
        "guard_folder": environment["COMPUTE_GUARD_NODE"],
    }
