"""Attempts on the machine: files, processes, ports of agents and dashboard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
from ray.core.generated import reporter_pb2

from attacker.tools import FACTS, TOKEN, Succeeded, attack, call, must_be_refused


def http(method: str, url: str, token: str, body=None) -> int:
    request = urllib.request.Request(
        url, method=method, data=None if body is None else json.dumps(body).encode()
    )
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def must_fail(method: str, url: str, token: str, body=None) -> str:
    status = http(method, url, token, body)
    if status < 400:
        raise Succeeded(f"{method} {url}: {status}")
    return str(status)


SUBMISSION = {"entrypoint": "echo stolen", "submission_id": "stolen"}


@attack
def submit_at_node_agents() -> str:
    said = []
    for agent in FACTS["agents"]:
        for token in (TOKEN, os.environ["TRAINGUARD_TOKEN"], ""):
            said.append(must_fail("POST", agent + "/api/job_agent/jobs/", token, SUBMISSION))
    return " ".join(said)


@attack
def read_anothers_log_at_an_agent() -> str:
    route = f"/api/job_agent/jobs/{FACTS['victim']['submission']}/logs"
    return " ".join(must_fail("GET", agent + route, TOKEN) for agent in FACTS["agents"])


@attack
def use_the_dashboard_with_rays_token() -> str:
    url = FACTS["dashboard"]
    hidden = ("nodes", "workers", "objects", "runtime_envs", "logs?node_ip=127.0.0.1", "actors/summarize")
    paths = ("/api/jobs/", "/nodes?view=summary", "/logs/", *(f"/api/v0/{kind}" for kind in hidden))
    return " ".join(must_fail("GET", url + path, TOKEN) for path in paths)


@attack
def list_others_state_at_the_dashboard() -> str:
    """What `ray list` asks for, with every credential there is: answered, with one's own rows only."""
    victim, counts = FACTS["victim"], []
    aimed = f"&filter_keys=job_id&filter_predicates=%3D&filter_values={victim['job']}"
    for token in (TOKEN, os.environ["TRAINGUARD_TOKEN"]):
        for kind in ("actors", "tasks", "placement_groups", "jobs"):
            for query in ("&limit=10000", aimed if kind in ("actors", "tasks") else ""):
                url = f"{FACTS['dashboard']}/api/v0/{kind}?detail=1{query}"
                request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
                with urllib.request.urlopen(request, timeout=30) as answer:
                    text = answer.read().decode()
                theirs = [name for name in ("submission", "job", "actor") if victim[name] in text]
                if theirs or os.environ["TRAINGUARD_TOKEN"] in text:
                    raise Succeeded(f"{kind}: {theirs} of the victim, or a credential, in {text[:200]}")
                counts.append(json.loads(text)["data"]["result"]["total"])
    return f"rows of one's own: {counts}"


@attack
def submit_a_job_from_a_job() -> str:
    return must_fail("POST", FACTS["dashboard"] + "/api/jobs/", os.environ["TRAINGUARD_TOKEN"], SUBMISSION)


@attack
def stop_anothers_job() -> str:
    url = FACTS["dashboard"] + f"/api/jobs/{FACTS['victim']['submission']}"
    own = os.environ["TRAINGUARD_TOKEN"]
    return " ".join([must_fail("POST", url + "/stop", own), must_fail("GET", url + "/logs", own)])


@attack
def profile_processes_through_the_agents() -> str:
    request = reporter_pb2.GetTracebackRequest(pid=1)
    said = []
    for address in FACTS["agent_grpc"]:
        said.append(must_be_refused(address, "ReporterService/GetTraceback", request))
    return " ".join(said)


@attack
def connect_as_a_ray_client() -> str:
    try:
        call(FACTS["dashboard_host"] + ":10001", "RayletDriver/Init", seconds=3)
    except grpc.RpcError as error:
        return error.code().name
    raise Succeeded("Ray Client answers")


@attack
def start_a_driver_without_the_submissions_credential() -> str:
    code = "import ray; ray.init(); print('IN', ray.get_runtime_context().get_job_id())"
    clean = {
        k: v for k, v in os.environ.items() if k not in ("RAY_JOB_CONFIG_JSON_ENV_VAR", "TRAINGUARD_TOKEN")
    }
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=60)
    if "IN " in done.stdout:
        raise Succeeded(done.stdout)
    return "the driver died: " + done.stderr[-200:]


@attack
def start_a_driver_for_anothers_submission() -> str:
    config = {"runtime_env": {}, "metadata": {"job_submission_id": FACTS["victim"]["submission"]}}
    code = "import ray; ray.init(); print('IN', ray.get_runtime_context().get_job_id())"
    changed = {**os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(config)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=changed, capture_output=True, text=True, timeout=60
    )
    if "IN " in done.stdout:
        raise Succeeded(done.stdout)
    return "the driver died"


