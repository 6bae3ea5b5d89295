"""Running a gate for good: started again when it dies, ended with the cluster it guards.

The keeper imports what the gate needs and forks: a gate that died serves again in a tenth of a second, where
a new interpreter would take seconds to import Ray's messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

from compute_guard.ray_plugin.gates.precedence import go_first

logger = logging.getLogger(__name__)
LOOK_SECONDS = 0.25
"""How often the keeper looks whether there is still something to guard; its gate's end it is told at once."""
RESTART_SECONDS = 0.5
SWITCH_SECONDS = 0.0005
"""How long a thread of the head's (it reads the ledger, asks policy) keeps the event loop waiting; Python's
own 5 ms would be paid at each of the waits that one call has."""
SHORT_SECONDS = 1.0
"""A gate that ends sooner than this is started again after `RESTART_SECONDS`, any other one at once."""
ORPHAN_SECONDS = 1.0
"""How often a gate looks itself whether there still is a cluster to guard."""


def keep_running(
    main: Callable[[], Awaitable[None]], title: str, log: Path, watched: Callable[[], bool]
) -> None:
    """Run ``main`` in a process called ``title``, again whenever that ends, while ``watched`` holds.

    Returns after SIGTERM or SIGINT. Call it from a process with one thread.
    """
    stop = False
    child = 0

    def end(_number: int, _frame: object) -> None:
        nonlocal stop
        stop = True
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    while not stop and watched():
        begun = time.monotonic()
        ended, held = os.pipe()  # the gate alone holds the other end, as long as it lives
        child = os.fork()
        if child == 0:
            os.close(ended)
            _be(main, title, log, watched)
        os.close(held)
        asked = False
        while not select.select([ended], [], [], LOOK_SECONDS)[0]:
            if not asked and (stop or not watched()):
                asked = True
                os.kill(child, signal.SIGTERM)
        os.close(ended)
        os.waitpid(child, 0)
        child = 0
        if not stop and time.monotonic() - begun < SHORT_SECONDS:
            time.sleep(RESTART_SECONDS)


def _be(main: Callable[[], Awaitable[None]], title: str, log: Path, watched: Callable[[], bool]) -> NoReturn:
    """Become the gate."""
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        from ray._raylet import setproctitle  # type: ignore[attr-defined]  # it is compiled

        setproctitle(title)
        sys.setswitchinterval(SWITCH_SECONDS)
        # What is imported is never garbage, and looking through it takes tens of milliseconds.
        gc.freeze()
        go_first()
        run(lambda: _while(watched, main()))
        status = 0
    except BaseException:
        logging.exception("the gate ended")
    finally:
        os._exit(status)


async def _while(watched: Callable[[], bool], serving: Awaitable[None]) -> None:
    """Serve while ``watched`` holds, also when what keeps the gate was killed: nobody else ends it then."""
    task = asyncio.ensure_future(serving)
    try:
        while not task.done() and watched():
            await asyncio.wait([task], timeout=ORPHAN_SECONDS)
    finally:
        task.cancel()
    await task


def unchanged(file: Path) -> Callable[[], bool]:
    """Whether ``file`` still is what it was at this call, as a question to be asked again and again.

    It is not when it is gone, and not when it was written anew: after ``ray stop`` the next ``ray start`` on
    this machine writes its own, and its gate needs the ports.
    """

    def mark() -> tuple[int, int] | None:
        try:
            found = file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    first = mark()
    return lambda: first is not None and mark() == first


def start_kept(module: str, config: Path, log: Path) -> int:
    """Start `keep_running` for a gate module in a session of its own; its process id."""
    with log.open("ab") as output:
        done = subprocess.Popen(
            [sys.executable, "-m", "compute_guard.ray_plugin.gates", module, str(config), str(log)],
            # A process with threads cannot be forked safely, and a gate has no use for numpy's.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )
    return done.pid


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a gate's event loop until it is told to end."""
    import uvloop

    logging.basicConfig(
        level=os.environ.get("TRAINGUARD_GATE_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )

    async def body() -> None:
        task = asyncio.ensure_future(main())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    uvloop.run(body())
