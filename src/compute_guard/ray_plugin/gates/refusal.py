"""The setup hook of a worker that must not work: the user sees why."""

from __future__ import annotations

import os


def refuse() -> None:
    """Raise PermissionError with the launcher's words."""
    raise PermissionError(os.environ.get("TRAINGUARD_REFUSAL", "TrainGuard: this worker was not admitted"))
