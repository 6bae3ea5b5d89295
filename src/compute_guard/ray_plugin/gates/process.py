"""Running a gate for good: started again when it dies, ended with the cluster it guards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)
RESTART_SECONDS = 0.1


def keep_running(command: Sequence[str], log: Path, watched: Callable[[], bool]) -> None:
    """Run ``command``, again whenever it ends, while ``watched`` holds. Returns after SIGTERM or SIGINT."""
    stop = False
    child: subprocess.Popen[bytes] | None = None

    def end(_number: int, _frame: object) -> None:
        nonlocal stop
        stop = True
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    while not stop and watched():
        with log.open("ab") as output:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        while child.poll() is None and not stop:
            if not watched():
                child.terminate()
                break
            time.sleep(0.05)
        child.wait()
        if not stop:
            time.sleep(RESTART_SECONDS)


def start_kept(module: str, config: Path, log: Path) -> int:
    """Start `keep_running` for a gate module in a session of its own; its process id."""
    done = subprocess.Popen(
        [sys.executable, "-m", "compute_guard.ray_plugin.gates", module, str(config), str(log)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return done.pid


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a gate's event loop until it is told to end."""
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

    asyncio.run(body())
