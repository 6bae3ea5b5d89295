"""Started in place of Python on a guarded node: every worker begins here, as its tenant.

Runs isolated (``-I -S``) and before any code of a tenant. Which tenant a worker is for says the word its
node's lease gate left for the job (or, for Ray's job supervisor, for the submission's credential); without
such a word the worker is made to refuse. All other Python processes of the node pass through unchanged.

Only the standard library: this must start in milliseconds.
"""

from __future__ import annotations

import json
import os
import re
import sys

TYPE_CHECKING = False  # typing itself costs start time
if TYPE_CHECKING:
    from typing import Any

FOLDER = os.environ.get("COMPUTE_GUARD_NODE", "")
DENY = "compute_guard.ray_plugin.gates.refusal.refuse"
CONTEXT = "--serialized-runtime-env-context="
NICENESS, RAYS_NICENESS = "RAY_worker_niceness", 15
"""Ray's setting of its workers' nice value, and what that is where nobody set it."""
ADDRESS_FILE = "ray_current_cluster"
_CREDENTIAL = re.compile(r"tg_([0-9a-f]{16})_")
_PRIVATE = (
    "COMPUTE_GUARD_CGROUP",
    "COMPUTE_GUARD_NODE",
    "COMPUTE_GUARD_GATE",
    "COMPUTE_GUARD_LINK",
    "COMPUTE_GUARD_POOL",
)
_PR_SET_NO_NEW_PRIVS = 38
ZYGOTE_SECONDS = 20.0
"""How long a worker waits for a zygote that is starting or busy before it is started the long way."""


