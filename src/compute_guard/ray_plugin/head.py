"""The middleware of the dashboard head: who may call which route of Ray's Job API, and what they see.

An allow-list: a tenant reaches its own jobs, its own packages and the version; everything else is refused.
Refusals are 429 because Ray's client rewrites 401 and 403 into "token is invalid". Whatever cannot be judged
is refused (503). A platform admin reaches everything, through the same admission when submitting.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from compute_guard.admission.gateway import Admitted, Refused
from compute_guard.admission.ray_body import tenant_package
from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Entry
from compute_guard.ray_plugin.service import Service
from compute_guard.ray_plugin.state import DEFAULT_ROWS, MOST_ROWS, ROUTE, cut
from compute_guard.ray_plugin.tail import follow_logs
from compute_guard.ray_plugin.views import details_of, listed, message_of, shown
from guard_core.errors import Denied, GuardError
from guard_core.identity import Principal, is_jwt

logger = logging.getLogger(__name__)

ACT_FOR = "X-TrainGuard-Tenant"
MARK = {"X-TrainGuard": os.environ.get("COMPUTE_GUARD_PROFILE", "observe-and-stop")}
MAX_SUBMISSION_BYTES = 4 << 20
_JOB = re.compile(r"^/api/jobs/(?P<id>[A-Za-z0-9_.-]+)(?P<rest>/logs|/logs/tail|/stop)?$")
_PACKAGE = re.compile(r"^/api/packages/gcs/(?P<name>[A-Za-z0-9_.-]+)$")
_TOKEN_COOKIE = "ray-authentication-token"  # noqa: S105 - the name of a cookie

Handler = Callable[[Any], Awaitable[Any]]


def bearer(request: Any) -> str:
    """The token of a request, from the places Ray itself looks in, in Ray's order; empty without one."""
    for header in ("Authorization", "X-Ray-Authorization"):
        value: str = request.headers.get(header, "")
        if value:
            return value.removeprefix("Bearer ").strip()
    return str(request.cookies.get(_TOKEN_COOKIE, ""))


def _object(raw: bytes) -> dict[str, Any] | None:
    """``raw`` as a JSON object, None when it is none."""
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def head_middleware(
    aiohttp: Any, native: Any, service: Service, public: frozenset[str], prefixes: tuple[str, ...]
) -> Any:
    """An aiohttp middleware around Ray's own (``native``)."""
    web = aiohttp.web
    head = _Head(web, native, service)

    async def guard(request: Any, handler: Handler) -> Any:
        path = request.path
        if path in public or (prefixes and path.startswith(prefixes)):
            return await handler(request)
        if request.method == "GET" and path == "/api/version":
            response = await handler(request)
            response.headers.update(MARK)
            return response
        try:
            answer = await head.answer(request, handler)
        except web.HTTPException:
            raise
        except Denied as error:
            answer = web.Response(status=403, text=f"TrainGuard: {error}")
        except GuardError as error:
            answer = web.Response(status=503, text=f"TrainGuard could not decide, so it is refused: {error}")
        except Exception as error:
            logger.exception("TrainGuard refused a request because it could not judge it")
            answer = web.Response(
                status=503, text=f"TrainGuard could not judge this request, so it is refused: {error!r}"
            )
        if not answer.prepared:
            answer.headers.update(MARK)
        return answer

    return web.middleware(guard)


@dataclass(frozen=True, slots=True)
class _Caller:
    """A verified caller; ``everything`` is True for a platform admin that acts for no tenant."""

    principal: Principal
    everything: bool

    def owns(self, entry: Entry | None) -> bool:
        return entry is not None and (self.everything or entry.workload.tenant == self.principal.tenant)


