"""Placement groups of tenants: decided, fenced and reserved whole, before the GCS hears of them."""

from __future__ import annotations

from compute_guard.ray_plugin.gates.book import Lease
from compute_guard.ray_plugin.gates.cordons import Cordons
from compute_guard.ray_plugin.gates.credit import Credit
from compute_guard.ray_plugin.gates.demand import demand_of, total
from compute_guard.ray_plugin.gates.fence import HEAD_RESOURCE, fence_bundle
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.messages import denied, request_of
from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.wire import Call, Refusal


class Groups:
    """Call from one event loop."""

    def __init__(
        self, upstream: Upstream, jobs: Jobs, judge: Judge, credit: Credit, cordons: Cordons
    ) -> None:
        self._upstream = upstream
        self._jobs = jobs
        self._judge = judge
        self._credit = credit
        self._cordons = cordons

    def removed(self, group: bytes) -> None:
        """Give back what was reserved for a group."""
        self._credit.release(self._credit.book.drop(f"pg:{group.hex()}"))

    async def create(self, call: Call, tenant: str, request: bytes) -> bytes:
        """A placement group: reserved whole before the GCS hears of it, in line while there is no room."""
        message = request_of(call, request)
        spec = message.placement_group_spec
        job = self._jobs.get(spec.creator_job_id.hex())
        owner = self._jobs.owner(spec.placement_group_id)
        if job is None or job.tenant != tenant or owner != tenant:
            return denied(call.name, f"job {spec.creator_job_id.hex()} is not one of tenant {tenant}")
        demands = [demand_of(bundle.unit_resources) for bundle in spec.bundles]
        if any(demand.groups for demand in demands):
            return denied(call.name, "a bundle cannot be made of another group's resources")
        lease = Lease(
            id="pg:" + spec.placement_group_id.hex(),
            workload=job.workload,
            job=job.id,
            node="",
            amounts=total(demands),
        )
        try:
            if spec.is_detached:
                await self._judge.isolated(
                    tenant, "use", "detached-placement-group", spec.name, job.namespace
                )
            account = await self._credit.account(job.workload)
            verdict = await self._judge.runtime(account.entry, lease.amounts, ())
            if not verdict.allow:
                raise Refusal(verdict.reason)
            pools = await self._judge.pools(tenant)
            needs = [
                (demand.amounts, {k: v for k, v in bundle.unit_resources.items() if k != HEAD_RESOURCE})
                for demand, bundle in zip(demands, spec.bundles, strict=True)
            ]
            closed = await self._cordons.keep_away(
                lease, pools, needs, lambda: self._credit.account(job.workload)
            )
            for bundle, nodes in zip(spec.bundles, closed, strict=True):
                fence_bundle(bundle, pools, sorted(nodes))
            await self._credit.acquire(lease)
        except Refusal as no:
            return denied(call.name, no.text)
        try:
            return await self._upstream.forward(call, message.SerializeToString())
        except BaseException:
            self._credit.release(self._credit.book.drop(lease.id))
            raise
