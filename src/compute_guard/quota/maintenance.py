"""Flavors whose pool is under maintenance (calendars.yaml) take no new jobs then."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from compute_guard.quota.limits import Quotas
from guard_core.clock import to_ns


def shut_flavors(quotas: Quotas, config: Mapping[str, Any], now_ns: int) -> dict[str, str]:
    """Flavor -> why it takes no jobs at ``now_ns``. ``config`` is the policy data in force."""
    pools = {flavor.pool for flavor in quotas.flavors.values() if flavor.pool is not None}
    if not pools:
        return {}
    why: dict[str, str] = {}
    for window in (config.get("calendars") or {}).get("maintenance") or ():
        if _ns(window["from"]) <= now_ns < _ns(window["to"]):
            for pool in window["pools"]:
                why[pool] = f"pool {pool} is under maintenance until {window['to']} ({window['title']})"
    return {
        name: why[flavor.pool]
        for name, flavor in quotas.flavors.items()
        if flavor.pool is not None and flavor.pool in why
    }


def _ns(text: str) -> int:
    return to_ns(datetime.fromisoformat(text))
