"""Rego's answers for the gates, remembered as long as the policies that gave them are in force.

The same question is put to policy once per policy revision; a remembered answer costs microseconds. A
question that cannot be answered is never remembered and never a yes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from compute_guard.admission.gateway import Gateway, principal_of
from compute_guard.admission.workload import Workload, entrypoint_amounts
from compute_guard.quota.limits import Amounts, Quotas
from compute_guard.ray_plugin.gates.demand import WORKERS
from compute_guard.ray_plugin.gates.namespaces import question
from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.errors import GuardError
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from compute_guard.ledger.store import Entry

T = TypeVar("T")
ISOLATION = "guard/compute/isolation/decision"
PLACEMENT = "guard/compute/placement/decision"
RUNTIME = "guard/compute/runtime/decision"
REMEMBERED = 50_000
REFRESH_SECONDS = 1.0
OVERDUE_SECONDS = 1.0
"""How much older policies may be than `REFRESH_SECONDS` before a question waits for them to be read."""
_UNLIMITED = 2**62


@dataclass(frozen=True, slots=True)
class Verdict:
    """``undecidable``: policy could not be asked; ask again later, and let nothing through meanwhile."""

    allow: bool
    reason: str = ""
    undecidable: bool = False


class Judge:
    """Asks one gateway's policies. Call from one event loop; the asking itself is done in a thread."""

    def __init__(self, gateway: Gateway, enforcement: Enforcement) -> None:
        self.gateway = gateway
        self._enforcement = enforcement
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trainguard-judge")
        self._known: dict[tuple[Any, ...], Verdict] = {}
        self._entrypoints: dict[str, Mapping[str, int]] = {}
        self._revision = ""
        self._generation = 0
        self._pools: dict[tuple[str, int], tuple[str, ...]] = {}
        self._fresh_until = 0.0
        self._quotas: Quotas | None = None
        self._trouble = "policies were not loaded yet"

    async def refresh(self) -> None:
        """Take up edited policies; at most once a second."""
        if time.monotonic() < self._fresh_until:
            return
        self._fresh_until = time.monotonic() + REFRESH_SECONDS
        await self.in_thread(self._load)

    async def _current(self) -> None:
        """As :meth:`refresh`, when the head's rounds, which see to it, have not come by for too long."""
        if time.monotonic() >= self._fresh_until + OVERDUE_SECONDS:
            await self.refresh()

    def _load(self) -> None:
        try:
            self.gateway.freshen()
            quotas = self.gateway.quotas()
            revision = self.gateway.home.policy.revision
        except (GuardError, OSError) as error:
            # Nothing that was allowed before may be taken for allowed now.
            self._quotas, self._trouble = None, str(error)
            self._forget()
            return
        if revision != self._revision or quotas != self._quotas:
            self._forget()
        self._revision, self._quotas, self._trouble = revision, quotas, ""

    def _forget(self) -> None:
        self._known, self._pools = {}, {}
        self._generation += 1

    @property
    def terms(self) -> str:
        """What answers given now rest on: they hold as long as this stays the same. Empty: on nothing.

        A maintenance window opens by the clock alone, so a new minute is new terms.
        """
        if self._trouble or time.monotonic() >= self._fresh_until + OVERDUE_SECONDS:
            return ""
        return f"{self._generation}.{int(time.time() // 60)}"

    @property
    def trouble(self) -> str:
        """Why no decision can be had just now; empty when all is well."""
        return self._trouble

    @property
    def quotas(self) -> Quotas | None:
        """The quotas in force, None while the policy data cannot be used."""
        return self._quotas

    async def _decide(
        self, key: tuple[Any, ...], path: str, question: Callable[[], Mapping[str, Any]], principal: Principal
    ) -> Verdict:
        await self._current()
        if self._trouble:
            return Verdict(False, self._trouble, undecidable=True)
        known = self._known.get(key)
        if known is not None:
            return known
        revision = self._revision
        try:
            decision = await self.in_thread(
                lambda: self.gateway.home.decide(
                    path, question(), principal=principal, enforcement=self._enforcement, subject=str(key[1])
                ),
            )
        except (GuardError, OSError) as error:
            return Verdict(False, str(error), undecidable=True)
        if decision.undecidable:
            return Verdict(False, decision.explain(), undecidable=True)
        text = "" if decision.allow else f"{decision.explain()} (decision {decision.decision_id})"
        verdict = Verdict(decision.allow, text)
        if revision == self._revision:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = verdict
        return verdict

    async def in_thread(self, work: Callable[[], T]) -> T:
        """``work`` in the one thread that asks this home's policies."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def isolation(
        self, principal: Principal, operation: str, kind: str, owner: str, name: str, namespace: str | None
    ) -> Verdict:
        """May ``principal`` do ``operation`` to an object of tenant ``owner``, in ``namespace``?"""
        target = {"kind": kind, "tenant": owner, "id": name, "namespace": namespace}
        key = (ISOLATION, principal.tenant, principal.roles, operation, kind, owner, name, namespace)
        return await self._decide(
            key, ISOLATION, lambda: {"operation": operation, "target": target}, principal
        )

    async def isolated(self, tenant: str, operation: str, kind: str, name: str, namespace: str) -> None:
        """Raise Refusal unless policy lets ``tenant`` do this in ``namespace``, as its program names it."""
        asked = question(namespace, tenant)
        verdict = await self.isolation(gate_principal(tenant), operation, kind, tenant, name, asked)
        if not verdict.allow:
            raise Refusal(verdict.reason)

    async def pools(self, tenant: str) -> tuple[str, ...]:
        """The pools (nodes.yaml) that policy lets ``tenant`` run in."""
        await self._current()
        key = (tenant, int(time.time() // 60))
        known = self._pools.get(key)
        if known is not None:
            return known
        memory = self._pools
        verdicts = {name: await self.placement(tenant, name) for name in self.pool_labels()}
        found = tuple(name for name, verdict in verdicts.items() if verdict.allow)
        if any(verdict.undecidable for verdict in verdicts.values()):
            self._generation += 1  # nobody may remember an answer that rests on this one
        else:
            if len(memory) >= REMEMBERED:
                memory.clear()
            memory[key] = found
        return found

    def pool_labels(self) -> Mapping[str, Mapping[str, str]]:
        """Labels by pool, from nodes.yaml."""
        try:
            pools = self.gateway.home.policy_data().get("nodes", {}).get("pools", {})
        except GuardError:
            return {}
        return {name: dict(pool.get("labels") or {}) for name, pool in pools.items()}

    async def placement(self, tenant: str, pool: str) -> Verdict:
        """May ``tenant`` run in ``pool``?"""
        principal = gate_principal(tenant)
        node = {"id": pool, "pool": pool, "labels": self.pool_labels().get(pool, {}), "state": "ready"}
        question = {"workload": {"submission_id": "any"}, "node": node}
        # A maintenance window opens by the clock alone, so an answer is good for a minute.
        key = (PLACEMENT, tenant, pool, int(time.time() // 60))
        return await self._decide(key, PLACEMENT, lambda: question, principal)

    def _held_by_entrypoint(self, workload: Workload) -> Mapping[str, int]:
        found = self._entrypoints.get(workload.id)
        if found is None:
            if len(self._entrypoints) >= REMEMBERED:
                self._entrypoints.clear()
            found = self._entrypoints[workload.id] = entrypoint_amounts(workload.spec)
        return found

    async def runtime(
        self, entry: Entry, needs: Amounts, fields: tuple[str, ...], *, entrypoint: bool = False
    ) -> Verdict:
        """May this workload start something that needs ``needs`` with these runtime_env fields?

        ``entrypoint``: it is the job's entrypoint itself; everything else has to fit beside that.
        """
        await self._current()
        quotas, workload = self._quotas, entry.workload
        if quotas is None:
            return Verdict(False, self._trouble, undecidable=True)
        own = {} if entrypoint else self._held_by_entrypoint(workload)
        beside = Amounts({name: own.get(name, 0) for name in needs})
        key = (
            RUNTIME,
            workload.tenant,
            workload.user,
            workload.queue,
            entry.state.value,
            needs,
            fields,
            beside,
        )
        known = self._known.get(key)
        if known is not None:
            return known
        if workload.queue not in quotas.queues:
            return Verdict(False, f"queue {workload.queue} is not in quotas.yaml any more")
        left = {name: max(0, most(quotas, workload.queue, name) - beside[name]) for name in needs}
        question = {
            "workload": {
                "submission_id": workload.id,
                "tenant": workload.tenant,
                "state": entry.state.value,
            },
            "task": {"requests": dict(needs), "runtime_env_fields": list(fields)},
            "left": left,
        }
        return await self._decide(key, RUNTIME, lambda: question, principal_of(workload))


def most(quotas: Quotas, queue: str, name: str) -> int:
    """The most that ``queue`` could ever hold of a resource; workers are unlimited where not named."""
    if name == WORKERS and WORKERS not in quotas.queues[queue].resources:
        return _UNLIMITED
    return quotas.potential(queue, name)


def gate_principal(tenant: str) -> Principal:
    """A tenant's processes as a gate knows them: the tenant is proved, the person is not."""
    return Principal(tenant=tenant, user="ray", roles=(), credential_id="", kind="tenant")
