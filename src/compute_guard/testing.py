"""Helpers for tests against a real guarded cluster. Public, and used by our own tests.

::

    @pytest.fixture(scope="session")
    def ray_cluster(tmp_path_factory):
        with guarded_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
            yield cluster
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from compute_guard.cluster.connection import PERIOD_MS, Cluster

if TYPE_CHECKING:
    from compute_guard.usage.samples import Frame
    from guard_core.home import Home

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(slots=True)
class GuardedCluster:
    """A running cluster with its opened home and its own, editable copy of the policies."""

    home: Home
    cluster: Cluster
    policies: Path
    _tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    def token(self, tenant: str, user: str = "ada") -> str:
        """A credential of ``tenant``, the same one each time."""
        if (tenant, user) not in self._tokens:
            self._tokens[tenant, user] = self.home.credentials.issue(tenant=tenant, user=user)
        return self._tokens[tenant, user]

    def client(self, tenant: str, user: str = "ada") -> Any:
        """Ray's own JobSubmissionClient with that credential."""
        from ray.job_submission import JobSubmissionClient

        headers = {"Authorization": f"Bearer {self.token(tenant, user)}"}
        return JobSubmissionClient(self.cluster.submit_address, headers=headers)

    @contextmanager
    def edited(self, name: str, change: Callable[[str], str]) -> Iterator[None]:
        """The policy file ``name`` as ``change`` makes it of its text; in force on entry, undone on exit."""
        from compute_guard.ray_plugin.service import LOOK_SECONDS

        file = next(self.policies.rglob(name))
        good = file.read_text()
        try:
            file.write_text(change(good))
            time.sleep(2 * LOOK_SECONDS)
            yield
        finally:
            file.write_text(good)
            time.sleep(2 * LOOK_SECONDS)

    def wait(self, client: Any, job: str, states: Collection[str] = ENDED, *, seconds: float = 180) -> Any:
        """Ray's details of ``job`` once it is in one of ``states``. Raises TimeoutError otherwise."""
        deadline = time.monotonic() + seconds
        while True:
            details = client.get_job_info(job)
            if str(details.status.value) in states:
                return details
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} is {details.status.value}, not {states}: {details.message}")
            time.sleep(0.1)


def wait_until(
    condition: Callable[[], bool], *, seconds: float = 120, seen: Callable[[], object] | None = None
) -> None:
    """Return once ``condition`` holds. Raises TimeoutError, with what ``seen`` gives then."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            what = "" if seen is None else f"; seen instead: {seen()}"
            raise TimeoutError(f"it did not come about within {seconds} s{what}")
        time.sleep(0.1)


def running_job(home: Home, job: str, *, tenant: str = "acme", cpus: str = "0") -> str:
    """Adds a running job of ``tenant`` that declared ``cpus``, as if Ray ran it; gives its id."""
    from compute_guard.admission.gateway import Gateway
    from compute_guard.admission.workload import WorkloadState, workload_from_submission
    from compute_guard.ledger.store import Ledger
    from guard_core.clock import to_ns

    workload = workload_from_submission(
        {"entrypoint": "x", "metadata": {"cpus": cpus}},
        submission_id=job,
        tenant=tenant,
        user="ada",
        queue=tenant,
        created_ns=to_ns(home.clock()),
    )
    ledger = Ledger(home.storage, home.clock)
    ledger.add(workload)
    ledger.reserve(job, Gateway(home).quotas())
    ledger.move(job, WorkloadState.RUNNING)
    return job


EXPORTED = (
    *(
        "DCGM_FI_DEV_GPU_UTIL",
        "DCGM_FI_DEV_FB_USED",
        "DCGM_FI_DEV_POWER_USAGE",
        "DCGM_FI_DEV_POWER_MGMT_LIMIT",
    ),
    *("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_PCIE_TX_BYTES"),
)
"""What :func:`exposition` writes of each device."""


def exposition(frame: Frame, node: str) -> bytes:
    """A frame of one sample per device in dcgm-exporter's words, as if scraped from ``node``."""
    from compute_guard.usage.sources.prometheus import NAMES

    lines = []
    for name in EXPORTED:
        metric, factor = NAMES[name]
        for place, value in zip(frame.device.tolist(), frame.metric(metric).tolist(), strict=True):
            index = frame.devices[place].index
            lines.append(f'{name}{{gpu="{index}",UUID="GPU-{index}",Hostname="{node}"}} {value / factor}')
    return ("\n".join(lines) + "\n").encode()


@contextmanager
def exporter(answer: Callable[[], bytes]) -> Iterator[str]:
    """A real HTTP exporter on loopback that says what ``answer`` gives, scrape after scrape: its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True, slots=True)
class GateProcess:
    """A process of a gate on this machine: the ``keeper`` that restarts it, or the gate itself."""

    pid: int
    role: str
    folder: str
    keeper: bool


_GATE = re.compile(r" -m compute_guard\.ray_plugin\.gates (head|node) (\S+)/guard/config\.json(?: (\S+))?$")


def intruder(
    cluster: GuardedCluster,
    code: str,
    *,
    claims: Mapping[str, Any] | None = None,
    said: IO[str] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """A process with the cluster's stolen token that runs ``code``, past every gate.

    Its argument is the address of Ray's own GCS; ``claims`` is the job configuration that it forges; what it
    prints goes to ``said``.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TRAINGUARD_"))}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": cluster.cluster.token_file}
    if claims is not None:
        environment["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps(claims)
    return subprocess.Popen(
        [sys.executable, "-c", code, cluster.cluster.gcs_address],
        env=environment,
        stdout=said,
        stderr=subprocess.DEVNULL,
    )


def gate_processes(cluster: Cluster) -> list[GateProcess]:
    """The gates of a cluster on this machine; ``folder`` is ``head`` or ``node-0`` and so on."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        gate = _GATE.search(line.strip("\0").replace("\0", " "))
        if gate is not None and gate[2].startswith(cluster.temp_dir):
            found.append(GateProcess(int(entry.name), gate[1], Path(gate[2]).name, gate[3] is not None))
    return found


@contextmanager
def guarded_cluster(
    folder: Path,
    *,
    num_cpus: int = 4,
    num_gpus: int | None = None,
    object_store_bytes: int = 200_000_000,
    period_ms: int = PERIOD_MS,
    profile: str = "observe-and-stop",
    pools: Sequence[str] = (),
    data: Mapping[str, str] | None = None,
) -> Iterator[GuardedCluster]:
    """A guarded local cluster in ``folder`` with a copy of the shipped policies, ended on exit.

    ``data`` replaces whole files of policy data by name (``{"nodes.yaml": "..."}``); ``profile`` and
    ``pools`` are those of :func:`compute_guard.cluster.local_cluster.up`.
    """
    from compute_guard.cluster import local_cluster
    from guard_core.config import load_settings
    from guard_core.home import Home
    from guard_core.policy.bundle import shipped_policies

    policies = folder / "policies"
    shutil.copytree(shipped_policies(), policies)
    for name, text in (data or {}).items():
        (policies / "data" / name).write_text(text)
    settings = load_settings(home=folder / "home", policy={"dir": policies})
    with Home.open(settings) as home:
        cluster = local_cluster.up(
            home,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            object_store_bytes=object_store_bytes,
            period_ms=period_ms,
            profile=profile,
            pools=pools,
        )
        try:
            yield GuardedCluster(home, cluster, policies)
        finally:
            local_cluster.down(home)
