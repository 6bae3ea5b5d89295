"""Ray's key-value store, one for everybody, made into one per tenant. Pure.

Code is loaded from it (exported functions, a tracing hook that runs in every process) and job records are
kept in it, so what a tenant may touch is listed here. Every namespace that is not listed is made private:
``ns`` becomes ``ns@tenant``, which libraries (Tune, Serve, collectives) do not notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from compute_guard.admission.ray_body import tenant_package
from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.wire import Refusal

FUNCTIONS = b"fun"
JOB = b"job"
_JOB_KEY = b"_ray_internal_job_info_"
_PACKAGE = b"gcs://"
_READABLE = {
    b"session": None,
    b"cluster": None,
    b"tracing": None,
    b"dashboard": (b"webui:url", b"dashboard"),
}
"""Namespaces of Ray's own that a tenant reads; with a tuple, only these keys."""
_FUNCTION_KEY = re.compile(rb"^[A-Za-z]+:(?P<job>[0-9a-f]{8})(:|$)")

OwnerOf = Callable[[str], str | None]
"""The tenant of a submission id, None for an unknown one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tenant's key really is."""

    namespace: bytes
    key: bytes


def place(tenant: str, namespace: bytes, key: bytes, *, write: bool, jobs: Jobs, owner_of: OwnerOf) -> Place:
    """The real place of ``key``. Raises Refusal for a key that is not this tenant's to read or write."""
    if namespace == FUNCTIONS:
        found = _FUNCTION_KEY.match(key)
        job = jobs.get(found["job"].decode()) if found else None
        theirs = job is not None and job.tenant != tenant
        if found is None or theirs or (write and job is None):
            raise Refusal(f"{_shown(key)} is not a function of tenant {tenant}")
        return Place(namespace, key)
    if namespace == JOB:
        submission = key.removeprefix(_JOB_KEY).decode("utf-8", "replace")
        if not key.startswith(_JOB_KEY) or owner_of(submission) != tenant:
            raise Refusal(f"{_shown(key)} is not a job record of tenant {tenant}")
        return Place(namespace, key)
    if namespace in _READABLE:
        keys = _READABLE[namespace]
        if write or (keys is not None and key not in keys):
            raise Refusal(f"{namespace.decode()}/{_shown(key)} is Ray's own")
        return Place(namespace, key)
    if namespace == b"" and key.startswith(_PACKAGE):
        name = key.removeprefix(_PACKAGE).decode("utf-8", "replace")
        own = own_package(name, tenant)
        if own is None:
            raise Refusal(f"{_shown(key)} is not a package that Ray uploads")
        return Place(namespace, _PACKAGE + own.encode())
    return Place(private(namespace, tenant), key)


def own_package(name: str, tenant: str) -> str | None:
    """``name`` as this tenant's package; one that is already named for the tenant stays as it is."""
    mine = tenant_package("_ray_pkg_x", tenant) or ""
    if len(name) >= len(mine) and name.startswith(mine.removesuffix("x")):
        return name
    return tenant_package(name, tenant)


def private(namespace: bytes, tenant: str) -> bytes:
    """The tenant's own namespace behind ``namespace``."""
    suffix = b"@" + tenant.encode()
    return namespace if namespace.endswith(suffix) else namespace + suffix


def may_list(tenant: str, namespace: bytes, prefix: bytes, jobs: Jobs, owner_of: OwnerOf) -> Place:
    """Where to list keys with ``prefix``; the reply is to be filtered by :func:`listed`."""
    if namespace in (FUNCTIONS, JOB, *_READABLE):
        return Place(namespace, prefix)
    return place(tenant, namespace, prefix, write=False, jobs=jobs, owner_of=owner_of)


def listed(tenant: str, namespace: bytes, keys: list[bytes], jobs: Jobs, owner_of: OwnerOf) -> list[bytes]:
    """The keys of a listing that this tenant may see."""
    seen = []
    for key in keys:
        try:
            place(tenant, namespace, key, write=namespace == FUNCTIONS, jobs=jobs, owner_of=owner_of)
        except Refusal:
            continue
        seen.append(key)
    return seen


def _shown(key: bytes) -> str:
    return key[:60].decode("utf-8", "replace")