class _Head:
    def __init__(self, web: Any, native: Any, service: Service) -> None:
        self.web = web
        self.native = native
        self.service = service

    async def answer(self, request: Any, handler: Handler) -> Any:
        from ray._private.authentication import authentication_utils

        if not authentication_utils.is_token_auth_enabled():
            return self.no(503, "every request is refused: Ray's token mode is off")
        token = bearer(request)
        state = ROUTE.match(request.path) if request.method == "GET" else None
        if not (token.startswith("tg_") or is_jwt(token)):
            tenant = await self.service.read(lambda: self.service.tenant_of_worker(token))
            if tenant is not None and state is not None:
                return await self._state(request, handler, tenant, state["kind"])
            return await self._system(request, handler)
        acting_for = request.headers.get(ACT_FOR, "")
        gateway = await self.service.gateway()
        principal = await self.service.read(lambda: gateway.authenticate(token, acting_for=acting_for))
        caller = _Caller(principal, principal.is_platform_admin and not acting_for)
        if state is not None and not caller.everything and self.service.only in ("", principal.tenant):
            return await self._state(request, handler, principal.tenant, state["kind"])
        return await self._tenant(request, handler, caller)

    async def _system(self, request: Any, handler: Handler) -> Any:
        """Ray's own token, or none: Ray decides, but nobody submits a job beside the gateway with it."""
        if request.method != "POST" or request.path.rstrip("/") != "/api/jobs":
            return await self.native(request, handler)
        # Ray's own check comes first, so that a stranger's body is not even read.
        probe = await self.native(request, self._accepted)
        if probe.status != 200:
            return probe
        clone = request.clone()
        raw = await clone.read()
        clone._read_bytes = raw
        body = _object(raw)
        if body is None or body.get("submission_id") not in self.service.last_mile.underway:
            return self.no(
                429, "the cluster's own token submits no jobs; use a tenant's credential (TRAINGUARD_TOKEN)"
            )
        return await handler(clone)

    async def _accepted(self, _request: Any) -> Any:
        return self.web.Response(status=200)

    async def _tenant(self, request: Any, handler: Handler, caller: _Caller) -> Any:
        method, path = request.method, request.rel_url.raw_path
        only = self.service.only
        if only and caller.principal.tenant != only and (not caller.everything or method == "POST"):
            return self.no(429, f"this cluster is for tenant {only}; {caller.principal.tenant} has another")
        if path == "/api/jobs/" and method == "POST":
            return await self._submit(request, handler, caller)
        if path == "/api/jobs/" and method == "GET":
            return await self._list(request, handler, caller)
        job = _JOB.match(path)
        if job is not None:
            return await self._job(request, handler, caller, job["id"], job["rest"] or "")
        package = _PACKAGE.match(path)
        if package is not None and method in ("GET", "PUT"):
            return await self._package(request, handler, caller, package["name"])
        if caller.everything:
            return await handler(self.as_system(request))
        return self.no(429, f"{method} {request.path} is not open to tenants; ask the platform's admin")

    async def _submit(self, request: Any, handler: Handler, caller: _Caller) -> Any:
        clone = self.as_system(request)
        if (request.content_length or 0) > MAX_SUBMISSION_BYTES:
            return self.no(
                413, f"a submission may hold {MAX_SUBMISSION_BYTES} bytes; upload files as packages"
            )
        try:
            body = json.loads(await clone.read())
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return self.no(400, "a submission must be a JSON object")
        gateway = await self.service.gateway()
        outcome = await self.service.inbox.submit(caller.principal, body)
        if isinstance(outcome, Refused):
            return self.web.Response(
                status=outcome.status,
                text=outcome.text,
                headers={"X-TrainGuard-Decision": outcome.decision_id},
            )
        if not isinstance(outcome, Admitted):
            return self.web.json_response({"job_id": outcome.id, "submission_id": outcome.id})
        with self.service.last_mile.on_its_way(outcome.id):
            clone._read_bytes = json.dumps(outcome.body).encode()
            response = await handler(clone)
            if response.status != 200 and await self.service.last_mile.arrived(gateway, outcome.id):
                # Another hand was first, or an answer inside Ray was lost: it runs all the same.
                response = self.web.json_response({"job_id": outcome.id, "submission_id": outcome.id})
            elif response.status != 200:
                # Nothing started: the reservation goes back and the user sees Ray's own words.
                text = response.text or ""
                reason = f"Ray refused it ({response.status}): {text.strip().splitlines()[-1:]}"
                await self.service.decide(lambda: gateway.finish(outcome.id, WorkloadState.EVICTED, reason))
        self.service.wake()
        return response

    async def _list(self, request: Any, handler: Handler, caller: _Caller) -> Any:
        gateway = await self.service.gateway()
        tenant = None if caller.everything else caller.principal.tenant
        entries = await self.service.read(lambda: gateway.ledger.entries(tenant=tenant))
        response = await handler(self.as_system(request))
        if response.status != 200:
            return response
        return self.web.json_response(
            listed(
                json.loads(response.body),
                entries,
                everything=caller.everything,
                waiting=await self.service.decide(lambda: gateway.explain(entries)),
                held=await self.service.read(self.service.held),
            )
        )

    async def _state(self, request: Any, handler: Handler, tenant: str, kind: str) -> Any:
        """``ray list``: everything is asked for, and the tenant's own is given out."""
        try:
            limit = min(MOST_ROWS, max(0, int(request.query.get("limit", DEFAULT_ROWS))))
        except ValueError:
            return self.no(400, f"limit must be a number, got {request.query['limit']!r}")
        everything = request.rel_url.update_query(limit=MOST_ROWS)
        response = await handler(self.as_system(request, rel_url=everything))
        if response.status != 200:
            return response
        jobs, submissions = await self.service.read(lambda: self.service.ids_of(tenant))
        return self.web.json_response(cut(kind, response.body, limit, jobs, submissions))

    async def _job(self, request: Any, handler: Handler, caller: _Caller, job_id: str, rest: str) -> Any:
        gateway = await self.service.gateway()
        entry = await self.service.read(lambda: gateway.ledger.get(job_id))
        if entry is None and caller.everything:
            return await handler(self.as_system(request))
        if entry is None or not caller.owns(entry):
            # The same answer as for a job that does not exist: ids of other tenants cannot be probed.
            return self.web.Response(status=404, text=f"Job {job_id} does not exist")
        unknown_to_ray = entry.state in (WorkloadState.PENDING, WorkloadState.DENIED) or (
            not await self.service.last_mile.known_to_ray(entry)
        )
        route = (request.method, rest)
        if route == ("GET", "/logs/tail"):
            if not unknown_to_ray:
                return await handler(self.as_system(request))
            return await follow_logs(self.web, self.service, request, entry.id)
        if not unknown_to_ray:
            if route not in (("GET", ""), ("GET", "/logs"), ("POST", "/stop"), ("DELETE", "")):
                return self.no(429, f"{request.method} {request.path} is not open to tenants")
            response = await handler(self.as_system(request))
            if route == ("GET", "") and response.status == 200:
                held = (await self.service.read(self.service.held)).get(entry.id, "")
                return self.web.json_response(shown(json.loads(response.body), entry, held))
            return response
        if route == ("POST", "/stop"):
            reason = f"stopped by {caller.principal.user} before it started"
            stopped = await self.service.last_mile.stop(gateway, entry.id, reason)
            if stopped is None:  # it got there meanwhile
                return await handler(self.as_system(request))
            self.service.wake()
            return self.web.json_response({"stopped": stopped})
        return await self._ledger_only(route, entry)

    async def _ledger_only(self, route: tuple[str, str], entry: Entry) -> Any:
        """Answers for a job that Ray does not know, in the shapes Ray would give."""
        gateway = await self.service.gateway()
        if route in (("GET", ""), ("GET", "/logs")):
            waiting = (await self.service.decide(lambda: gateway.explain([entry]))).get(entry.id, "")
            if route == ("GET", ""):
                return self.web.json_response(details_of(entry, waiting))
            return self.web.json_response({"logs": f"[trainguard] {message_of(entry, waiting)}\n"})
        if route == ("DELETE", ""):
            deleted = await self.service.read(lambda: gateway.ledger.forget(entry.id))
            if not deleted:
                return self.no(400, f"job {entry.id} is {entry.state.value}; stop it before deleting it")
            return self.web.json_response({"deleted": True})
        return self.no(429, "this route is not open to tenants")

    async def _package(self, request: Any, handler: Handler, caller: _Caller, name: str) -> Any:
        own = tenant_package(name, caller.principal.tenant)
        if own is None:
            return self.no(429, f"{name} is not a package that Ray's client uploads")
        path = f"/api/packages/gcs/{own}"
        return await handler(self.as_system(request, rel_url=request.rel_url.with_path(path)))

    def as_system(self, request: Any, **changes: Any) -> Any:
        """The request with the cluster's token in place of the caller's; made before its body is read."""
        headers = request.headers.copy()
        for name in ("X-Ray-Authorization", "Cookie", "Content-Length", ACT_FOR):
            headers.popall(name, None)
        headers["Authorization"] = f"Bearer {self.service.token()}"
        return request.clone(headers=headers, **changes)

    def no(self, status: int, text: str) -> Any:
        return self.web.Response(status=status, text=f"TrainGuard: {text}")
