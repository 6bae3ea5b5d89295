"""The middleware of every node's dashboard agent: its job routes are for the dashboard head only.

An agent serves ``/api/job_agent/jobs/`` on a port of its own; a proxy before the dashboard does not cover it.
Here a submission must be one that the ledger has admitted, whatever token it comes with, and tenants'
credentials open nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from compute_guard.admission.ray_body import GATED, PROFILE
from compute_guard.admission.workload import WorkloadState
from compute_guard.ray_plugin.head import bearer

logger = logging.getLogger(__name__)


def agent_middleware(aiohttp: Any, native: Any, public: frozenset[str]) -> Any:
    """An aiohttp middleware around Ray's own (``native``)."""
    web = aiohttp.web

    async def guard(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if request.path in public:
            return await handler(request)
        try:
            refusal = await _refusal(request, native, web)
        except Exception as error:
            logger.exception("TrainGuard refused a request because it could not judge it")
            refusal = (503, f"TrainGuard could not judge this request, so it is refused: {error}")
        if refusal is not None:
            return web.Response(status=refusal[0], text=refusal[1], headers={"X-TrainGuard": "agent"})
        return await native(request, handler)

    return web.middleware(guard)


async def _refusal(request: Any, native: Any, web: Any) -> tuple[int, str] | None:
    """Why this request goes no further, or None. Only whom Ray's own check accepts is looked at closer."""
    from ray._private.authentication import authentication_utils

    if not authentication_utils.is_token_auth_enabled():
        return 503, "TrainGuard refuses every request: Ray's token mode is off on this node"
    from compute_guard.ray_plugin.patch import system_token

    own = os.environ.get(PROFILE) not in GATED or bearer(request) == system_token()
    if not own or "tg_" in request.headers.get("Authorization", ""):
        return 429, "TrainGuard: tenants use the dashboard's Job API, not a node's agent"
    if request.method == "POST" and request.path.rstrip("/") == "/api/job_agent/jobs":

        async def accepted(_request: Any) -> Any:
            return web.Response(status=200)

        judged = await native(request, accepted)
        if judged.status != 200:
            return judged.status, judged.text
        body = json.loads(await request.read())
        return await asyncio.to_thread(unadmitted, body)
    return None


def unadmitted(body: dict[str, Any]) -> tuple[int, str] | None:
    """Why this submission is not one of the ledger's, or None."""
    from compute_guard.ledger.store import Ledger
    from guard_core.config import load_settings
    from guard_core.storage import Storage

    submission_id = str(body.get("submission_id") or "")
    settings = load_settings()
    if settings.storage_url is None and not settings.home.is_dir():
        return 429, "TrainGuard: this node has no ledger; submissions go to the head's Job API"
    storage = Storage.in_home(settings.home, settings.storage_url)
    try:
        entry = Ledger(storage).get(submission_id) if submission_id else None
    finally:
        storage.close()
    if entry is None or entry.state is not WorkloadState.ADMITTED:
        return 429, f"TrainGuard: submission {submission_id or '(none)'} was not admitted"
    if entry.workload.entrypoint != body.get("entrypoint"):
        return 429, f"TrainGuard: submission {submission_id} was admitted with another entrypoint"
    return None
