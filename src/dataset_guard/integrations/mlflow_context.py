"""Run tags on every MLflow run made where a TrainGuard home or credential is at hand.

``guard.tenant`` is taken from a verified credential only. A tag is still text that its owner can edit:
it helps to find runs, and nothing is decided on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlflow.tracking.context.abstract_context import RunContextProvider

from guard_core.version import __version__


class TrainGuardContext(RunContextProvider):  # type: ignore[misc]
    """Adds ``guard.plugin_version``, and with a valid credential tenant, user and workload."""

    def in_context(self) -> bool:
        """Whether a home is named or exists: starting a run must never make one."""
        return "TRAINGUARD_TOKEN" in os.environ or _home().is_dir()

    def tags(self) -> dict[str, str]:
        """The tags; without a verifiable credential only the version."""
        tags = {"guard.plugin_version": __version__}
        from guard_core.errors import GuardError
        from guard_core.home import Home

        if not _home().is_dir():
            return tags
        try:
            with Home.open() as home:
                principal = home.principal()
        except GuardError:
            return {**tags, "guard.identity": "unverified"}
        tags |= {"guard.tenant": principal.tenant, "guard.user": principal.user}
        return {**tags, "guard.workload": principal.workload} if principal.workload else tags


def _home() -> Path:
    return Path(os.environ.get("TRAINGUARD_HOME") or ".trainguard")
