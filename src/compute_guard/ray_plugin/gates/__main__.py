"""``python -m compute_guard.ray_plugin.gates head|node CONFIG [LOG]``: with a LOG, kept running."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from compute_guard.ray_plugin.gates.process import keep_running, run


def role_of(name: str) -> Callable[[Path], Awaitable[None]]:
    """What a gate does, given its configuration."""
    if name == "head":
        from compute_guard.ray_plugin.gates.head import serve_head

        return serve_head
    if name == "node":
        from compute_guard.ray_plugin.gates.node import serve_node

        return serve_node
    raise SystemExit(f"{name!r} is no gate; use head or node")


def main() -> None:
    """Entry point."""
    name, config = sys.argv[1], Path(sys.argv[2])
    serve = role_of(name)
    if len(sys.argv) > 3:
        title = f"{sys.executable} -m compute_guard.ray_plugin.gates {name} {config}"
        keep_running(lambda: serve(config), title, Path(sys.argv[3]), config.exists)
    else:
        run(lambda: serve(config))


main()
