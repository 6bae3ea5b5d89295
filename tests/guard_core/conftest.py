"""Running code in real processes of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest


@pytest.fixture
def start_python() -> Callable[[str], subprocess.Popen[str]]:
    """Start a script in a new interpreter; its stdout is a pipe."""

    def start(script: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
        )

    return start


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """Run a script in a new interpreter to its good end; returns what it printed."""

    def run(script: str) -> str:
        command = [sys.executable, "-c", textwrap.dedent(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
