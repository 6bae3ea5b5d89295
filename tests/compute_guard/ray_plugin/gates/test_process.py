"""A gate is kept running: started again when it is killed, ended with its keeper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard_core.files import write_atomic

pytest.importorskip("ray")

KEEPER = """
import asyncio, gc, os, sys
from pathlib import Path
from compute_guard.ray_plugin.gates.process import keep_running, unchanged
folder = Path(sys.argv[1])
async def gate():
    quick = sys.getswitchinterval() < 0.001 and gc.get_freeze_count() > 0
    print("up, and threads and garbage keep it waiting" + " no more" * quick, flush=True)
    (folder / "pid").write_text(str(os.getpid()))
    await asyncio.sleep(3600)
keep_running(gate, "the gate of the test", folder / "log", unchanged(folder / "watched"))
"""


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / "watched").touch()
    started = subprocess.Popen([sys.executable, "-c", KEEPER, str(tmp_path)])
    yield started
    started.kill()
    started.wait()


def another(folder: Path, than: int = 0) -> int:
    """The process id of the gate, once it is not ``than``."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        file = folder / "pid"
        if file.exists() and (text := file.read_text()) and int(text) != than:
            return int(text)
        time.sleep(0.02)
    raise TimeoutError("the gate did not come up")


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.02)
    return False


def test_a_killed_gate_serves_again_and_ends_when_what_it_guards_is_gone(keeper, tmp_path):
    first = another(tmp_path)
    os.kill(first, signal.SIGKILL)
    second = another(tmp_path, first)
    assert (tmp_path / "log").read_text() == 2 * "up, and threads and garbage keep it waiting no more\n"
    assert Path(f"/proc/{second}/cmdline").read_text().startswith("the gate of the test")
    (tmp_path / "watched").unlink()
    assert keeper.wait(timeout=20) == 0
    assert gone(second)


def test_a_keeper_that_is_told_to_end_ends_its_gate(keeper, tmp_path):
    gate = another(tmp_path)
    keeper.terminate()
    assert keeper.wait(timeout=20) == 0
    assert gone(gate)


def test_a_gate_whose_keeper_was_killed_serves_on_and_ends_with_what_it_guards(keeper, tmp_path):
    gate = another(tmp_path)
    keeper.kill()
    keeper.wait()
    assert Path(f"/proc/{gate}").exists()
    (tmp_path / "watched").unlink()
    assert gone(gate)


def test_a_gate_gives_way_to_the_next_start_on_its_machine(keeper, tmp_path):
    gate = another(tmp_path)
    write_atomic(tmp_path / "watched", b"", mode=0o600)  # as `ray start` after `ray stop` does
    assert keeper.wait(timeout=20) == 0
    assert gone(gate)
