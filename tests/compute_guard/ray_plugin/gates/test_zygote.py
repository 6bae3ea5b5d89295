"""Workers that are forked: from a real zygote, by the real launcher, as Ray's own worker program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("ray")

from compute_guard.ray_plugin.gates import launcher, newborn, zygote

PYTHON = "/usr/bin/python"
SAME = {"LANG": "C", "PYTHONPATH": "/boot"}


def no(environment: dict[str, str] | None = None, *loaded: str, **context: object) -> str:
    return newborn.why_not(context, {**SAME, **(environment or {})}, SAME, PYTHON, loaded)


def test_what_is_read_after_the_fork_may_differ():
    assert no() == ""
    assert no({"RAY_JOB_ID": "01000000", "RAY_AUTH_TOKEN": "x", "RAY_CLUSTER_NAME": "tenant-acme"}) == ""
    assert no(env_vars={"RAY_BACKEND_LOG_LEVEL": "debug"}) == ""
    assert no(env_vars={"OMP_NUM_THREADS": "4", "COLOUR": "red"}, py_executable=PYTHON) == ""
    assert no(command_prefix=["cd", "/work", "&&"]) == ""


def test_what_was_read_before_the_fork_may_not():
    assert "LANG" in no({"LANG": "de_DE.UTF-8"})
    assert "LD_PRELOAD" in no(env_vars={"LD_PRELOAD": "/tmp/x.so"})
    assert "PYTHONHASHSEED" in no(env_vars={"PYTHONHASHSEED": "1"})
    assert "Python of its own" in no(py_executable="/env/bin/python")
    assert "prefix" in no(command_prefix=["source", "activate", "&&"])
    assert "entrypoint" in no(override_worker_entrypoint="/in/container.py")


def test_a_working_directory_may_not_hide_what_is_imported_already(tmp_path):
    there = {"PYTHONPATH": f"{tmp_path}:/boot"}
    assert no(there, "yaml") == ""
    (tmp_path / "yaml.py").touch()
    assert "own yaml" in no(there, "yaml")
    assert no(there, "json") == ""
    (tmp_path / "sitecustomize.py").touch()
    assert "sitecustomize" in no(there, "json")
    assert "relative" in no({"PYTHONPATH": "lib:/boot"})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a node with a zygote, and word for the job 01000000 of acme."""
    folder = tmp_path_factory.mktemp("node") / "guard"
    (folder / "jobs").mkdir(parents=True, mode=0o700)
    facts = {"python": sys.executable, "port": 2, "raylet_port": 1, "agent_job": ""}
    (folder / "launcher.json").write_text(json.dumps(facts))
    word = {"tenant": "acme", "workload": "w", "environment": {"WHOSE": "acme"}, "uid": None, "groups": []}
    (folder / "jobs" / "01000000").write_text(json.dumps(word))
    started = zygote.start(folder)
    deadline = time.monotonic() + 60
    while not (folder / zygote.SOCKET).exists():
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    yield folder
    started.kill()
    started.wait()


