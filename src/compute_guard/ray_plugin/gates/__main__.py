"""``python -m compute_guard.ray_plugin.gates head|node CONFIG [LOG]``: with a LOG, kept running."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Entry point."""
    role, config = sys.argv[1], Path(sys.argv[2])
    if len(sys.argv) > 3:
        from compute_guard.ray_plugin.gates.process import keep_running

        command = [sys.executable, "-m", "compute_guard.ray_plugin.gates", role, str(config)]
        keep_running(command, Path(sys.argv[3]), config.exists)
        return
    from compute_guard.ray_plugin.gates.process import run

    if role == "head":
        from compute_guard.ray_plugin.gates.head import serve_head

        run(lambda: serve_head(config))
    elif role == "node":
        from compute_guard.ray_plugin.gates.node import serve_node

        run(lambda: serve_node(config))
    else:
        raise SystemExit(f"{role!r} is no gate; use head or node")


main()
