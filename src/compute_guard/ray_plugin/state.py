"""Ray's state API (``ray list actors|tasks|placement-groups|jobs``) cut to what is one tenant's own. Pure.

Ray's ids hold the job they belong to, in their last four bytes (``src/ray/common/id.h``), so whose a row is
does not depend on what its owner wrote into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from guard_core.identity import masked_tokens

ROUTE = re.compile(r"^/api/v0/(?P<kind>actors|tasks|placement_groups|jobs)$")
MOST_ROWS = 10_000
"""The most that Ray's API gives at once (RAY_MAX_LIMIT_FROM_API_SERVER): asked for, so that others' rows
cannot crowd out a tenant's own."""
DEFAULT_ROWS = 100
_ID_OF = {"actors": "actor_id", "tasks": "task_id", "placement_groups": "placement_group_id"}
_JOB_HEX = 8


def own_rows(
    kind: str, rows: Collection[Mapping[str, Any]], jobs: Collection[str], submissions: Collection[str]
) -> list[Mapping[str, Any]]:
    """Of a listing of ``kind``, the rows of Ray jobs ``jobs`` (hex) or of ``submissions``."""
    if kind == "jobs":
        return [row for row in rows if row.get("submission_id") in submissions or row.get("job_id") in jobs]
    return [row for row in rows if str(row.get(_ID_OF[kind], ""))[-_JOB_HEX:] in jobs]


def cut(
    kind: str, answer: bytes, limit: int, jobs: Collection[str], submissions: Collection[str]
) -> dict[str, Any]:
    """Ray's answer for ``kind`` with a tenant's own rows only, at most ``limit``, and no credentials."""
    shape: dict[str, Any] = json.loads(masked_tokens(answer.decode()))
    listing = (shape.get("data") or {}).get("result")
    if not isinstance(listing, dict):
        return {**shape, "data": {}}
    own = own_rows(kind, listing.get("result") or (), jobs, submissions)
    warning = listing.get("partial_failure_warning") or ""
    if (listing.get("total") or 0) > MOST_ROWS:
        warning = f"the cluster has more than {MOST_ROWS} {kind}; some of yours may be missing. {warning}"
    count = len(own)
    kept = {
        **listing,
        "result": own[:limit],
        "total": count,
        "num_after_truncation": count,
        "num_filtered": count,
        "partial_failure_warning": warning,
    }
    return {**shape, "data": {**shape["data"], "result": kept}}
