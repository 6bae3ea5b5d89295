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

START_SECONDS = 180
GATE_HOST = "127.0.0.2"
"""Loopback, but not 127.0.0.1: Ray takes that for the machine's outer address."""
STARTED = b"Ray runtime started."
HOOK = "compute_guard.ray_plugin.start.hook"
_OUR_ERROR = f"{UserError.__module__}.{UserError.__name__}: "  # what a start hook that refuses ends with
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


def start_node(
    settings: Settings,
    cluster: Cluster,
    arguments: Sequence[str],
    options: Mapping[str, int | None],
    period_ms: int,
    name: str,
    pool: str = "",
) -> None:
    """``ray start``, as the cluster's own: ``name`` is its folder and log."""
    folder = Path(cluster.temp_dir) / name
    folder.mkdir(mode=0o711)  # tenants' Unix users pass through, and list nothing
    command = [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *arguments),
        *(f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
    ]
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    environment |= guarded_environment(settings, cluster.token_file)
    if settings.storage_url is not None:
        environment["TRAINGUARD_STORAGE_URL"] = settings.storage_url
    environment |= {"RAY_raylet_start_wait_time_s": str(START_SECONDS)}  # a busy machine is no broken one
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
    _run(command, environment, folder / "start.log", stays=bool(pool))


def interpreter_folders() -> tuple[Path, ...]:
    """What a tenant's Unix user must be able to read to run Python, Ray and this package."""
    return Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]


def _run(command: Sequence[str], environment: Mapping[str, str], log: Path, *, stays: bool) -> None:
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
    deadline = time.monotonic() + START_SECONDS
    while started.poll() is None and not (stays and STARTED in log.read_bytes()):
        if time.monotonic() > deadline:
            started.kill()
            break
        time.sleep(0.05)
    if started.poll() not in (None, 0) or (stays and started.poll() is not None):
        text = log.read_text(errors="replace").strip()
        if "No module named 'ray'" in text:
            raise UserError('ray is not installed; run: pip install "trainguard[ray]"')
        last = text.splitlines()[-1] if text else "no output"
        raise UserError(f"Ray did not start: {last.removeprefix(_OUR_ERROR)}")
