"""The head's answers to lease gates: whose a lease is, whether it is allowed, where it may land."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.account import Account
from compute_guard.ray_plugin.gates.admitting import Drivers
from compute_guard.ray_plugin.gates.book import Lease
from compute_guard.ray_plugin.gates.cordons import Cordons, concerned
from compute_guard.ray_plugin.gates.credit import Credit
from compute_guard.ray_plugin.gates.demand import demand_of
from compute_guard.ray_plugin.gates.environment import CREDENTIAL, credential_id
from compute_guard.ray_plugin.gates.fence import HEAD_RESOURCE
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.nodes import Gatehouse, Nodes
from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.tokens import Tokens
from compute_guard.ray_plugin.gates.users import Users
from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.errors import GuardError

logger = logging.getLogger(__name__)
ASK_AGAIN_SECONDS = 0.5
UNDECIDED_SECONDS = 120.0
"""How long a lease waits for a policy engine that cannot answer, before the user is told."""


class Booking:
    """Answers the messages of `link`."""

    def __init__(
        self,
        jobs: Jobs,
        judge: Judge,
        credit: Credit,
        nodes: Nodes,
        drivers: Drivers,
        tokens: Tokens,
        users: Users | None,
        cordons: Cordons,
    ) -> None:
        self._jobs = jobs
        self._judge = judge
        self._credit = credit
        self._nodes = nodes
        self._drivers = drivers
        self._tokens = tokens
        self._users = users
        self._cordons = cordons
        self._losing: asyncio.Future[None] | None = None

    async def greet(self, hello: Mapping[str, Any]) -> str:
        """A node's gate is up, with the leases it already has."""
        gate = Gatehouse(
            str(hello["address"]),
            int(hello["raylet_port"]),
            int(hello["gate_port"]),
            str(hello["pool"]),
            limits=bool(hello.get("limits")),
        )
        if gate.pool not in self._judge.pool_labels():
            raise Refusal(f"pool {gate.pool} is not in nodes.yaml")
        self._nodes.reported(gate)
        self._credit.book.replace_node(gate.name, self._leases(gate.name, hello.get("leases", ())))
        return gate.name

    def _leases(self, node: str, rows: Any) -> list[Lease]:
        found = []
        for row in rows:
            job = self._jobs.get(str(row["job"]))
            workload = str(row.get("workload") or (job.workload if job is not None else ""))
            if workload:
                found.append(
                    Lease(
                        id=str(row["lease"]),
                        workload=workload,
                        job=str(row["job"]),
                        node=node,
                        amounts=Amounts(row["amounts"]),
                        worker=str(row.get("worker", "")),
                    )
                )
        return found

    def hear(self, node: str, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Take a message of ``node`` that nobody waits for; one that is not known is for a later version."""
        op = message.get("op")
        book = self._credit.book
        if op == "report":
            granted = self._leases(node, message["granted"])
            for workload in self._credit.reports.take(node, granted, message):
                self._credit.returned(workload)
            return {"op": "heard", "number": message["number"], "terms": self._judge.terms}
        if op == "settle":
            book.settle(str(message["lease"]), str(message["worker"]), node)
        elif op == "release":
            lease = book.get(str(message["lease"]))
            # The owner asks elsewhere after a spill; that lease is then another node's to give back.
            if lease is not None and lease.node == node:
                self._credit.release(book.drop(lease.id))
        elif op == "lent":
            self._credit.lend(node, str(message["workload"]), int(message["cpu_milli"]))
        elif op == "lost":
            book.drop_node(node)
            self._losing = asyncio.ensure_future(self._lose(node))
        return None

    async def _lose(self, node: str) -> None:
        try:
            await self._nodes.lost(node)
        except Exception as error:  # noqa: BLE001 - the GCS finds out by itself, only later
            logger.warning("the GCS could not be told that %s is lost: %s", node, error)

    async def ask(self, node: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to one message of ``node``. Raises Refusal."""
        op = message.get("op")
        if op == "acquire":
            return await self._acquire(node, message)
        if op == "known":
            living = self._credit.alive()
            known, jobs = self._jobs.since(int(message.get("jobs", 0)))
            return {
                "known": known,
                "jobs": {job.id: job.tenant for job in jobs},
                "tokens": self._tokens.by_token(),
                "living": None if living is None else sorted(set(living.values())),
                "users": {} if self._users is None else self._users.all(),
            }
        raise Refusal(f"the head does not know the message {op!r}")

    async def _acquire(self, node: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
        terms = self._judge.terms
        job_id, caller = str(message["job"]), message.get("caller")
        job = self._jobs.get(job_id)
        supervisor = False
        if job is not None:
            tenant, workload = job.tenant, job.workload
            if caller is not None and caller != tenant:
                raise Refusal(f"job {job_id} is not one of tenant {caller}")
            brought = credential_id(str(message.get("credential") or ""))
            if brought and brought != job.credential:
                raise Refusal(f"runtime_env may not set {CREDENTIAL}: it is the submission's own")
        elif caller is not None:
            raise Refusal(f"job {job_id} is not one of tenant {caller}")
        elif message.get("credential"):
            # Ray's own job supervisor, about to run a submission's entrypoint.
            principal = await self._drivers.principal(str(message["credential"]))
            tenant, workload, supervisor = principal.tenant, principal.workload or "", True
        else:
            return {"tenant": ""}
        demand = demand_of(message["needs"])
        for group in demand.groups:
            if self._jobs.owner(bytes.fromhex(group)) != tenant:
                raise Refusal(f"placement group {group} is not one of tenant {tenant}")
        account = await self._account(workload)
        await self._allowed(account, demand.amounts, tuple(message.get("fields", ())), supervisor)
        gate = self._nodes.gatehouse(node)
        pools = await self._judge.pools(tenant)
        if gate is None:
            raise Refusal(f"node {node} has not reported")
        lease = Lease(
            id=str(message["lease"]), workload=workload, job=job_id, node=node, amounts=demand.amounts
        )
        closed: frozenset[str] = frozenset()
        if not demand.groups:  # what is inside a placement group came with the group, and goes on
            needs = {name: amount for name, amount in message["needs"].items() if name != HEAD_RESOURCE}
            (closed,) = await self._cordons.keep_away(
                lease, pools, [(demand.amounts, needs)], lambda: self._account(workload)
            )
        await self._credit.acquire(lease)
        head = self._nodes.head_for(pools, closed) if HEAD_RESOURCE in message["needs"] else ""
        # Whose head a node is may change at any time, and so may cordons; a supervisor is one of its kind.
        fixed = not head and bool(demand.groups or not concerned(demand.amounts))
        lasting = terms == self._judge.terms and fixed and job is not None
        return {
            "tenant": tenant,
            "workload": workload,
            "job": job_id,
            "credential": credential_id(str(message.get("credential") or "")),
            "supervisor": supervisor,
            "amounts": dict(lease.amounts),
            "pools": list(pools),
            "head": head,
            "here": gate.pool in pools,
            "closed": sorted(closed),
            "token": self._tokens.of(tenant),
            "uid": self._users.of(tenant) if self._users is not None else None,
            "groups": [self._users.node_group(gate.name)] if self._users is not None else [],
            "terms": terms if lasting else "",
            "keep": not account.waiting,
        }

    async def _account(self, workload: str) -> Account:
        """The account, however long the ledger cannot be read (up to a bound)."""
        for _ in range(int(UNDECIDED_SECONDS / ASK_AGAIN_SECONDS)):
            try:
                return await self._credit.account(workload)
            except GuardError as error:
                logger.warning("the ledger cannot be read, so a lease waits: %s", error)
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        raise Refusal("the ledger cannot be read")

    async def _allowed(
        self, account: Account, needs: Amounts, fields: tuple[str, ...], supervisor: bool
    ) -> None:
        """Return when policy allows it. Raises Refusal when it does not, or cannot say so for too long."""
        for _ in range(int(UNDECIDED_SECONDS / ASK_AGAIN_SECONDS)):
            verdict = await self._judge.runtime(account.entry, needs, fields, entrypoint=supervisor)
            if verdict.allow:
                return
            if not verdict.undecidable:
                raise Refusal(verdict.reason)
            account.reason = f"no decision could be had: {verdict.reason}"
            await asyncio.sleep(ASK_AGAIN_SECONDS)
        raise Refusal(f"no decision could be had: {verdict.reason}")