def _read(name: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(FOLDER, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123 - start time
            found: dict[str, Any] = json.load(file)
            return found
    except (OSError, ValueError):
        return None


def facts_for(arguments: list[str], environment: dict[str, str]) -> dict[str, Any] | None:
    """Whose worker this is: the job's facts, the submission's, or None."""
    job = environment.get("RAY_JOB_ID", "")
    if re.fullmatch(r"[0-9a-f]{8}", job) and job != "ffffffff":
        facts = _read("jobs/" + job)
        if facts is not None:
            return facts
    for argument in arguments:
        if argument.startswith(CONTEXT):
            found = _CREDENTIAL.search(argument)
            if found:
                return _read("credentials/" + found.group(1))
    return None


def moves_objects(arguments: list[str], environment: dict[str, str]) -> bool:
    """Whether this is one of Ray's own processes that write objects to disk and read them back.

    The raylet starts them for no job; they run no code of a tenant's, and their files are the raylet's.
    """
    kinds = ("--worker-type=SPILL_WORKER", "--worker-type=RESTORE_WORKER")
    return any(a in kinds for a in arguments) and environment.get("RAY_JOB_ID", "") in ("", "ffffffff")


def command(arguments: list[str], node: dict[str, Any]) -> list[str]:
    """The worker's arguments with the gate's port in place of the raylet's."""
    changed = []
    for argument in arguments:
        if argument == "--node-manager-port=" + str(node["raylet_port"]):
            argument = "--node-manager-port=" + str(node["port"])
        changed.append(argument)
    return changed


def without_haste(arguments: list[str], environment: dict[str, str]) -> list[str]:
    """The arguments of a worker that is to run no more eagerly than the node's workers do.

    Ray runs a job's supervisor, and by it the driver, ahead of the workers. Of an entrypoint that was given
    labels or resources (admission gives labels) it leaves that setting to all workers of the job
    (``JobSupervisor._get_driver_runtime_env`` in 2.60), which then take the CPU from driver, raylet and gate.
    """
    changed = []
    for argument in arguments:
        if argument.startswith(CONTEXT) and NICENESS in argument:
            context = json.loads(argument.removeprefix(CONTEXT))
            variables = context.get("env_vars") or {}
            try:
                eager = int(variables[NICENESS]) < int(environment.get(NICENESS, RAYS_NICENESS))
            except (KeyError, TypeError, ValueError):
                eager = False
            if eager:
                del variables[NICENESS]
                argument = CONTEXT + json.dumps(context)
        changed.append(argument)
    return changed


def confine(arguments: list[str], environment: dict[str, str], facts: dict[str, Any]) -> None:
    """Private temporary directory, no new privileges, own Unix user where there is one."""
    import ctypes

    uid = facts.get("uid")
    private = private_folder(facts["tenant"])
    environment["TMPDIR"] = private
    environment["HOME"] = private
    if uid is not None:
        os.chown(private, uid, uid)
        session = _let_in(arguments, facts["groups"][0])
        _give_packages(session, facts["tenant"], uid)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError("no_new_privs could not be set")
    if uid is not None:
        os.setgroups(facts["groups"])
        os.setgid(uid)
        os.setuid(uid)
        os.umask(0o077)


def private_folder(tenant: str) -> str:
    """The tenant's own folder on this node, which others can neither enter nor list."""
    parent = os.path.join(os.path.dirname(FOLDER), "tenants")  # noqa: PTH118, PTH120 - start time
    _open_to([parent], 0o711)  # whatever the umask: tenants pass through
    private = os.path.join(parent, tenant)  # noqa: PTH118 - start time
    _open_to([private], 0o700)
    return private


def join(facts: dict[str, Any]) -> None:
    """Enter the tenant's cgroup, where the node has them; what is started from here is in it too."""
    if facts.get("cgroup"):
        with open(os.path.join(facts["cgroup"], "cgroup.procs"), "w") as procs:  # noqa: PTH118, PTH123 - start time
            procs.write(str(os.getpid()))


def _let_in(arguments: list[str], group: int) -> str:
    """Let the node's tenants speak to raylet and object store, and add to the logs, not read them."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in ("--object-store-name", "--raylet-name"):
            os.chown(value, 0, group)
            os.chmod(value, 0o660)  # noqa: PTH101 - start time
            session = os.path.dirname(os.path.dirname(value))  # noqa: PTH120 - start time
    resources = os.path.join(session, "runtime_resources")  # noqa: PTH118 - start time
    # Ray makes its directories writable for everybody (`try_to_create_directory`).
    _open_to([os.path.dirname(session), session, os.path.join(session, "sockets")], 0o711)  # noqa: PTH118, PTH120
    _open_to([resources, *(entry.path for entry in os.scandir(resources) if entry.is_dir())], 0o711)
    _leave_address(arguments, os.path.dirname(session))  # noqa: PTH120 - start time
    for folder in (os.path.dirname(session), session):  # noqa: PTH120 - start time
        for entry in os.scandir(folder):
            if entry.is_file(follow_symlinks=False):
                os.chmod(entry.path, 0o644)  # noqa: PTH101 - addresses and ports, which drivers look up
    logs = os.path.join(session, "logs")  # noqa: PTH118 - start time
    # Write-only and sticky: each file stays its writer's. Ray Tune keeps its working files in `artifacts`.
    parts = (logs, *(os.path.join(logs, part) for part in ("jobs", "events", "export_events")))  # noqa: PTH118
    _open_to([*parts, os.path.join(session, "artifacts")], 0o1733)  # noqa: PTH118 - start time
    return session


def _leave_address(arguments: list[str], folder: str) -> None:
    """Write the cluster's address where drivers look it up, if ``ray start`` has not yet.

    It does so when the node is up, which may be after the first worker; its file would be root's alone until
    the next one. One that holds the same address is left as it is (``ray._private.utils.write_ray_address``).
    """
    address = next((a.partition("=")[2] for a in arguments if a.startswith("--gcs-address=")), "")
    if not address:
        return
    try:
        file = os.open(os.path.join(folder, ADDRESS_FILE), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)  # noqa: PTH118
    except FileExistsError:
        return
    os.write(file, address.encode())
    os.close(file)


def _give_packages(session: str, tenant: str, uid: int) -> None:
    """Make a tenant's unpacked working directories its own: programs write where they run."""
    import hashlib

    folder = os.path.join(session, "runtime_resources", "working_dir_files")  # noqa: PTH118 - start time
    own = "_ray_pkg_" + hashlib.sha256(tenant.encode()).hexdigest()[:16] + "_"  # as ray_body.tenant_package
    for package in os.scandir(folder) if os.path.isdir(folder) else ():  # noqa: PTH112 - start time
        if not package.name.startswith(own) or package.stat(follow_symlinks=False).st_uid == uid:
            continue
        for parent, folders, files in os.walk(package.path):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), uid, uid, follow_symlinks=False)  # noqa: PTH118
        os.chown(package.path, uid, uid, follow_symlinks=False)  # last: it says that the rest is done