def launched(
    node: Path, *arguments: str, scripts: Path | None = None, **environment: str
) -> subprocess.Popen[str]:
    """The launcher, as a raylet starts it, with Ray's two scripts or those in a folder."""
    import ray._private.workers

    scripts = scripts or Path(ray._private.workers.__file__).parent
    command = [sys.executable, "-I", "-S", launcher.__file__]
    command += [str(scripts / "setup_worker.py"), str(scripts / "default_worker.py"), *arguments]
    return subprocess.Popen(
        command,
        env={**os.environ, "COMPUTE_GUARD_NODE": str(node), "RAY_JOB_ID": "01000000", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_worker_is_rays_own_program_and_its_starter_ends_with_it(node):
    worker = launched(node, "--language=PYTHON", "--help")
    said, _ = worker.communicate(timeout=60)
    assert said.startswith("usage: default_worker.py"), said


MIRROR = """
import atexit, json, os, resource, signal, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
told = ("Uid", "Gid", "Groups", "NoNewPrivs", "CapEff", "CapBnd", "SigBlk", "SigIgn")
umask = os.umask(0)
seen = {
    **{name: status[name].split() for name in told},
    "argv": sys.argv,
    "path": sys.path,
    "names": [__file__, __name__, sys.modules["__main__"].__name__],
    "environment": {k: v for k, v in os.environ.items() if k not in ("_", "SHLVL", "OLDPWD")},
    "cwd": os.getcwd(),
    "umask": umask,
    "nice": os.nice(0),
    "flags": str(sys.flags),
    "limits": [resource.getrlimit(kind) for kind in range(12)],
    "oom": open("/proc/self/oom_score_adj").read(),
    "handlers": [str(signal.getsignal(number)) for number in (2, 13, 15, 17)],
    "readable": os.access("/proc/self/environ", os.R_OK),
    "session": os.getsid(0),
    "group": os.getpgid(0),
}
atexit.register(lambda: print(json.dumps(seen), flush=True))
sys.exit(3)
"""


def mirrored(
    node: Path, scripts: Path, variables: Mapping[str, str] | None = None, **environment: str
) -> dict[str, object]:
    """What a worker with these further ``env_vars`` sees of itself."""
    session = node.parent / "session"
    context = {
        "env_vars": {"COLOUR": "red", "BOTH": "${COLOUR}${NO_SUCH}", **(variables or {})},
        "command_prefix": ["cd", str(scripts), "&&"],
    }
    worker = launched(
        node,
        f"--serialized-runtime-env-context={json.dumps(context)}",
        "--language=PYTHON",
        f"--object-store-name={session}/sockets/plasma_store",
        "--node-manager-port=1",
        scripts=scripts,
        **environment,
    )
    said, _ = worker.communicate(timeout=60)
    seen: dict[str, object] = json.loads(said.splitlines()[-1])
    return seen


@pytest.fixture
def workers(node: Path) -> Iterator[Path]:
    """A folder with Ray's set-up script and a worker program that tells what it sees."""
    import ray._private.workers

    folder = Path(tempfile.mkdtemp(prefix="tg-workers-"))  # where other users can read it
    folder.chmod(0o755)
    (folder / "default_worker.py").write_text(MIRROR)
    shutil.copy(Path(ray._private.workers.__file__).with_name("setup_worker.py"), folder)
    session = node.parent / "session"
    for name in ("sockets", "runtime_resources", "logs"):
        (session / name).mkdir(parents=True, exist_ok=True)
    (session / "sockets" / "plasma_store").touch()
    yield folder
    shutil.rmtree(folder)


def test_a_forked_worker_finds_itself_as_one_that_was_started_the_long_way(node, workers):
    forked = mirrored(node, workers)
    # A variable that only the long way can honour, and that changes nothing else.
    longer = mirrored(node, workers, PYTHON_NOTHING="1")
    assert longer["environment"].pop("PYTHON_NOTHING") == "1"
    for seen in (forked, longer):
        del seen["session"], seen["group"]
    assert forked == longer
    assert forked["environment"]["BOTH"] == "red" and forked["environment"]["WHOSE"] == "acme"
    assert forked["NoNewPrivs"] == ["1"] and "--node-manager-port=2" in forked["argv"]


def test_workers_share_a_session_that_is_not_the_gates_and_each_ends_with_what_it_started(node, workers):
    one, two = mirrored(node, workers), mirrored(node, workers)
    assert one["session"] == two["session"] != os.getsid(0), "the CPU is shared among sessions first"
    assert one["group"] != two["group"]


def test_a_worker_runs_no_more_eagerly_than_the_nodes_workers_do(node, workers):
    def kept(niceness: str, **of_the_node: str) -> object:
        context = json.dumps({"env_vars": {"RAY_worker_niceness": niceness}})
        changed = launcher.without_haste([launcher.CONTEXT + context], of_the_node)
        return json.loads(changed[0].removeprefix(launcher.CONTEXT))["env_vars"].get("RAY_worker_niceness")

    assert kept("19") == "19" and kept("6", RAY_worker_niceness="5") == "6" and kept("high") == "high"
    assert kept("0") is None and kept("4", RAY_worker_niceness="5") is None
    seen = mirrored(node, workers, {"RAY_worker_niceness": "0"})
    assert "RAY_worker_niceness" not in seen["environment"], "Ray's, for the supervisor, left to its workers"


def test_a_jobs_supervisor_keeps_the_priority_that_ray_gives_it(node, workers):
    word = json.loads((node / "jobs" / "01000000").read_text())
    (node / "credentials").mkdir(exist_ok=True)
    (node / "credentials" / ("0" * 16)).write_text(json.dumps({**word, "supervisor": True}))
    variables = {"RAY_worker_niceness": "0", "TRAINGUARD_TOKEN": f"tg_{'0' * 16}_secret"}
    seen = mirrored(node, workers, variables, RAY_JOB_ID="09000000")
    assert seen["environment"]["RAY_worker_niceness"] == "0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others")
def test_a_forked_worker_is_its_tenants_before_it_does_anything(node, workers):
    word = json.loads((node / "jobs" / "01000000").read_text())
    (node / "jobs" / "02000000").write_text(json.dumps({**word, "uid": 61_777, "groups": [61_900]}))
    seen = mirrored(node, workers, RAY_JOB_ID="02000000")
    assert seen["Uid"] == seen["Gid"] == ["61777"] * 4 and seen["Groups"] == ["61900"]
    assert seen["NoNewPrivs"] == ["1"] and int(seen["CapEff"][0], 16) == 0 and seen["umask"] == 0o077
    assert seen["readable"], "a process must be able to look at itself"


OPENS = """
import atexit, os, sys
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
def closed(file):
    try: os.fstat(file)
    except OSError: return True
atexit.register(lambda: print("closed:", [file for file in files if closed(file)], flush=True))
sys.exit(0)
"""


def test_what_a_worker_has_opened_stays_open_while_it_ends(node, workers):
    (workers / "default_worker.py").write_text(OPENS)
    others = [launched(node, "--language=PYTHON", scripts=workers) for _ in range(3)]
    said = [worker.communicate(timeout=60)[0].splitlines()[-1] for worker in others]
    assert said == ["closed: []"] * 3, "the zygote's own files had these numbers"


def test_what_cannot_be_forked_is_started_the_long_way(node):
    worker = launched(node, "--language=PYTHON", "--help", PYTHONHASHSEED="7")
    said, _ = worker.communicate(timeout=60)
    assert said.startswith("usage: setup_worker.py"), said
