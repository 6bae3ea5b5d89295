"""A process that the zygote has just forked: takes a launcher's order, and becomes that worker.

Only here is an order read. What it holds, a tenant's token among it, never enters the zygote's own memory,
of which every later child of whatever tenant has a copy.
"""

from __future__ import annotations

import array
import ctypes
import gc
import json
import logging
import os
import re
import resource
import signal
import socket
import sys
import traceback
import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from compute_guard.ray_plugin.gates import launcher

logger = logging.getLogger(__name__)
ORDER_SECONDS = 10.0
_PR_SET_DUMPABLE = 4
_UNKNOWN = re.compile(r"\$\{[A-Z0-9_]+\}")
_AT_START = ("LD_", "PYTHON", "MALLOC_", "GLIBC_", "LC_", "LANG", "TZ")
"""Beginnings of the names of variables that libc and the interpreter read when they start."""
_CUSTOMIZE = ("sitecustomize", "usercustomize")


def why_not(
    context: Mapping[str, Any],
    environment: Mapping[str, str],
    inherited: Mapping[str, str],
    python: str,
    loaded: Collection[str],
) -> str:
    """Why a worker cannot be forked; empty when it can.

    ``context`` is Ray's RuntimeEnvContext, ``environment`` the launcher's, ``inherited`` the zygote's;
    ``loaded`` are the top-level modules that are imported already, which the worker's own may not shadow.
    """
    wanted = {**environment, **context.get("env_vars", {})}
    prefix = context.get("command_prefix") or []
    if prefix and not (len(prefix) == 3 and prefix[0] == "cd" and prefix[2] == "&&"):
        return "its command has a prefix"
    if context.get("py_executable") not in (None, python):
        return "it has a Python of its own"
    if context.get("override_worker_entrypoint") or context.get("java_jars"):
        return "it has an entrypoint of its own"
    for name in {*wanted, *inherited}:
        if name.startswith(_AT_START) and name != "PYTHONPATH" and wanted.get(name) != inherited.get(name):
            return f"{name} is read when Python starts"
    for folder in added_paths(wanted, inherited):
        if not folder.startswith("/"):
            return "PYTHONPATH has a relative entry"
        try:
            names = {file.name.partition(".")[0] for file in Path(folder).iterdir()}
        except OSError:
            continue
        hidden = names.intersection((*loaded, *_CUSTOMIZE))
        if hidden:
            return f"{folder} has its own {min(hidden)}"
    return ""


def added_paths(wanted: Mapping[str, str], inherited: Mapping[str, str]) -> list[str]:
    """Entries of PYTHONPATH that the zygote does not have."""
    own = inherited.get("PYTHONPATH", "").split(os.pathsep)
    text = os.path.expandvars(wanted.get("PYTHONPATH", ""))
    return [entry for entry in text.split(os.pathsep) if text and entry not in own]


@dataclass(frozen=True, slots=True)
class Inherited:
    """What every child of a zygote starts with: its ``environment``, the ``python`` it runs, the top-level
    modules that are ``loaded``, the interpreter's ``sys.path`` and the node's folder."""

    folder: Path
    python: str
    environment: Mapping[str, str]
    loaded: frozenset[str]
    path: tuple[str, ...]


def live(inherited: Inherited, connection: socket.socket) -> NoReturn:
    """Be the worker that the launcher behind ``connection`` asks for, or tell it why not.

    Ends the process as a program's end does, with all that the worker registered for it: by SystemExit,
    which nothing on the zygote's stack may catch.
    """
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The launcher waits for the end of this descriptor, so it stays open as long as the worker lives.
        kept = os.dup2(connection.detach(), 3, inheritable=False)
        os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        order = _accepted(inherited, socket.socket(fileno=kept))
        if order is not None:
            _work(inherited, order)
    except SystemExit:
        raise
    except BaseException as error:
        traceback.print_exc()
        raise SystemExit(1) from error
    raise SystemExit(0)


def _accepted(inherited: Inherited, line: socket.socket) -> Mapping[str, Any] | None:
    """The order, its open files in place; None for one that was refused."""
    line.settimeout(ORDER_SECONDS)
    order, files = _received(line)
    no = why_not(
        _context(order["arguments"]),
        order["environment"],
        inherited.environment,
        inherited.python,
        inherited.loaded,
    )
    if not no and order["cgroup"] != Path("/proc/self/cgroup").read_text(encoding="ascii"):
        no = "it is in another control group"
    if no:
        logger.info("a worker is started the long way: %s", no)
        line.sendall(json.dumps({"no": no}).encode())
        return None
    line.sendall(json.dumps({"pid": os.getpid()}).encode())
    line.detach()
    for target, number in enumerate(files):
        os.dup2(number, target)
        os.close(number)
    return order


def _work(inherited: Inherited, order: Mapping[str, Any]) -> None:
    """What the raylet, the launcher and Ray's set-up do to a worker of its own program; then that program."""
    # A group of its own, so that all it starts can be ended with it; the session stays the zygote's. The
    # kernel shares the CPU among sessions first: workers with one each leave the driver little.
    os.setpgid(0, 0)
    os.chdir(order["cwd"])
    os.umask(order["umask"])
    Path("/proc/self/oom_score_adj").write_text(order["oom_score_adj"])
    os.nice(order["nice"] - os.nice(0))
    for kind, limits in order["limits"].items():
        resource.setrlimit(int(kind), tuple(limits))
    arguments, environment = order["arguments"], dict(order["environment"])
    launcher.FOLDER = str(inherited.folder)
    launcher.join(order["facts"])
    launcher.confine(arguments, environment, order["facts"])
    # A change of user makes a process unreadable to itself until it runs a program; this one never does.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    context = _context(arguments)
    os.environ.clear()
    os.environ.update(environment)
    for name, value in context.get("env_vars", {}).items():
        os.environ[name] = _UNKNOWN.sub("", os.path.expandvars(value))  # as Ray's `update_envs`
    if context.get("command_prefix"):
        os.chdir(context["command_prefix"][1])
    os.environ["PWD"] = os.getcwd()  # noqa: PTH109 - as the shell does that Ray starts workers with
    start = next(n for n, part in enumerate(arguments) if part.endswith("default_worker.py"))
    script, rest = arguments[start], arguments[start + 1 :]
    own = [str(Path(script).parent), *added_paths(os.environ, inherited.environment)]
    sys.path[:] = [*own, *inherited.path]
    sys.argv[:] = [script, *(part for part in rest if not part.startswith((launcher.CONTEXT, "--language=")))]
    gc.unfreeze()
    module = types.ModuleType("__main__")
    module.__file__ = script
    sys.modules["__main__"] = module
    program = compile(Path(script).read_bytes(), script, "exec", dont_inherit=True)
    exec(program, module.__dict__)  # noqa: S102 - Ray's own worker program


def _context(arguments: Iterable[str]) -> dict[str, Any]:
    found = next((part for part in arguments if part.startswith(launcher.CONTEXT)), launcher.CONTEXT)
    context: dict[str, Any] = json.loads(found.removeprefix(launcher.CONTEXT) or "{}")
    return context


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One order, a JSON line, and the files that came with its first byte."""
    text, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(3 * 4))
    files: array.array[int] = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files.frombytes(data[: len(data) - len(data) % files.itemsize])
    while text and not text.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:
            raise OSError("the launcher went away")
        text += more
    order: dict[str, Any] = json.loads(text)
    return order, list(files)
