"""``/guard`` on an MLflow server: the dataset reports of the tenant whose token is given.

Browsers ask for user name and password (HTTP Basic); the password is a TrainGuard token. Pages come with the
same Content-Security-Policy that they carry inside.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dataset_guard.integrations.mlflow_gate import TOKEN_HEADER, token_of, visible
from guard_core.errors import Denied, GuardError

if TYPE_CHECKING:
    from guard_core.home import Home

_HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN", "Cache-Control": "no-store"}


def console(home: Callable[[], Home]) -> Any:
    """A Starlette app: ``/`` lists versions, ``/{tenant}/{name}/{version}`` shows a report."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, PlainTextResponse
    from starlette.routing import Route

    async def answered(request: Any, page: Callable[[Home, str | None, Any], str | None]) -> Any:
        try:
            tenant = visible(
                home(),
                token_of(request.headers.get(TOKEN_HEADER, ""), request.headers.get("Authorization", "")),
            )
        except Denied as error:
            challenge = {"WWW-Authenticate": 'Basic realm="TrainGuard", charset="UTF-8"'}
            return PlainTextResponse(str(error), status_code=401, headers={**_HEADERS, **challenge})
        except GuardError as error:
            return PlainTextResponse(str(error), status_code=503, headers=_HEADERS)
        text = await run_in_threadpool(page, home(), tenant, request)
        if text is None:
            return PlainTextResponse("no such report", status_code=404, headers=_HEADERS)
        return HTMLResponse(text, headers=_HEADERS)

    async def index(request: Any) -> Any:
        return await answered(request, _index)

    async def report(request: Any) -> Any:
        return await answered(request, _report)

    return Starlette(routes=[Route("/", index), Route("/{tenant}/{name}/{version:int}", report)])


def _index(home: Home, tenant: str | None, request: Any) -> str:
    from guard_core.output.html import render_versions

    return render_versions(versions(home, tenant), base=request.scope.get("root_path", "") + "/")


def _report(home: Home, tenant: str | None, request: Any) -> str | None:
    wanted = request.path_params
    if tenant is not None and wanted["tenant"] != tenant:
        return None  # the same answer as for one that does not exist
    for row in versions(home, wanted["tenant"]):
        if (row["name"], row["version"]) == (wanted["name"], wanted["version"]):
            stored = home.path(row["record_path"]).parent / "findings.json"
            from guard_core.output.html import render

            return render(json.loads(stored.read_text()))
    return None


def versions(home: Home, tenant: str | None) -> list[dict[str, Any]]:
    """All registered versions of a tenant (None: of all), newest first."""
    from sqlalchemy import select

    from guard_core.storage.tables import DatasetRow, DatasetVersionRow

    row = DatasetVersionRow
    query = (
        select(
            DatasetRow.tenant,
            DatasetRow.name,
            row.version,
            row.verdict,
            row.rows,
            row.created_at,
            row.record_path,
        )
        .join(row, row.dataset_id == DatasetRow.id)
        .where(DatasetRow.deleted_at.is_(None))
        .order_by(row.created_at.desc(), row.id.desc())
    )
    if tenant is not None:
        query = query.where(DatasetRow.tenant == tenant)
    with home.storage.reading() as session:
        return [dict(found) for found in session.execute(query).mappings()]
