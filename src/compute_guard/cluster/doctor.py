"""``trainguard doctor``: is the cluster of this home guarded? Found out by knocking at its doors."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from importlib.util import find_spec
from typing import TYPE_CHECKING

from compute_guard.admission.ray_body import GATED
from guard_core.counting import counted
from guard_core.doctor import Probe

if TYPE_CHECKING:
    from guard_core.config import Settings

AREA = "compute"
REMEDY = "trainguard compute down, then trainguard compute up"


def probes(settings: Settings) -> list[Probe]:
    """Ray, quotas, and harmless violations tried against the running cluster, if there is one."""
    if find_spec("ray") is None:
        return [
            Probe(AREA, "ray", "info", 'not installed; for guarded clusters: pip install "trainguard[ray]"')
        ]
    return [_ray_version(), _quotas(settings), *_cluster(settings)]


def _ray_version() -> Probe:
    from importlib.metadata import version

    found = version("ray")
    if not found.startswith("2.60."):
        return Probe(
            AREA, "ray", "broken", f"Ray {found} is not the tested 2.60", 'pip install "trainguard[ray]"'
        )
    return Probe(AREA, "ray", "ok", f"Ray {found}")


def _quotas(settings: Settings) -> Probe:
    from compute_guard.quota.limits import Quotas
    from guard_core.policy.bundle import load_bundle, shipped_policies

    bundle = load_bundle(settings.policy.dir or shipped_policies())
    queues = Quotas.from_config(bundle.config.get("quotas", {})).queues
    return Probe(AREA, "quotas", "ok", f"{counted(len(queues), 'queue')}: {', '.join(sorted(queues))}")


def _cluster(settings: Settings) -> list[Probe]:
    from compute_guard.cluster.connection import load_cluster

    cluster = load_cluster(settings.home / "ray")
    if cluster is None:
        return [Probe(AREA, "cluster", "info", "no cluster of this home; start one: trainguard compute up")]
    from compute_guard.ray_plugin.gcs import Gcs

    gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
    try:
        agents = gcs.agent_addresses().values()
    finally:
        gcs.close()
    from compute_guard.cli import LABELS

    labels = ", ".join(f"{n.replace('_', ' ')} {label}" for n, label in LABELS[cluster.profile].items())
    label = f"profile {cluster.profile}: {labels}"
    found = [Probe(AREA, "cluster", "ok", f"{cluster.dashboard}, {len(agents)} node(s), {label}")]
    url = cluster.dashboard + "/api/jobs/"
    found.append(_refused("submission without a credential", url, "", (401, 403, 429)))
    found.append(_refused("submission with the cluster's token", url, cluster.token, (429,)))
    if cluster.profile in GATED:
        from compute_guard.ray_plugin.gates.probes import gate_probes

        found += gate_probes(cluster, settings)
    for agent in agents:
        route = agent + "/api/job_agent/jobs/"
        found.append(_refused(f"submission at the agent {agent}", route, cluster.token, (429,)))
    return found


def _refused(name: str, url: str, token: str, expected: tuple[int, ...]) -> Probe:
    """Try a submission that must be refused. Its entrypoint does nothing, should it ever be accepted."""
    body = json.dumps({"entrypoint": "true", "submission_id": "trainguard-doctor"}).encode()
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, data=body, method="POST", headers=headers)  # noqa: S310 - our address
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our address
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError as error:
        return Probe(AREA, name, "broken", f"{url} cannot be reached: {error}", REMEDY)
    if status in expected:
        return Probe(AREA, name, "ok", f"refused ({status})")
    return Probe(AREA, name, "broken", f"answered {status}: the cluster is not guarded there", REMEDY)
