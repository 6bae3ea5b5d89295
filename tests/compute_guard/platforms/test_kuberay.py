"""KubeRay's own code makes pods of what `compute install` writes; their commands, run, make a cluster.

No Kubernetes: each pod is a machine of `machines.py` with the pod's variables, the Secret's files where they
are mounted, and the capabilities that containers have by default.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from machines import SOFTWARE, Machine, Machines, obstacle

from compute_guard.testing import wait_until
from guard_core.cli import root

pytestmark = [pytest.mark.ray, pytest.mark.gated, pytest.mark.clusters, pytest.mark.timeout(900)]

OPERATOR = Path(__file__).with_name("kuberay")
CAPABILITIES = [
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod", "net_bind_service"),
    *("net_raw", "setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
]
"""What container runtimes leave to root by default."""
PROGRAM = """\
import os, ray
ray.init()
print("ran on", *ray.get(ray.remote(lambda: (os.uname().nodename, os.getuid())).remote()))
"""


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    """The operator's code as a program; its first build takes minutes."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    program = tmp_path_factory.mktemp("operator") / "pods"
    subprocess.run(["go", "build", "-mod=readonly", "-o", program, "."], cwd=OPERATOR, check=True)
    return program


@pytest.fixture
def made(operator, tmp_path):
    """What the operator makes of the kit: its answer, and the Secret's files."""
    kit = tmp_path / "kit"
    wanted = ["--target", "kuberay", "--profile", "hardened", "--pool", "shared", "--out", str(kit)]
    done = CliRunner().invoke(root, ["compute", "install", *wanted], env={"TRAINGUARD_HOME": None})
    assert done.exit_code == 0, done.output
    cluster = ray_cluster(yaml.safe_load((kit / "values.yaml").read_text()))
    (kit / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    answer = subprocess.run(
        [operator, kit / "cluster.yaml", kit / "guard.yaml"], stdout=subprocess.PIPE, check=True
    )
    objects = {one["kind"]: one for one in yaml.safe_load_all((kit / "guard.yaml").read_text())}
    return json.loads(answer.stdout), objects


def ray_cluster(values: Mapping[str, Any]) -> dict[str, Any]:
    """The RayCluster that the chart's template (kuberay/ray-cluster 1.x) makes of ``values``."""
    shared = values["common"]["containerEnv"]

    def group(part: Mapping[str, Any], container: str) -> dict[str, Any]:
        passed = {name: part[name] for name in ("resources", "securityContext", "volumeMounts")}
        environment = [*shared, *part["containerEnv"]]
        image = "{repository}:{tag}".format(**values["image"])
        pod = {
            "containers": [{"name": container, "image": image, "env": environment, **passed}],
            "volumes": part["volumes"],
        }
        return {"rayStartParams": part["rayStartParams"], "template": {"spec": pod}}

    workers = [values["worker"], *values.get("additionalWorkerGroups", {}).values()]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": values["fullnameOverride"]},
        "spec": {
            "headGroupSpec": group(values["head"], "ray-head"),
            "workerGroupSpecs": [
                {**group(one, "ray-worker"), "groupName": one["groupName"], "replicas": one["replicas"]}
                for one in workers
            ],
        },
    }


