"""A process that has imported what Ray needs, and forks into the workers of a node: in a tenth of a second.

Ray starts a worker by importing itself twice, each time with all it needs (half a CPU second), and hides that
behind workers it starts before anybody asks. On a guarded node a worker without a lease would be one without
a tenant, so none is started ahead; instead this one process, which is nobody's and runs no code of a tenant,
is ready to become anybody's. The launcher hands it a worker's command line, environment and open files; the
child becomes the tenant's (:func:`launcher.confine`) before it does anything for it. Ray itself is imported
by the child, since it reads job, domain and all its settings from the environment when it is imported.

Only what is the same for every worker may be inherited: :func:`newborn.why_not` says when it is not, and the
launcher then starts the worker the long way. The zygote reads no order and holds no token. What its children
share is the layout of their memory and the key of Python's string hashes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from compute_guard.cluster.processes import MARKER
from compute_guard.ray_plugin.gates.newborn import Inherited, live
from compute_guard.ray_plugin.gates.precedence import go_like_others

SOCKET = "zygote"
_PR_SET_PDEATHSIG = 1


class Zygote:
    """Serves launchers on a socket in ``folder``: one fork each."""

    def __init__(self, folder: Path, python: str) -> None:
        self._folder = folder
        self._python = python
        self._poll = select.epoll()
        self._ends: tuple[socket.socket, ...] = ()
        self._lines: dict[int, socket.socket] = {}
        self._children: dict[int, int] = {}

    def run(self) -> NoReturn:
        """Serve until killed. Raises OSError when the socket cannot be had."""
        address = self._folder / SOCKET
        address.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(address))
        address.chmod(0o600)
        listener.listen(64)  # launchers that come while Ray is imported wait here
        inherited = self._prepared()
        wake, waker = socket.socketpair()
        self._ends = (listener, wake, waker)
        for end in self._ends:
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._poll.register(listener, select.EPOLLIN)
        self._poll.register(wake, select.EPOLLIN)
        while True:
            for number, _ in self._poll.poll():
                if number == listener.fileno():
                    with contextlib.suppress(OSError):
                        self._serve(inherited, listener.accept()[0])
                elif number == wake.fileno():
                    wake.recv(4096)
                    self._reap()
                elif number in self._lines:
                    self._abandoned(number)

    def _prepared(self) -> Inherited:
        path = tuple(sys.path[1:])  # without the folder that `python -m` puts first
        for name in _wanted_by_ray():
            with contextlib.suppress(ImportError):  # a module of this version of Ray's for another platform
                importlib.import_module(name)
        if len(list(Path("/proc/self/task").iterdir())) != 1:
            raise RuntimeError("a module that Ray needs started threads, so workers start the long way")
        gc.collect()
        gc.freeze()
        return Inherited(
            folder=self._folder,
            python=self._python,
            environment=dict(os.environ),
            loaded=frozenset(name.partition(".")[0] for name in sys.modules),
            path=path,
        )

    def _serve(self, inherited: Inherited, line: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            self._let_go()
            live(inherited, line)
        self._lines[line.fileno()] = line
        self._children[pid] = line.fileno()
        self._poll.register(line, select.EPOLLRDHUP)

    def _let_go(self) -> None:
        """Close what is the zygote's, in a child: when the worker ends, these objects end with its stack, and
        would close the files that have their numbers by then."""
        self._poll.close()
        for own in (*self._ends, *self._lines.values()):
            own.close()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                self._forget(self._children.pop(pid, -1))

    def _forget(self, number: int) -> None:
        line = self._lines.pop(number, None)
        if line is not None:
            self._poll.unregister(line)
            line.close()

    def _abandoned(self, number: int) -> None:
        """The raylet killed the process it had started: so goes the one that stands for it."""
        self._forget(number)
        pid = next((pid for pid, line in self._children.items() if line == number), None)
        if pid is None:
            return
        self._children[pid] = -1
        for kill in (os.killpg, os.kill):  # it may not have come to making a group of its own
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)


def _wanted_by_ray() -> list[str]:
    """Modules that Ray's worker program imports and that are not Ray's own, in the order of their import.

    A child of its own finds out: Ray itself reads the worker's job and tenant when it is imported.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            before = set(sys.modules)
            import ray._private.node
            import ray.actor
            from ray._private.async_compat import try_install_uvloop

            try_install_uvloop()
            home = str(Path(ray.__file__).parent)  # with what Ray brings along
            found = [
                name
                for name, module in sys.modules.items()
                if name not in before
                and name.partition(".")[0] != "ray"
                and not str(getattr(module, "__file__", None) or "").startswith(home)
            ]
            os.write(writer, "\n".join(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        names = answer.read().split()
    os.waitpid(pid, 0)
    return names


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the zygote of a node, whose launchers find it in ``folder``."""
    # Its children's /proc/self/environ shows this, whatever their environment is.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRAINGUARD_", "COMPUTE_GUARD_", "RAY_AUTH_TOKEN")) or name == MARKER
    }
    command = [sys.executable, "-m", __name__, str(folder), sys.executable]
    # A session of its own, which is its children's too: as far as the kernel shares the CPU among sessions,
    # the gate's share is not theirs.
    return subprocess.Popen(
        command, env=environment, cwd="/", stdin=subprocess.DEVNULL, start_new_session=True
    )


def main() -> NoReturn:
    """``python -m compute_guard.ray_plugin.gates.zygote FOLDER PYTHON``: ends with its parent."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    go_like_others()
    Zygote(Path(sys.argv[1]), sys.argv[2]).run()


if __name__ == "__main__":
    main()
