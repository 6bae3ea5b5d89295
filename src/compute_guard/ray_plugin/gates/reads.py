"""Verified reads of jobs that may not see the home: their questions, put to whoever keeps the datasets.

The package that keeps them answers (entry point ``trainguard.dataset_service``); what is done here is to find
out whose job asks. Its credential says so, and no other counts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from compute_guard.cluster.service_account import ACCOUNT
from guard_core.errors import UserError

if TYPE_CHECKING:
    from compute_guard.ray_plugin.gates.admitting import Drivers
    from compute_guard.ray_plugin.gates.judge import Judge
    from guard_core.identity import Principal

GROUP: Final = "trainguard.dataset_service"
PATH: Final = "/trainguard/reads"
DECIDED: Final = frozenset({"open"})
"""Operations that ask policy; the others only write down, or send, what was decided."""


def reads_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What tells a job's processes where to ask: the token authority's server, which they know already."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        return {}
    return {
        "TRAINGUARD_READS": f"https://{host}:{port}{PATH}",
        "TRAINGUARD_READS_CA": str(ACCOUNT / "ca.crt"),
    }


class Reads:
    """Answers jobs. Call from one event loop."""

    def __init__(self, judge: Judge, drivers: Drivers) -> None:
        self._judge = judge
        self._drivers = drivers

    @cached_property
    def _service(self) -> Any:
        found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
        if not found:
            raise UserError("no package that keeps datasets is installed; run: pip install trainguard")
        return found[0].load()

    async def reader(self, token: str) -> Principal:
        """Whose job's credential this is. Raises Refusal."""
        return await self._drivers.principal(token)

    async def answer(
        self, reader: Principal, operation: str, body: Mapping[str, Any]
    ) -> tuple[int, dict[str, Any] | Path]:
        """An HTTP status with the answer, or with the file to send."""
        home = self._judge.gateway.home

        def work() -> tuple[int, dict[str, Any] | Path]:
            found: tuple[int, dict[str, Any] | Path] = self._service(home, reader, operation, body)
            return found

        if operation in DECIDED:
            return await self._judge.in_thread(work)
        return await asyncio.get_running_loop().run_in_executor(None, work)