@attack
def build_what_the_driver_asks_for_before_any_lease() -> str:
    """Ray builds a driver's runtime_env on every node when it joins, as the agent's user."""
    code = "import ray; ray.init(runtime_env={'pip': ['./evil']}); print('JOINED')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if "JOINED" in done.stdout:
        raise Succeeded(done.stdout)
    return "the driver died: " + done.stderr[-200:]


def readable(paths) -> list[str]:
    found = []
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                file.read(1)
            found.append(str(path))
        except OSError:
            continue
    return found


@attack
def steal_tokens_from_files() -> str:
    found = readable([*FACTS["secrets"], "/proc/1/environ"])
    if found:
        raise Succeeded(f"{found} can be read")
    return f"{len(FACTS['secrets'])} files are closed"


@attack
def steal_tokens_from_proc() -> str:
    own = os.getuid()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid != own and readable([entry / "environ", entry / "mem"]):
                    found.append(entry.name)
            except OSError:
                continue
    if found:
        raise Succeeded(f"environments of {found} can be read")
    return "none can be read"


@attack
def see_another_nodes_processes() -> str:
    if Path(f"/proc/{FACTS['victim']['pid']}/cmdline").exists():
        text = Path(f"/proc/{FACTS['victim']['pid']}/cmdline").read_bytes()
        if b"victim" in text:
            raise Succeeded("the victim's process is seen")
    return "not there"


@attack
def kill_or_trace_rays_processes() -> str:
    import ctypes

    hurt = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or not entry.exists():
            continue
        try:
            if entry.stat().st_uid == os.getuid():
                continue
            pid = int(entry.name)
            if ctypes.CDLL(None).ptrace(16, pid, 0, 0) == 0:
                hurt.append(f"ptrace {pid}")
            os.kill(pid, 0)
        except OSError:
            continue
        hurt.append(str(pid))
    if hurt:
        raise Succeeded(f"{hurt} can be signalled")
    return "none can be"


@attack
def become_root() -> str:
    try:
        os.setuid(0)
    except PermissionError:
        status = Path("/proc/self/status").read_text()
        assert "NoNewPrivs:\t1" in status
        return "not permitted, and no_new_privs is on"
    raise Succeeded("uid 0")


def session() -> Path:
    import ray._private.worker as worker

    return Path(worker._global_node.get_session_dir_path())


@attack
def read_others_logs() -> str:
    logs = session() / "logs"
    try:
        files = list(logs.iterdir())
    except PermissionError:
        files = []
    found = readable([*files, logs / "raylet.out", *FACTS["victim"]["logs"]])
    if found:
        raise Succeeded(f"{found} can be read")
    return "closed"


@attack
def replace_installed_code() -> str:
    resources = session() / "runtime_resources"
    targets = [resources, Path.cwd().parent, Path(sys.prefix), Path(FACTS["package"]), session()]
    for target in targets:
        try:
            (target / "evil.py").write_text("x")
        except OSError:
            continue
        raise Succeeded(f"{target} can be written")
    return "closed"


@attack
def use_another_nodes_object_store() -> str:
    import socket

    for path in FACTS["victim"]["sockets"]:
        try:
            with socket.socket(socket.AF_UNIX) as plasma:
                plasma.connect(path)
        except OSError:
            continue
        raise Succeeded(f"connected to {path}")
    return "not reachable"


@attack
def leave_a_symlink_for_root_to_follow() -> str:
    link = session() / "logs" / "evil-link.log"
    try:
        link.symlink_to(FACTS["secrets"][0])
    except OSError as error:
        return str(error)
    content = readable([link])
    link.unlink()
    if content:
        raise Succeeded("it can be read through the link")
    return "a link can be made, what it names stays closed"


@attack
def leave_a_daemon_behind() -> str:
    """Ended after the job, as the test sees."""
    subprocess.Popen(["sleep", "7777"], start_new_session=True)
    code = (
        "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); time.sleep(8888)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return "left"


@attack
def leave_a_detached_actor_behind() -> str:
    """Ended after the job, as the test sees."""
    import ray

    @ray.remote(num_cpus=0, max_restarts=-1)
    class Ghost:
        def up(self) -> bool:
            return True

    ray.get(Ghost.options(name="ghost", lifetime="detached").remote().up.remote(), timeout=30)
    ray.util.placement_group([{"CPU": 0.001}], lifetime="detached", name="ghosts").wait(10)
    return "left"
