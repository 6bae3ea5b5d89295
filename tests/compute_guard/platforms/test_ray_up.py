"""The real `ray up` with what `compute install` writes, from one machine on two others."""

from __future__ import annotations

import pytest
from machines import SOFTWARE, USER, Machine, Machines, obstacle

from compute_guard.testing import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.gated, pytest.mark.clusters, pytest.mark.timeout(540)]

HOME = "/var/lib/trainguard/home"
INSTALL = "trainguard compute install --profile hardened --target ray-up --pool shared --out kit"
INSTALL_VARIABLES = "umask 077; openssl rand -hex 32 > auth_token; trainguard compute install --target ray-up"
ON_THE_PATH = f"echo 'export PATH={SOFTWARE}/bin:$PATH' >> ~/.bash_profile"
CLUSTER = """\
cluster_name: guarded
provider: {{type: local, head_ip: {head}, worker_ips: [{node}]}}
auth: {{ssh_user: ubuntu, ssh_private_key: ~/.ssh/id_ed25519}}
"""
PROGRAM = """\
import os, ray
ray.init()
where = ray.remote(lambda: (os.uname().nodename, os.getuid())).remote()
print("ran on", *ray.get(where))
"""


@pytest.fixture
def lan():
    if reason := obstacle():
        pytest.skip(reason)
    with Machines() as machines:
        yield machines


def typed(machine: Machine, command: str, *, seconds: float = 300) -> tuple[int, str]:
    """What somebody types on ``machine``: exit status and output."""
    path = f"export PATH={SOFTWARE}/bin:$PATH RAY_USAGE_STATS_ENABLED=0 RAY_UP_enable_autoscaler_v2=0"
    done = machine.run("bash", "-c", f"cd ~; {path}; {command}", user=USER, seconds=seconds)
    return done.returncode, done.stdout


def brought_up(desk: Machine, part: str, *, head: Machine, node: Machine) -> None:
    """`ray up` of a cluster of two, with ``part`` in its cluster.yaml."""
    desk.put(f"/home/{USER}/cluster.yaml", CLUSTER.format(head=head.address, node=node.address) + part)
    status, said = typed(desk, "ray up -y cluster.yaml")
    assert status == 0, said
    assert "Ray runtime will not be started" not in said


def checked(head: Machine, doctor: str, wanted: str) -> str:
    """What ``doctor`` prints once ``wanted`` is in it."""
    seen = [""]

    def node_is_there() -> bool:
        seen[0] = typed(head, doctor)[1]
        return wanted in seen[0]

    wait_until(node_is_there, seconds=200, seen=lambda: seen[0])
    broken = [line for line in seen[0].splitlines() if line.startswith("broken") and " compute " in line]
    assert broken == [], seen[0]
    return seen[0]


def taken_down(desk: Machine, head: Machine) -> None:
    status, said = typed(desk, "ray down -y cluster.yaml")
    assert status == 0, said
    wait_until(lambda: not left(head), seconds=60, seen=lambda: left(head))


def test_ray_up_starts_a_guarded_cluster_and_ray_down_ends_it(lan):
    head, node, desk = (lan.add(name) for name in ("head", "node", "desk"))
    desk.put(f"/home/{USER}/.ssh/id_ed25519", lan.key, mode="600")
    status, said = typed(desk, INSTALL)
    assert status == 0, said
    brought_up(desk, desk.run("cat", f"/home/{USER}/kit/ray-up.yaml").stdout, head=head, node=node)

    doctor = f"sudo {SOFTWARE}/bin/trainguard --home {HOME} doctor"
    assert "hardened, as configured" in checked(head, doctor, "its raylet beside the gate")

    head.put(f"/home/{USER}/job/program.py", PROGRAM)
    assert submitted(head, issue("acme"), "--working-dir job -- python program.py", "ran on node 61")
    assert "there is no tenant 'nobody'" in typed(head, issue("nobody"))[1]
    assert submitted(head, "echo tg_0123456789abcdef_none", "-- true", "credential is not known here")
    taken_down(desk, head)


def test_ray_up_starts_a_cluster_of_profile_observe_and_stop(lan):
    head, node, desk = (lan.add(name) for name in ("head", "node", "desk"))
    desk.put(f"/home/{USER}/.ssh/id_ed25519", lan.key, mode="600")
    status, part = typed(desk, INSTALL_VARIABLES)
    assert status == 0, part
    # The machines have the software already: no index that this machine reaches offers it.
    brought_up(desk, part.replace('pip install "trainguard[ray]"', ON_THE_PATH), head=head, node=node)

    said = checked(head, "trainguard doctor", f"submission at the agent http://{node.address}")
    assert "2 node(s), profile observe-and-stop" in said

    assert submitted(head, "trainguard tenant issue acme --user ada", "-- echo it ran", "\nit ran")
    assert submitted(head, "echo tg_0123456789abcdef_none", "-- true", "credential is not known here")
    taken_down(desk, head)


def issue(tenant: str) -> str:
    """The command that gives ``tenant`` a credential, on the head."""
    return f"sudo {SOFTWARE}/bin/trainguard --home {HOME} tenant issue {tenant} --user ada"


def submitted(head: Machine, credential: str, job: str, wanted: str) -> bool:
    """Submit with what ``credential`` prints; whether ``wanted`` is in what Ray's own client said."""
    to = f"TRAINGUARD_TOKEN=$({credential} | tail -1) RAY_ADDRESS=compute_guard://127.0.0.1:8265"
    said = typed(head, f"{to} ray job submit --entrypoint-num-cpus 1 {job}")[1]
    print(said)  # what pytest shows of a failure
    return wanted in said


def left(machine: Machine) -> list[str]:
    """Ray's and the gates' processes on it."""
    lines = machine.run("ps", "axww", "-o", "args").stdout.splitlines()
    return [line for line in lines if "/ray/" in line or "compute_guard" in line]
