"""From an admitted workload to a job of Ray's: the hand-over to its Job API, and what is on its way there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from compute_guard.admission.gateway import Admitted, Gateway
from compute_guard.admission.ray_body import TENANT_KEY
from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.reconcile import ENDED
from compute_guard.ledger.store import Entry
from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.ray_plugin.job_api import JobApi

logger = logging.getLogger(__name__)
T = TypeVar("T")
SUBMIT_ATTEMPTS = 5
WATCHED_SECONDS = 5.0
"""Ray's watcher of a job looks every second; after this long it has seen that the job ended."""
HAND_OVERS = 8
UNDERWAY_SECONDS = 0.05
"""Time between two looks whether a hand-over that is to be stopped has come to its end."""


class Run(Protocol):
    """Runs something that blocks, in a thread."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Its result."""


class LastMile:
    """``only`` is the one tenant of this cluster, empty for all; ``decide`` and ``read`` run in threads."""

    def __init__(self, gcs: Gcs, job_api: JobApi, decide: Run, read: Run, only: str) -> None:
        self.underway: set[str] = set()
        self._hands: Counter[str] = Counter()
        self._gcs = gcs
        self._job_api = job_api
        self._decide = decide
        self._read = read
        self._only = only
        self._attempts: dict[str, int] = {}
        self._gate = asyncio.Semaphore(HAND_OVERS)

    @contextmanager
    def on_its_way(self, submission_id: str) -> Iterator[None]:
        """Marks a submission as being handed to Ray by this process, until nobody here does so any more."""
        self.underway.add(submission_id)
        self._hands[submission_id] += 1
        try:
            yield
        finally:
            self._hands[submission_id] -= 1
            if not self._hands[submission_id]:
                del self._hands[submission_id]
                self.underway.discard(submission_id)

    def take(self, admitted: Iterable[Admitted]) -> None:
        """Mark those for this cluster as underway, in the deciding thread: who decides next there sees it."""
        self.underway |= {one.id for one in self._here(admitted)}

    def _here(self, admitted: Iterable[Admitted]) -> list[Admitted]:
        """Those for this cluster; another tenant's cluster finds its own in the ledger."""
        return [
            one
            for one in admitted
            if not self._only or (one.body.get("metadata") or {}).get(TENANT_KEY) == self._only
        ]

    async def hand_over_all(self, gateway: Gateway, admitted: Sequence[Admitted]) -> None:
        """Hand over those for this cluster, a few at a time: Ray's Job API starts a process for each."""
        self.take(admitted)

        async def one(item: Admitted) -> None:
            async with self._gate:
                await self.hand_over(gateway, item)

        await asyncio.gather(*(one(item) for item in self._here(admitted)))

    async def hand_over(self, gateway: Gateway, admitted: Admitted) -> None:
        """Submit through Ray. A refusal by Ray ends the workload; trouble is tried again a few times."""
        with self.on_its_way(admitted.id):
            await self._clear(admitted.id)
            try:
                status, text = await self._job_api.post("/api/jobs/", admitted.body)
            except OSError as error:
                status, text = 0, str(error)
        if status == 200 or await self.arrived(gateway, admitted.id):
            self._attempts.pop(admitted.id, None)
            return
        self._attempts[admitted.id] = self._attempts.get(admitted.id, 0) + 1
        if not 400 <= status < 500 and self._attempts[admitted.id] < SUBMIT_ATTEMPTS:
            logger.warning("Ray did not take %s (%s %s); it is tried again", admitted.id, status, text)
            return
        self._attempts.pop(admitted.id, None)
        reason = f"Ray refused it ({status}): {(text.strip().splitlines() or [''])[-1]}"
        await self._decide(lambda: gateway.finish(admitted.id, WorkloadState.EVICTED, reason))

    async def hand_over_lost(self, gateway: Gateway, submission_id: str) -> None:
        """Hand over an admitted workload that a crash kept from Ray. Its credential is a new one.

        Looked at again where submissions are decided: one that is being admitted there is in the ledger for a
        moment before it is underway, and is not lost.
        """

        def lost() -> Admitted | None:
            entry = gateway.ledger.get(submission_id)
            if entry is None or entry.state is not WorkloadState.ADMITTED:
                return None
            found = submission_id in self.underway or self._in_ray(entry)
            return None if found else gateway.resubmission(entry)

        admitted = await self._decide(lost)
        if admitted is not None:
            await self.hand_over(gateway, admitted)

    async def stop(self, gateway: Gateway, submission_id: str, reason: str) -> bool | None:
        """End a workload that Ray does not have: whether it had not ended yet. None: Ray has it.

        What is just being handed over is waited for: Ray is given only so long to answer.
        """

        def ended() -> bool | None:
            entry = gateway.ledger.get(submission_id)
            if entry is not None and entry.state.holds_quota and self._in_ray(entry):
                return None
            return gateway.finish(submission_id, WorkloadState.EVICTED, reason)

        while True:
            while submission_id in self.underway:
                await asyncio.sleep(UNDERWAY_SECONDS)
            # Nobody begins to hand it over before this is through: that, too, is decided in the one thread.
            done = await self._decide(lambda: None if submission_id in self.underway else (ended(),))
            if done is not None:
                return done[0]

    async def known_to_ray(self, entry: Entry) -> bool:
        """Whether Ray's Job API has a record of this run of a workload."""
        return await self._read(lambda: self._in_ray(entry))

    def _in_ray(self, entry: Entry) -> bool:
        seen = self._gcs.submissions([entry.id]).get(entry.id)
        return seen is not None and not seen.is_of_before(entry)

    async def arrived(self, gateway: Gateway, submission_id: str) -> bool:
        """Whether Ray has it after all: an answer was lost, or of two that handed it over Ray refused one."""
        entry = await self._read(lambda: gateway.ledger.get(submission_id))
        return entry is not None and await self.known_to_ray(entry)

    async def _clear(self, submission_id: str) -> None:
        """Delete Ray's record of an earlier run: it keeps ids for ever, and takes each only once.

        Not at once: what watched that run writes its end down again if it finds the record gone.
        """
        seen = (await self._read(lambda: self._gcs.submissions([submission_id]))).get(submission_id)
        if seen is None or seen.status not in ENDED:
            return
        since = time.time() - (seen.ended_ms or 0) / 1000
        await asyncio.sleep(min(WATCHED_SECONDS, max(0.0, WATCHED_SECONDS - since)))
        await self._job_api.delete(submission_id)
