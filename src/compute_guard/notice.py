"""Has this job notice? For training code that wants to write a checkpoint before it is stopped.

::

    from compute_guard.notice import stop_notice

    for step in range(steps):
        train(step)
        if stop_notice() is not None:
            save_checkpoint()     # the job is stopped at stop_notice().stop_at and, by default, waits again

A file in the home says so, which the job finds through the variable TRAINGUARD_NOTICE. A job on a machine
that does not share the home's file system sees no notice; there the job's status message is what tells.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from guard_core.files import write_atomic

NOTICE_VARIABLE: Final = "TRAINGUARD_NOTICE"


@dataclass(frozen=True, slots=True)
class StopNotice:
    """When the job is stopped, why, and whether it waits again afterwards."""

    stop_at: datetime
    reason: str
    requeue: bool


def notice_path(home: Path, submission_id: str) -> str:
    """Where the notice of a job is, once it has one: what the job is told."""
    return f"{home}/ray/notices/{submission_id}.json"


def notice_file(home: Path, submission_id: str) -> Path:
    """:func:`notice_path`, to write and to delete."""
    return Path(notice_path(home, submission_id))


def stop_notice() -> StopNotice | None:
    """The notice of the job this code runs in, None without one. Cheap: one look at one file."""
    path = os.environ.get(NOTICE_VARIABLE)
    if not path:
        return None
    try:
        raw = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return None
    return StopNotice(datetime.fromisoformat(raw["stop_at"]), raw["reason"], raw["requeue"])


def write_notice(file: Path, *, stop_at: str, reason: str, requeue: bool) -> None:
    """Put the notice where the job looks for it: whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    text = json.dumps({"stop_at": stop_at, "reason": reason, "requeue": requeue})
    # No job outlives a power loss, and the notice itself is in the ledger.
    write_atomic(file, text.encode() + b"\n", mode=0o644, durable=False)


def withdraw_notice(file: Path) -> None:
    """Take the notice away: the job has ended, or begins anew."""
    file.unlink(missing_ok=True)