def _open_to(folders: list[str], mode: int) -> None:
    for folder in folders:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - start time
        os.chmod(folder, mode)  # noqa: PTH101 - start time


def forked(arguments: list[str], environment: dict[str, str], facts: dict[str, Any]) -> bool:
    """Have the node's zygote fork this worker, and wait for its end. False when that cannot be done."""
    import socket
    from resource import getrlimit

    limits = {}
    for kind in range(16):
        try:
            limits[kind] = getrlimit(kind)
        except ValueError:
            break
    umask = os.umask(0o077)
    os.umask(umask)
    order = {
        "arguments": arguments,
        "environment": environment,
        "facts": facts,
        "cwd": os.getcwd(),  # noqa: PTH109 - start time
        "umask": umask,
        "nice": os.nice(0),
        "limits": limits,
        "oom_score_adj": _text("/proc/self/oom_score_adj"),
        "cgroup": _text("/proc/self/cgroup"),
    }
    try:
        zygote = socket.socket(socket.AF_UNIX)
        zygote.settimeout(ZYGOTE_SECONDS)
        zygote.connect(os.path.join(FOLDER, "zygote"))  # noqa: PTH118 - start time
        text = json.dumps(order).encode() + b"\n"
        sent = socket.send_fds(zygote, [text], [0, 1, 2])
        zygote.sendall(text[sent:])
        answer = json.loads(zygote.recv(4096))
    except (OSError, ValueError):
        return False
    if "pid" not in answer:
        return False
    # Raylet and zygote each see the other's end in this process: it lives as long as the worker does.
    os.dup2(zygote.detach(), 0)
    os.set_blocking(0, True)
    try:
        os.execve("/bin/cat", ["cat"], {})  # noqa: S606 - the smallest program that waits for an end
    except OSError:
        while os.read(0, 1):
            pass
    return True


def _text(file: str) -> str:
    with open(file, encoding="ascii") as content:  # noqa: PTH123 - start time
        return content.read()


def main() -> None:
    """Become what Ray wanted to start."""
    arguments, environment = sys.argv[1:], dict(os.environ)
    node = _read("launcher.json")
    if node is None:
        sys.exit("TrainGuard: this node's launcher.json cannot be read, so nothing is started")
    if not any(a.endswith(("setup_worker.py", "default_worker.py")) for a in arguments[:3]):
        if any(a.endswith("dashboard/agent.py") for a in arguments[:3]):
            environment["RAY_JOB_CONFIG_JSON_ENV_VAR"] = node["agent_job"]
        if any(a.endswith("runtime_env/agent/main.py") for a in arguments[:3]):
            os.umask(0o022)  # packages are read by their tenants; nobody can list them
        os.execve(node["python"], [node["python"], *arguments], environment)  # noqa: S606
    moves = moves_objects(arguments, environment)
    facts = None if moves else facts_for(arguments, environment)
    for name in _PRIVATE:
        environment.pop(name, None)
    if moves:
        os.execve(node["python"], [node["python"], *arguments], environment)  # noqa: S606
    arguments = command(arguments, node)
    if facts is None:
        environment["__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"] = DENY
        environment["TRAINGUARD_REFUSAL"] = (
            f"TrainGuard: no lease of job {environment.get('RAY_JOB_ID')} was admitted on this node"
        )
    if facts is not None:
        environment.pop("RAY_AUTH_TOKEN_PATH", None)
        environment.update(facts["environment"])
        if not facts.get("supervisor"):
            arguments = without_haste(arguments, environment)
        if facts["uid"] is not None:
            environment.pop("TRAINGUARD_STORAGE_URL", None)  # it may hold a password
        if forked(arguments, environment, facts):
            return
        join(facts)
        confine(arguments, environment, facts)
    os.execve(node["python"], [node["python"], *arguments], environment)  # noqa: S606


if __name__ == "__main__":
    main()
