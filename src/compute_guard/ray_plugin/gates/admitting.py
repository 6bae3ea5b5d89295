"""Letting drivers in: a driver is a submission's when it brings that submission's own credential.

The credential (kind `job`) is in the runtime environment that admission gave the submission, and only
there. It is bound to one workload and dies with it, so neither a name nor an id a driver may claim counts
for anything.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from compute_guard.ledger.store import Entry
from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.environment import credential_in, environment_of, fields_of
from compute_guard.ray_plugin.gates.identity import same
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.namespaces import stored
from compute_guard.ray_plugin.gates.tenancy import Job, Jobs
from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.errors import GuardError
from guard_core.identity import Principal

AGENT_MARK = "trainguard_agent"
"""Metadata by which the launcher marks the one driver of Ray's own on a node: its dashboard agent."""


UNDECIDED_ROUNDS = 40
UNDECIDED_SECONDS = 0.5
"""How often, and after how long, a driver is decided again while no decision can be had."""


def agent_mark(system_token: str) -> str:
    """What only Ray's own processes can say: derived from their token."""
    return hashlib.sha256(b"trainguard dashboard agent\0" + system_token.encode()).hexdigest()


class Drivers:
    """Admits drivers into `Jobs`."""

    def __init__(self, judge: Judge, jobs: Jobs, system: Callable[[], str]) -> None:
        self._judge = judge
        self._jobs = jobs
        self._system = system
        self._thread = ThreadPoolExecutor(2, thread_name_prefix="trainguard-drivers")

    async def principal(self, token: str) -> Principal:
        """Whose job credential this is. Raises Refusal."""
        credentials = self._judge.gateway.home.credentials
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: credentials.verify(token)
            )
        except (GuardError, OSError) as error:
            raise Refusal(f"the job's credential does not count: {error}") from error
        if found.kind != "job" or not found.workload:
            raise Refusal("this is not the credential of a job")
        return found

    async def admit(self, data: Any) -> Job | None:
        """Record the driver of an AddJob message; None for an agent of Ray's own.

        Raises Refusal for one that was not admitted.
        """
        if same(data.config.metadata.pop(AGENT_MARK, ""), agent_mark(self._system())):
            return None
        environment = environment_of(data.config.runtime_env_info.serialized_runtime_env)
        token = credential_in(environment)
        if not token:
            raise Refusal(
                "this driver belongs to no admitted submission; submit it: ray job submit, "
                "or JobSubmissionClient"
            )
        principal = await self.principal(token)
        workload = principal.workload or ""
        entry = await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._judge.gateway.ledger.get(workload)
        )
        if entry is None or entry.workload.tenant != principal.tenant or not entry.state.holds_quota:
            raise Refusal(f"submission {workload} is not running")
        known = self._jobs.get(data.job_id.hex())
        if known is not None and known.workload != workload:
            raise Refusal(f"Ray job {known.id} is another submission's")
        await self._may_build(entry, environment)
        job = Job(
            id=data.job_id.hex(),
            tenant=principal.tenant,
            user=principal.user,
            workload=workload,
            namespace=stored(data.config.ray_namespace, principal.tenant),
            credential=principal.credential_id,
        )
        if known is None:
            self._jobs.add(job)
        return job

    async def _may_build(self, entry: Entry, environment: Mapping[str, Any]) -> None:
        """Refuse a driver whose own runtime environment policy does not allow.

        Ray builds it on every node as soon as the driver has joined, before anybody asks for a lease, and as
        the agent's user: `pip` would run a tenant's `setup.py` as root.
        """
        fields = fields_of(environment)
        for _ in range(UNDECIDED_ROUNDS):
            verdict = await self._judge.runtime(entry, Amounts(), fields)
            if verdict.allow:
                return
            if not verdict.undecidable:
                break
            await asyncio.sleep(UNDECIDED_SECONDS)
        raise Refusal(verdict.reason)
