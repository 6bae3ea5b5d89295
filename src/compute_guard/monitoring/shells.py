"""Shells and downloaders below a job's workers that the job's command does not name (Linux, psutil).

Ray runs an entrypoint through ``/bin/sh -c``; that shell, and what the command itself names, is the job's
business. A shell below a *worker*, or a downloader nobody named, is how taken-over Ray clusters look from
inside. Only processes of this machine are seen, and of them only names, never arguments.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from compute_guard.usage.activity import Shell

if TYPE_CHECKING:
    from compute_guard.monitoring.holdings import Holding

SUSPECTS: Final = frozenset({
    "ash", "bash", "busybox", "curl", "dash", "fish", "ksh", "nc", "ncat", "netcat", "sh", "socat", "wget",
    "zsh",
})  # fmt: skip
"""Shells, and tools that fetch or open connections (after Elastic's rule for shells below Ray workers)."""


def below_workers(held: Iterable[Holding]) -> tuple[Shell, ...]:
    """Suspects among the processes of local holdings. Raises ImportError without psutil."""
    import psutil

    found = []
    for holding in held:
        if not holding.pids:
            continue
        command = holding.grant.entrypoint if holding.grant else ""
        named = {word.rsplit("/", 1)[-1] for word in command.replace("'", " ").replace('"', " ").split()}
        for pid in sorted(holding.pids):
            try:
                process = psutil.Process(pid)
                name = process.name()
                if name not in SUSPECTS or name in named or _runs_the_entrypoint(process, command):
                    continue
            except psutil.Error:
                continue  # it ended meanwhile
            found.append(Shell(socket.gethostname(), holding.tenant, holding.job, name, pid))
    return tuple(found)


def _runs_the_entrypoint(process: object, command: str) -> bool:
    """Whether ``process`` is the shell in which Ray runs the job's own command, or below it.

    A driver's children are the command's own doing (a launcher script); a worker's are not.
    """
    line = getattr(process, "cmdline")()  # noqa: B009  # psutil.Process, imported by the caller only
    if not line:
        # In the middle of execve it has its name and not yet its arguments: the next look tells.
        return True
    if command and "-c" in line and any(command in part for part in line):
        return True
    for parent in getattr(process, "parents")():  # noqa: B009
        title = " ".join(parent.cmdline()[:3])
        if title.startswith("ray::"):
            return "JobSupervisor" in title
        if command and any(command in part for part in parent.cmdline()):
            return True
    return False
