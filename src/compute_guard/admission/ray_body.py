"""The submission Ray is given for an admitted workload: the user's own, with what admission adds.

Uploaded packages get a name per tenant. Ray names them by their content as the uploader states it and keeps
one name space, so without this a tenant could put its own archive where another's job will look for one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compute_guard.admission.workload import DATASETS, Workload
from compute_guard.notice import NOTICE_VARIABLE, notice_path
from guard_core.errors import UserError

PROFILE = "COMPUTE_GUARD_PROFILE"
GATED = ("gate", "hardened")
ONLY_TENANT = "COMPUTE_GUARD_TENANT"
"""Names the one tenant that a cluster serves, of several clusters with the same quotas and ledger."""
POOL_LABEL = "trainguard.io/pool"
"""Label of every node of a cluster with gates: its pool in nodes.yaml."""
HEAD_POOL = "head"
TENANT_KEY = "trainguard_tenant"
_PACKAGE = re.compile(r"^_ray_pkg_(?P<rest>[^/]+)$")
_PREFIX = "gcs://"
_POOL = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")


def body_for_ray(
    workload: Workload, token: str, home: Path, *, node_labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The body of ``POST /api/jobs/`` for ``workload``, whose job credential is ``token``.

    ``node_labels`` are those of the flavor it was admitted with: the entrypoint is placed on such nodes.
    """
    body = {key: value for key, value in workload.spec.items() if key != "job_id"}
    metadata = {k: v for k, v in (body.get("metadata") or {}).items() if not k.startswith("trainguard_")}
    environment = dict(body.get("runtime_env") or {})
    environment.pop(DATASETS, None)  # Ray knows no such field
    environment["env_vars"] = {
        **(environment.get("env_vars") or {}),
        "TRAINGUARD_HOME": str(home),
        "TRAINGUARD_TOKEN": token,
        NOTICE_VARIABLE: notice_path(home, workload.id),
    }
    if isinstance(environment.get("working_dir"), str):
        environment["working_dir"] = _tenant_uri(environment["working_dir"], workload.tenant)
    if isinstance(environment.get("py_modules"), list):
        environment["py_modules"] = [
            _tenant_uri(uri, workload.tenant) if isinstance(uri, str) else uri
            for uri in environment["py_modules"]
        ]
    body["runtime_env"] = environment
    body["metadata"] = {**metadata, TENANT_KEY: workload.tenant}
    body["submission_id"] = workload.id
    if node_labels:
        body["entrypoint_label_selector"] = {**(body.get("entrypoint_label_selector") or {}), **node_labels}
    if os.environ.get(PROFILE) in GATED:
        # The head is for Ray's own processes; among the other nodes, the gates choose by pools.
        selector = dict(body.get("entrypoint_label_selector") or {})
        chosen = str(selector.get(POOL_LABEL, ""))
        if not _POOL.fullmatch(chosen) or chosen == HEAD_POOL:
            selector[POOL_LABEL] = f"!{HEAD_POOL}"
        body["entrypoint_label_selector"] = selector
    return body


def check_packages(body: Mapping[str, Any]) -> None:
    """Raise UserError for code named by a path of the cluster's machines, or by no package of Ray's."""
    environment = body.get("runtime_env") or {}
    modules = environment.get("py_modules") or []
    uris = [environment.get("working_dir"), *(modules if isinstance(modules, list) else [modules])]
    for uri in uris:
        if uri is None:
            continue
        if not isinstance(uri, str) or "://" not in uri:
            raise UserError(
                "runtime_env working_dir and py_modules must be URIs; let Ray's client upload them"
            )
        if uri.startswith("file:"):
            raise UserError("runtime_env may not name a file of the cluster's machines; upload it instead")
        if uri.startswith(_PREFIX) and not _PACKAGE.match(uri.removeprefix(_PREFIX)):
            raise UserError(f"{uri} is not a package that Ray's client uploads")


def tenant_package(name: str, tenant: str) -> str | None:
    """``_ray_pkg_X`` as this tenant's own package name; None for a name that is not Ray's."""
    found = _PACKAGE.match(name)
    if found is None:
        return None
    # Tenant names may hold "_", so a fixed-length digest keeps two tenants' names apart.
    return f"_ray_pkg_{hashlib.sha256(tenant.encode()).hexdigest()[:16]}_{found['rest']}"


def _tenant_uri(uri: str, tenant: str) -> str:
    package = tenant_package(uri.removeprefix(_PREFIX), tenant) if uri.startswith(_PREFIX) else None
    return uri if package is None else _PREFIX + package
