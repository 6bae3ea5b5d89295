"""Every attempt is prevented, or stopped within the time said here; what is open is in the threat model."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from compute_guard.ray_plugin.gcs import Gcs
from compute_guard.testing import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.gated]

FOLDER = Path(__file__).parent / "attacker"
THREATS = Path(__file__).parents[3] / "docs" / "threat-model.md"


def attempts() -> list[str]:
    """The names of all attempts, read from the attacker's source."""
    return [
        node.name
        for file in ("protocol", "placing", "machine")
        for node in ast.parse((FOLDER / f"{file}.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "attack" for d in node.decorator_list)
    ]


def test_there_are_at_least_forty_attempts():
    assert len(attempts()) == len(set(attempts())) >= 40


def test_the_threat_model_tells_the_result_of_every_attempt():
    told = {
        attempt.strip(): result.strip()
        for row in THREATS.read_text().lower().replace("'", "").splitlines()
        if row.count("|") == 4
        for _, _, attempts_told, result, _ in [row.split("|")]
        for attempt in attempts_told.split(";")
    }
    results = {name: told.get(name.replace("_", " ")) for name in attempts()}
    assert not [name for name, result in results.items() if result is None]
    left = {name for name, result in results.items() if result == "stopped within 8 s of the jobs end"}
    assert left == {"leave_a_daemon_behind", "leave_a_detached_actor_behind"}
    assert {result for name, result in results.items() if name not in left} == {"prevented"}


@pytest.mark.parametrize("name", attempts())
def test_it_is_prevented(attack, name):
    verdict, text, _seconds = attack.results[name]
    assert verdict == "held", text


def test_the_victim_never_noticed(attack, gated_cluster):
    details = gated_cluster.client("beta").get_job_info(attack.victim)
    assert details.status == "RUNNING", details.message


def test_a_poisoned_package_went_to_the_attackers_own_name(attack, gated_cluster):
    from ray.core.generated import gcs_service_pb2 as pb

    cluster = gated_cluster.cluster
    gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
    try:
        request = pb.InternalKVExistsRequest(key=b"gcs://_ray_pkg_shared.zip")
        assert not gcs._call(gcs._kv.InternalKVExists, request).exists
    finally:
        gcs.close()


def test_what_the_attacker_left_behind_is_ended_within_eight_seconds(attack, gated_cluster):
    """Daemons by their Unix user, detached actors and placement groups by their job."""
    cluster = gated_cluster.cluster
    gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
    users = {uid for tenant, uid in unix_users(cluster).items() if tenant == "acme"}

    def nothing_left() -> bool:
        ghosts = [actor for actor in gcs.actors() if actor.name == "ghost"]
        return not ghosts and not any(uid in users for uid in process_users())

    try:
        assert users
        wait_until(nothing_left, seconds=max(1.0, 8 - (time.monotonic() - attack.ended_at)))
    finally:
        gcs.close()


def unix_users(cluster) -> dict[str, int]:
    import json

    return json.loads((Path(cluster.temp_dir) / "head" / "guard" / "users.json").read_text())


def process_users() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.add(entry.stat().st_uid)
            except OSError:
                continue
    return found
