"""``python -m compute_guard.ray_plugin.gates head|node CONFIG [LOG]``: with a LOG, kept running."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from compute_guard.ray_plugin.gates.front import hold
from compute_guard.ray_plugin.gates.process import keep_running, run, unchanged
from compute_guard.ray_plugin.gates.settings import HeadConfig, NodeConfig
from guard_core.errors import GuardError

LATER = (
    *("aiohttp.web", "alembic.command", "cryptography.x509", "sqlalchemy.dialects.sqlite", "sqlalchemy.orm"),
    *("compute_guard.quota.file", "guard_core.policy.embedded", "guard_core.policy.gate", "regorus"),
    *(
        "guard_core.policy.lifecycle.active",
        "guard_core.policy.lifecycle.opening",
        "guard_core.storage.tables",
    ),
)
"""What a head imports when it opens its home, most of the time it takes to start: the keeper has it ready."""


def role_of(name: str) -> Callable[[Path], Awaitable[None]]:
    """What a gate does, given its configuration."""
    if name == "head":
        from compute_guard.ray_plugin.gates.head import serve_head

        for module in LATER:
            importlib.import_module(module)
        _know_the_policies()
        return serve_head
    if name == "node":
        from compute_guard.ray_plugin.gates.node import serve_node

        return serve_node
    raise SystemExit(f"{name!r} is no gate; use head or node")


def _know_the_policies() -> None:
    """Check the policies once. What was found is remembered by their text, in every fork of this process too.

    That is most of what a head does before it serves. A fault is the head's own to tell, not the keeper's.
    """
    from guard_core.config import load_settings
    from guard_core.policy.engine import accepted, bundle_in_force

    with contextlib.suppress(GuardError):
        accepted(bundle_in_force(load_settings()))


def main() -> None:
    """Entry point."""
    name, config = sys.argv[1], Path(sys.argv[2])
    serve = role_of(name)
    if len(sys.argv) > 3:
        with contextlib.suppress(OSError):  # a port that is taken is the gate's own to tell
            hold((HeadConfig if name == "head" else NodeConfig).load(config).listens)
        title = f"{sys.executable} -m compute_guard.ray_plugin.gates {name} {config}"
        keep_running(lambda: serve(config), title, Path(sys.argv[3]), unchanged(config))
    else:
        run(lambda: serve(config))


main()
