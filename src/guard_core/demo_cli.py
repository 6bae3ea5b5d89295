"""``trainguard demo``: the main job, end to end, on embedded defaults.

The demo is an example like any other (``examples/demo`` in the repository, packaged beside the kernel in a
wheel) and uses the public commands and APIs only; this module finds it and runs it in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from guard_core.errors import UserError


def demo_folder() -> Path:
    """The folder that holds ``run.py``: packaged with a wheel, or the repository's in an editable install."""
    here = Path(__file__).resolve()
    for candidate in (here.parent / "_demo", here.parents[2] / "examples" / "demo"):
        if (candidate / "run.py").is_file():
            return candidate
    raise UserError(
        "the demo's files are missing from this installation; reinstall trainguard from its wheel"
    )


@click.command()
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".demo"),
    show_default=True,
    help="Folder for everything the demo leaves: data, state, report, MLflow database, audit log.",
)
@click.option("--keep-cluster", is_flag=True, help="Leave the local Ray cluster running at the end.")
def demo(into: Path, keep_cluster: bool) -> None:
    """Run the main job end to end: data, poisoning, Ray admission, GPU incident, audit."""
    command = [sys.executable, str(demo_folder() / "run.py"), "--into", str(into.resolve())]
    if keep_cluster:
        command.append("--keep-cluster")
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)
