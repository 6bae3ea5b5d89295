"""``ray start``, guarded: its variables for this home, and one node of a cluster on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compute_guard.admission.ray_body import GATED, ONLY_TENANT
from compute_guard.cluster import processes
from compute_guard.cluster.connection import PERIOD_VARIABLE, Cluster
from compute_guard.cluster.service_account import authority_environment, with_private_account
from guard_core.errors import UserError

if TYPE_CHECKING:
    from guard_core.config import Settings

START_SECONDS = 300
"""A busy machine is slow, not broken: a head took 180 s where ten programs wanted two cores. What ends while
it starts is noticed at once, so this is for what hangs."""
GATE_HOST = "127.0.0.2"
"""Loopback, but not 127.0.0.1: Ray takes that for the machine's outer address."""
STARTED = b"Ray runtime started."
RAY_START = (sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start")
HOOK = "compute_guard.ray_plugin.start.hook"
LOOK_SECONDS = 0.5
"""Between two looks whether a raylet still runs."""
_OUR_ERROR = f"{UserError.__module__}.{UserError.__name__}: "  # what a start hook that refuses ends with
_MISUSED = 2  # how `ray start` ends when it does not understand its options
_FOREIGN = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS", "TRAINGUARD_TOKEN")


def guarded_environment(settings: Settings, token_file: str, *, tenant: str = "") -> dict[str, str]:
    """The variables that make a plain ``ray start`` guarded, for this home. No secrets among them.

    ``tenant``: the one that a cluster of its own serves.
    """
    from guard_core.config import flat

    values = {
        f"TRAINGUARD_{key.replace('.', '_').upper()}": (
            json.dumps(value) if isinstance(value, dict) else str(value)
        )
        for key, value in flat(settings).items()
        if value not in (None, {}) and key not in ("token", "storage_url")
    }
    return {
        **values,
        **({ONLY_TENANT: tenant} if tenant else {}),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token_file,
        "RAY_START_HOOK": HOOK,
        "RAY_USAGE_STATS_ENABLED": "0",
        # A task that asks for no GPU sees none (Ray 2.60 shows it all of them by default, ray#62492).
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    }


class RayEnded(UserError):
    """Ray ended while it started. On a busy machine the next start may well succeed."""


class RunningNode:
    """A node's ``ray start`` and, from when it was first seen, its raylet."""

    def __init__(self, command: subprocess.Popen[bytes], *, stays: bool) -> None:
        self._command = command
        self._stays = stays
        self._raylets: set[processes.Process] = set()
        self._looked = 0.0

    @property
    def status(self) -> int | None:
        """Exit code of ``ray start``, None while it runs."""
        return self._command.poll()

    def has_ended(self) -> bool:
        """Whether the node is gone: the command that stays with it, or a raylet that was seen before."""
        if self._stays and self.status is not None:
            return True
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if not self._raylets:
                self._raylets = processes.below(self._command.pid, "raylet")
            elif not processes.alive(self._raylets):
                return True
        return False

    def end(self) -> None:
        """End ``ray start``; what it started in a process namespace of its own ends with it."""
        self._command.kill()
        self._command.wait()


def start_node(
    settings: Settings,
    cluster: Cluster,
    arguments: Sequence[str],
    options: Mapping[str, int | None],
    period_ms: int,
    name: str,
    pool: str = "",
) -> RunningNode:
    """``ray start``, as the cluster's own: ``name`` is its folder and log.

    Raises RayEnded when Ray ends while it starts, UserError when it would do so again.
    """
    folder = Path(cluster.temp_dir) / name
    folder.mkdir(mode=0o711)  # tenants' Unix users pass through, and list nothing
    command = [
        *(*RAY_START, *arguments),
        *(f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
    ]
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    environment |= guarded_environment(settings, cluster.token_file)
    if settings.storage_url is not None:
        environment["TRAINGUARD_STORAGE_URL"] = settings.storage_url
    waits = ("RAY_raylet_start_wait_time_s", "RAY_DASHBOARD_STARTUP_TIMEOUT_S")
    environment |= dict.fromkeys(waits, str(START_SECONDS))
    environment |= {processes.MARKER: cluster.marker, PERIOD_VARIABLE: str(period_ms)}
    if cluster.profile in GATED:
        environment |= {
            "COMPUTE_GUARD_PROFILE": cluster.profile,
            "COMPUTE_GUARD_GATE": cluster.gate_address,
            "COMPUTE_GUARD_LINK": cluster.link_address,
            "COMPUTE_GUARD_NODE": str(folder / "guard"),
            "COMPUTE_GUARD_POOL": pool,
            **authority_environment(cluster.authority_address),
        }
        from compute_guard.ray_plugin.gates.authority import CA_FILE, make_certificate

        certificate = Path(cluster.guard_folder) / CA_FILE
        make_certificate(certificate.parent, GATE_HOST)
        # Ray takes the head for a driver's node where it sees the head's processes beside it.
        command = with_private_account(
            [*command, "--block"] if pool else command,
            certificate,
            own_processes=bool(pool),
            opened=interpreter_folders() if pool and cluster.profile == "hardened" else (),
        )
    # `python` in a job's entrypoint means the interpreter the cluster runs on.
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    return _run(command, environment, folder / "start.log", stays=bool(pool))


def interpreter_folders() -> tuple[Path, ...]:
    """What a tenant's Unix user must be able to read to run Python, Ray and this package."""
    return Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]


def _run(command: Sequence[str], environment: Mapping[str, str], log: Path, *, stays: bool) -> RunningNode:
    """Run ``ray start`` until it has started its node: until it ends, or with ``stays`` until it says so."""
    with log.open("wb") as output:
        # A file, not a pipe: Ray's daemons inherit it and would keep a pipe open for ever.
        started = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=stays,
        )
    node = RunningNode(started, stays=stays)
    deadline = time.monotonic() + START_SECONDS
    while not _says_started(node, log, stays=stays):
        if node.status is not None:
            raise _trouble(node.status, log.read_text(errors="replace").strip())
        late = time.monotonic() > deadline
        if late or node.has_ended():
            node.end()
            busy = f"it was not ready in {START_SECONDS} s; end what else keeps this machine busy, or"
            raise RayEnded(f"Ray did not start: {busy if late else 'its raylet ended;'} see {log.parent}")
        time.sleep(0.05)
    return node


def _says_started(node: RunningNode, log: Path, *, stays: bool) -> bool:
    if stays:
        return node.status is None and STARTED in log.read_bytes()
    return node.status == 0


def _trouble(status: int, said: str) -> UserError:
    """Why ``ray start`` ended."""
    if "No module named 'ray'" in said:
        return UserError('ray is not installed; run: pip install "trainguard[ray]"')
    last = said.splitlines()[-1] if said else "no output"
    certain = _OUR_ERROR in last or status == _MISUSED  # it would say the same again
    return (UserError if certain else RayEnded)(f"Ray did not start: {last.removeprefix(_OUR_ERROR)}")
