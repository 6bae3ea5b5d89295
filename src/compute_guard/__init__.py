"""Admission, quota and response for shared Ray clusters.

``compute_guard`` is also an address scheme of Ray's Job API: ``RAY_ADDRESS=compute_guard://host:port`` or
``JobSubmissionClient("compute_guard://host:port")`` sends the credential in ``TRAINGUARD_TOKEN`` along.

From Python, a local guarded cluster is ``compute_guard.up()`` and ``compute_guard.down()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compute_guard.cluster.connection import Cluster
    from guard_core.home import Home


def up(home: Home | None = None, **options: Any) -> Cluster:
    """Start a guarded local Ray head (:mod:`.cluster.local_cluster`); the running one, if any."""
    from compute_guard.cluster import local_cluster
    from guard_core.home import Home

    if home is not None:
        return local_cluster.up(home, **options)
    with Home.open() as opened:
        return local_cluster.up(opened, **options)


def down(home: Home | None = None) -> int:
    """End the local cluster of a home: exactly what :func:`up` started. How many processes that were."""
    from compute_guard.cluster import local_cluster
    from guard_core.home import Home

    if home is not None:
        return local_cluster.down(home)
    with Home.open() as opened:
        return local_cluster.down(opened)


def get_job_submission_client_cluster_info(
    address: str,
    create_cluster_if_needed: bool | None = False,  # noqa: ARG001 - Ray's signature
    cookies: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    headers: dict[str, Any] | None = None,
    **_ignored: Any,
) -> Any:
    """Ray's hook for ``compute_guard://`` addresses (ray/dashboard/modules/dashboard_sdk.py)."""
    from compute_guard.ray_plugin.address import cluster_info

    return cluster_info(address, cookies=cookies, metadata=metadata, headers=headers)


__all__ = ["down", "get_job_submission_client_cluster_info", "up"]
