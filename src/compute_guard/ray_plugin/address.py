"""``compute_guard://host:port``: where the Job API is and whose credential goes along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from guard_core.errors import UserError


def cluster_info(
    address: str,
    *,
    cookies: dict[str, Any] | None,
    metadata: dict[str, Any] | None,
    headers: dict[str, Any] | None,
) -> Any:
    """Ray's ClusterInfo for ``host:port``. Raises UserError when there is no credential to send."""
    from ray.dashboard.modules.dashboard_sdk import ClusterInfo

    host = address.partition("?")[0].strip("/")
    if ":" not in host:
        raise UserError(f"compute_guard://{address} must be compute_guard://HOST:PORT of the dashboard")
    sent = dict(headers or {})
    if not any(name.lower() == "authorization" for name in sent):
        sent["Authorization"] = f"Bearer {_credential()}"
    return ClusterInfo(address=f"http://{host}", cookies=cookies, metadata=metadata, headers=sent)


def _credential() -> str:
    token = os.environ.get("TRAINGUARD_TOKEN", "")
    if token:
        return token
    home = os.environ.get("TRAINGUARD_HOME", ".trainguard")
    local = Path(home).expanduser() / "credentials" / "local.token"
    try:
        return local.read_text(encoding="ascii").strip()
    except OSError:
        raise UserError(
            "there is no credential to submit with; set TRAINGUARD_TOKEN "
            "(made by: trainguard tenant issue TENANT --user YOU)"
        ) from None
