"""OPA and Regal, when they are installed: their own opinion of a policy directory.

Neither is needed to run TrainGuard. ``opa`` is looked for in ``TRAINGUARD_OPA`` and
on PATH, ``regal`` on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_core.errors import UserError

TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class ToolRun:
    """One tool's check: ``ok`` is None when the tool is not installed."""

    name: str
    ok: bool | None
    output: str

    def to_json(self) -> dict[str, Any]:
        """``{"name", "ok", "output"}``."""
        return {"name": self.name, "ok": self.ok, "output": self.output}


def opa_binary() -> str | None:
    """The OPA binary, None when there is none. Raises UserError when TRAINGUARD_OPA names no program."""
    named = os.environ.get("TRAINGUARD_OPA")
    if named and not shutil.which(named):
        raise UserError(f"TRAINGUARD_OPA is {named}, which is no program; correct or unset it")
    return named or shutil.which("opa")


def tool_runs(directory: Path) -> tuple[ToolRun, ...]:
    """``opa check --strict``, ``opa fmt --list --fail`` and ``regal lint`` of ``directory``."""
    opa, regal = opa_binary(), shutil.which("regal")
    return (
        _run("opa check --strict", opa, ["check", "--strict", "--bundle", str(directory)]),
        _run("opa fmt --fail", opa, ["fmt", "--list", "--fail", str(directory)]),
        _run("regal lint", regal, ["lint", "--no-color", str(directory)]),
    )


def _run(name: str, binary: str | None, arguments: list[str]) -> ToolRun:
    if binary is None:
        return ToolRun(name, None, f"{name.split()[0]} is not installed")
    try:
        ran = subprocess.run(
            [binary, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return ToolRun(name, False, str(exc))
    said = (ran.stdout + ran.stderr).strip()
    return ToolRun(name, ran.returncode == 0, "" if ran.returncode == 0 else said)
