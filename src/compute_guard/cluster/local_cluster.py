"""A guarded Ray head on this machine: start it, look at it, end exactly what was started."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compute_guard.admission.ray_body import GATED
from compute_guard.cluster import processes
from compute_guard.cluster.connection import CLUSTER_FILE, PERIOD_MS, TOKEN_FILE, Cluster, load_cluster
from compute_guard.cluster.further_nodes import FurtherNodes, has_joined, tried
from compute_guard.cluster.ray_start import GATE_HOST, START_SECONDS, RayEnded, RunningNode, start_node
from compute_guard.ray_plugin.ports import AGENT_PORTS, free_ports
from guard_core.clock import rfc3339
from guard_core.counting import counted
from guard_core.errors import Undecidable, UserError
from guard_core.files import locked, write_atomic

if TYPE_CHECKING:
    from guard_core.home import Home

OBSERVE = "observe-and-stop"
FAILED_START = "failed-start"
ENDED = "ended"
"""The file that names, by its marker, the last cluster that was to end: it is not started again."""
RAYS_LOGS = ("raylet.*", "dashboard.*", "dashboard_agent.*", "runtime_env_agent.*", "gcs_server.*")
HEAD_ADDRESSES = ("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is really there. ``guarded`` is proved by the dashboard's own answer, not by the record."""

    cluster: Cluster | None
    processes: int = 0
    answers: bool = False
    guarded: bool = False


def up(
    home: Home,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    object_store_bytes: int | None = None,
    period_ms: int = PERIOD_MS,
    profile: str = OBSERVE,
    pools: Sequence[str] = (),
) -> Cluster:
    """Start a guarded head for ``home`` and wait until it admits; the running one, if there is one already.

    With a profile of gates, the head runs Ray's own processes only and every entry of ``pools`` is one
    further node in that pool (nodes.yaml), with ``num_cpus``, ``num_gpus`` and ``object_store_bytes`` each.
    Raises UserError when Ray is missing or does not start, Undecidable when it starts without its guard.
    """
    gated = profile in GATED
    if profile != OBSERVE and not gated:
        raise UserError(f"profile must be {OBSERVE}, gate or hardened, got {profile!r}")
    if pools and not gated:
        raise UserError("further nodes need profile gate or hardened; nothing would guard them otherwise")
    folder = home.path("ray")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder / ".lock"):
        known = load_cluster(folder)
        if known is not None:
            seen = status(home)
            if seen.guarded:
                return known
            if seen.processes or seen.answers:
                raise UserError(
                    f"the cluster of this home ({known.dashboard}) runs, but does not answer as guarded; "
                    "end it first: trainguard compute down"
                )
        size = {"num-cpus": num_cpus, "num-gpus": num_gpus, "object-store-memory": object_store_bytes}
        return tried(lambda _: _start(home, profile, pools, size, period_ms), "the head")


def _start(
    home: Home, profile: str, pools: Sequence[str], size: Mapping[str, int | None], period_ms: int
) -> Cluster:
    """Start a head and its nodes: all of them or, with logs kept, none. Raises as ``up``, or RayEnded."""
    gated = profile in GATED
    folder = home.path("ray")
    token_file = folder / TOKEN_FILE
    write_atomic(token_file, secrets.token_hex(32).encode(), mode=0o600)
    # All at once: two that are chosen one after the other could be the same.
    gcs, dashboard, gate, link, authority, *agents = free_ports(5 + len(AGENT_PORTS) * (1 + len(pools)))
    temp_dir = tempfile.mkdtemp(prefix="tg-ray-")
    cluster = Cluster(
        dashboard=f"http://127.0.0.1:{dashboard}",
        gcs_address=f"127.0.0.1:{gcs}",
        token_file=str(token_file),
        marker=secrets.token_hex(8),
        temp_dir=temp_dir,
        profile=profile,
        gate_address=f"{GATE_HOST}:{gate}" if gated else "",
        link_address=f"{GATE_HOST}:{link}" if gated else "",
        authority_address=f"{GATE_HOST}:{authority}" if gated else "",
        guard_folder=f"{temp_dir}/head/guard" if gated else "",
        started_at=rfc3339(home.clock()),
    )
    Path(cluster.temp_dir).chmod(0o711)
    cluster.save(folder)
    own, *others = (
        dict(zip(AGENT_PORTS, agents[n :: 1 + len(pools)], strict=True)) for n in range(1 + len(pools))
    )
    options = {
        "port": gcs,
        "dashboard-port": dashboard,
        **own,
        **({"num-cpus": 0, "object-store-memory": 80_000_000} if gated else size),
    }
    try:
        head = start_node(home.settings, cluster, ["--head", *HEAD_ADDRESSES], options, period_ms, "head")
        nodes = FurtherNodes(settings=home.settings, cluster=cluster, period_ms=period_ms)
        # The nodes need the head's gate, which is up; its dashboard gets ready beside them.
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as starting:
            try:
                joining = [
                    starting.submit(nodes.start, number, pool, {**size, **ports})
                    for number, (pool, ports) in enumerate(zip(pools, others, strict=True))
                ]
                _wait_until_it_admits(home, cluster, head)
                for node in as_completed(joining):
                    node.result()
            except BaseException:
                nodes.give_up()
                starting.shutdown(wait=False, cancel_futures=True)
                processes.end(processes.of_cluster(cluster.marker))
                raise
    except BaseException as error:
        if _is_to_end(folder, cluster):
            down(home)
            raise UserError("the cluster was ended by trainguard compute down while it started") from error
        kept = keep_logs(Path(cluster.temp_dir), folder / FAILED_START)
        down(home)
        if isinstance(error, UserError):
            raise type(error)(str(error).replace(cluster.temp_dir, str(kept))) from error
        raise
    return cluster


