"""What one node's gate has let through: leases by id, and the tenants of the jobs it met. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A lease that the head has booked for this node."""

    lease: str
    job: str
    workload: str
    tenant: str
    amounts: Mapping[str, int]
    worker: str = ""

    def to_json(self) -> dict[str, Any]:
        """For the greeting."""
        return {
            "lease": self.lease,
            "job": self.job,
            "workload": self.workload,
            "amounts": dict(self.amounts),
            "worker": self.worker,
        }


class Grants:
    """Grants by lease id. Job's tenants are remembered after their leases have gone."""

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        self._tenants: dict[str, str] = {}

    def add(self, lease: str, answer: Mapping[str, Any]) -> None:
        """Note what the head answered."""
        self._grants[lease] = Grant(
            lease=lease,
            job=answer["job"],
            workload=answer["workload"],
            tenant=answer["tenant"],
            amounts=answer["amounts"],
        )
        if not answer.get("supervisor"):
            self._tenants[answer["job"]] = answer["tenant"]

    def learn(self, tenants: Mapping[str, str]) -> None:
        """Take the head's word for whose each job is."""
        self._tenants.update(tenants)

    def settle(self, lease: str, worker: str) -> None:
        """Note which worker got a lease."""
        if lease in self._grants:
            self._grants[lease] = replace(self._grants[lease], worker=worker)

    def drop(self, lease: str) -> Grant | None:
        """Forget a lease. What was granted, None for an unknown one."""
        return self._grants.pop(lease, None)

    def of_worker(self, worker: str) -> tuple[str, ...]:
        """The leases that a worker has."""
        return tuple(grant.lease for grant in self._grants.values() if grant.worker == worker)

    def of_job(self, job: str) -> tuple[str, ...]:
        """The leases of a job."""
        return tuple(grant.lease for grant in self._grants.values() if grant.job == job)

    def get(self, lease: str) -> Grant | None:
        """What was granted under this id."""
        return self._grants.get(lease)

    def owner(self, lease: str) -> str | None:
        """The tenant of a lease, None for an unknown one."""
        grant = self._grants.get(lease)
        return grant.tenant if grant is not None else None

    def tenant_of_job(self, job: str) -> str | None:
        """The tenant of a job this node has met."""
        return self._tenants.get(job)

    def restore(self, grants: Iterable[Grant]) -> None:
        """Take what the raylet says it has, after this process was restarted."""
        for grant in grants:
            self._grants.setdefault(grant.lease, grant)
            if grant.tenant:
                self._tenants.setdefault(grant.job, grant.tenant)

    def all_of(self, leases: Iterable[str]) -> tuple[Grant, ...]:
        """The grants of ``leases``, which are all known."""
        return tuple(self._grants[lease] for lease in leases)

    def all(self) -> tuple[Grant, ...]:
        """All grants."""
        return tuple(self._grants.values())