class Pod:
    """A pod on a machine of its own."""

    def __init__(self, machine: Machine, spec: Mapping[str, Any], secret: Mapping[str, str]) -> None:
        self.machine = machine
        self._spec = spec
        self.container = spec["spec"]["containers"][0]
        self._mount(secret)

    def _mount(self, secret: Mapping[str, str]) -> None:
        volumes = {one["name"]: one for one in self._spec["spec"]["volumes"]}
        for mount in self.container["volumeMounts"]:
            source = volumes[mount["name"]].get("secret")
            self.machine.run("mkdir", "-p", mount["mountPath"])
            for item in source["items"] if source else ():
                file = f"{mount['mountPath']}/{item['path']}"
                mode = f"{source.get('defaultMode', 0o644):o}"
                self.machine.put(file, secret[item["key"]], mode=mode, user="root")

    def command(self, container: Mapping[str, Any], *arguments: str, **more: str) -> list[str]:
        """``arguments``, with the variables of ``container`` and no more capabilities than it has."""
        variables = {"PATH": f"{SOFTWARE}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        labels = self._spec["metadata"]["labels"]
        for one in container["env"]:  # as a kubelet: of two with one name, the last counts
            if "valueFrom" in one:
                field = one["valueFrom"]["fieldRef"]["fieldPath"]
                variables[one["name"]] = labels[field.split("'")[1]] if "'" in field else self.machine.name
            else:
                variables[one["name"]] = one.get("value", "")
        environment = [f"{name}={value}" for name, value in (variables | more).items()]
        kept = ",".join(["-all", *(f"+{name}" for name in CAPABILITIES)])
        return ["env", "-i", *environment, "setpriv", f"--bounding-set={kept}", "--inh-caps=-all", *arguments]

    def run(self, *arguments: str, seconds: float = 120, **more: str) -> subprocess.CompletedProcess[str]:
        """A command in the pod's first container (`kubectl exec`)."""
        return self.machine.run(*self.command(self.container, *arguments, **more), seconds=seconds)

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """The pod's own life: its init containers to their end, then its container."""
        for one in self._spec["spec"].get("initContainers", ()):
            done = self.machine.run(*self.command(one, *one["command"], *one["args"]), seconds=200)
            assert done.returncode == 0, done.stdout
        whole = self.command(self.container, *self.container["command"], *self.container["args"])
        with log.open("wb") as output:
            return subprocess.Popen(self.machine.command(whole), stdout=output, stderr=output)

    def ready(self) -> bool:
        """Whether a kubelet would find it alive and ready."""
        probes = (self.container[name]["exec"]["command"] for name in ("livenessProbe", "readinessProbe"))
        return all(self.run(*probe).returncode == 0 for probe in probes)


def test_the_operator_starts_our_gates_and_its_probes_and_services_reach_past_them(made):
    answer, objects = made
    head, *workers = answer["pods"]
    assert "ray start --head " in head["spec"]["containers"][0]["args"][0]
    for pod in workers:
        assert "--address=trainguard-head:6390 " in pod["spec"]["containers"][0]["args"][0]
    for pod in answer["pods"]:
        variables = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
        assert variables["RAY_START_HOOK"] == "compute_guard.ray_plugin.start.hook"
        assert variables["COMPUTE_GUARD_PROFILE"] == "hardened"
        assert "/var/run/secrets/kubernetes.io/serviceaccount" in {
            mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]
        }
    labels = head["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"].items() <= labels.items()
    chosen = objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert all(chosen.items() <= pod["metadata"]["labels"].items() for pod in answer["pods"])
    served = {port["port"] for port in answer["service"]["spec"]["ports"]}
    assert {6379, 8265} <= served  # the wait for the GCS, and the Job API


@pytest.fixture
def pods(made, tmp_path):
    """A head and a worker, started as their manifest says and ready."""
    if reason := obstacle():
        pytest.skip(reason)
    answer, objects = made
    secret = objects["Secret"]["stringData"]
    with Machines() as lan:
        found = [
            Pod(lan.add(name), pod, secret) for name, pod in zip(("h", "w"), answer["pods"], strict=True)
        ]
        names = f"{found[0].machine.address} trainguard-head {answer['fqdn']}"
        for pod in found:
            pod.machine.run(
                "sh", "-c", f"echo {names} >> /etc/hosts; echo nameserver 127.0.0.1 > /etc/resolv.conf"
            )
        for pod in found:
            log = tmp_path / f"{pod.machine.name}.log"
            life = pod.start(log)
            wait_until(
                lambda pod=pod, life=life: life.poll() is not None or pod.ready(),
                seconds=200,
                seen=log.read_text,
            )
            assert life.poll() is None, log.read_text()
        yield found


def test_the_pods_commands_make_a_cluster_that_doctor_finds_guarded(pods):
    head, worker = pods
    said = head.run("trainguard", "doctor").stdout
    assert "its raylet beside the gate" in said, said
    assert "hardened, as configured" in said, said
    assert [line for line in said.splitlines() if line.startswith("broken")] == []
    issued = head.run("trainguard", "tenant", "issue", "acme", "--user", "ada").stdout
    token = issued.strip().splitlines()[-1]
    said = submitted(head, token, "python", "-c", PROGRAM)
    assert f"ran on {worker.machine.name} 61" in said, said
    assert "credential is not known here" in submitted(head, "tg_0123456789abcdef_none", "true")


def submitted(head: Pod, token: str, *entrypoint: str) -> str:
    """Submit with the credential ``token``: what Ray's own client said."""
    to = {"RAY_ADDRESS": "compute_guard://127.0.0.1:8265", "TRAINGUARD_TOKEN": token}
    return head.run("ray", "job", "submit", "--entrypoint-num-cpus", "1", "--", *entrypoint, **to).stdout