def keep_logs(started: Path, kept: Path) -> Path:
    """Copy the logs of a start that failed, which is taken away, over those of the one before."""
    shutil.rmtree(kept, ignore_errors=True)
    logs = [*started.glob("*/start.log"), *started.glob("*/guard/*.log")]
    logs += [log for name in RAYS_LOGS for log in started.glob(f"*/session_[0-9]*/logs/{name}")]
    for log in logs:
        target = kept / log.relative_to(started)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, target)
    return kept


def _wait_until_it_admits(home: Home, cluster: Cluster, head: RunningNode) -> None:
    """Wait for the dashboard, its guard, the agent that starts drivers, and one answered request."""
    from compute_guard.ray_plugin.gates.fence import HEAD_RESOURCE
    from compute_guard.ray_plugin.gcs import Gcs

    token = home.credentials.local_token(home.path("credentials"))
    gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
    deadline = time.monotonic() + START_SECONDS
    why = "it did not answer"
    try:
        while time.monotonic() < deadline:
            if head.has_ended():
                raise RayEnded("the Ray head's raylet ended before the head was ready")
            try:
                marks, _ = _get(cluster.dashboard + "/api/version")
                if "X-TrainGuard" not in marks:
                    raise Undecidable(
                        "the dashboard came up without its guard, so the cluster is ended again"
                    )
                _get(cluster.dashboard + "/api/jobs/", token)
                if has_joined(gcs, lambda row: HEAD_RESOURCE in row.resources):
                    return
                why = "its agent did not register"
            except (OSError, urllib.error.URLError) as error:
                why = str(error)
            time.sleep(0.25)
    finally:
        gcs.close()
    raise UserError(f"the Ray head did not become ready in {START_SECONDS} s: {why}")


def _get(url: str, token: str = "") -> tuple[Mapping[str, str], bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own http address
        return dict(answer.headers), answer.read()


def down(home: Home) -> int:
    """End the cluster of ``home``: its own processes only, never ``ray stop``. How many were ended."""
    folder = home.path("ray")
    cluster = load_cluster(folder)
    if cluster is None:
        return 0
    if not cluster.marker:
        raise UserError("this cluster was not started by `trainguard compute up`; end it as it was started")
    write_atomic(folder / ENDED, cluster.marker.encode())
    found = processes.of_cluster(cluster.marker)
    left = processes.end(found)
    # What a dying raylet still started is found in a second look.
    late = processes.of_cluster(cluster.marker)
    left |= processes.end(late)
    if left:
        many = counted(len(left), "process", "processes")
        raise Undecidable(f"{many} of the cluster could not be ended: {sorted(p.pid for p in left)}")
    shutil.rmtree(cluster.temp_dir, ignore_errors=True)
    (folder / CLUSTER_FILE).unlink(missing_ok=True)
    Path(cluster.token_file).unlink(missing_ok=True)
    return len(found | late)


def _is_to_end(folder: Path, cluster: Cluster) -> bool:
    try:
        return (folder / ENDED).read_text() == cluster.marker
    except FileNotFoundError:
        return False


def rotate_token(home: Home, tenant: str, *, end_grace: bool = False) -> None:
    """Replace the token that Ray's protocols know ``tenant`` by. Raises UserError without gates here."""
    cluster = load_cluster(home.path("ray"))
    if cluster is None or not cluster.guard_folder:
        raise UserError("there is no cluster with gates in this home; see: trainguard compute status")
    if tenant not in home.tenants():
        raise UserError(f"there is no tenant {tenant!r} in the policy data; add it to tenants.yaml")
    from compute_guard.ray_plugin.gates.tokens import TOKENS_FOLDER, Tokens

    tokens = Tokens(Path(cluster.guard_folder) / TOKENS_FOLDER)
    tokens.rotate(tenant)
    if end_grace:
        tokens.revoke_old(tenant)


def status(home: Home) -> Status:
    """Look at the cluster of ``home``: its processes, and whether the dashboard answers as a guarded one."""
    cluster = load_cluster(home.path("ray"))
    if cluster is None:
        return Status(cluster=None)
    running = len(processes.of_cluster(cluster.marker)) if cluster.marker else 0
    try:
        marks, _ = _get(cluster.dashboard + "/api/version")
    except (OSError, urllib.error.URLError):
        return Status(cluster=cluster, processes=running)
    return Status(cluster=cluster, processes=running, answers=True, guarded="X-TrainGuard" in marks)
