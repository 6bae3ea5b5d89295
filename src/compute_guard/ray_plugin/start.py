"""``RAY_START_HOOK=compute_guard.ray_plugin.start.hook``: makes ``ray start`` start a guarded node.

Runs inside ``ray start`` before any of Ray's processes; an exception here stops the start, so a node that
cannot be guarded does not come up.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from compute_guard.admission.ray_body import GATED, PROFILE
from compute_guard.ray_plugin.ports import choose_agent_ports
from guard_core.errors import UserError

BOOTSTRAP = Path(__file__).parent / "bootstrap"
_DEFAULT_PORT = 6379
PATIENCE = {
    # A raylet ends itself when it first needs the agent that prepares environments and does not find it for
    # this long (30 s as shipped), or the GCS (5 s).
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
}
"""For a busy machine, where nobody set them: it is slow, not broken."""


def hook(params: Any, head: bool) -> None:
    """Called by Ray with its RayParams. Raises UserError when the environment would leave the node open."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise UserError("a guarded node needs Ray's token mode; set RAY_AUTH_MODE=token")
    if not os.environ.get("TRAINGUARD_HOME"):
        raise UserError("a guarded node must know its home; set TRAINGUARD_HOME to an absolute path")
    os.environ["PYTHONPATH"] = guarded_python_path(os.environ.get("PYTHONPATH", ""))
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    choose_agent_ports(params)
    os.environ.pop("TRAINGUARD_TOKEN", None)  # a person's credential has no business in Ray's processes
    if head:
        # Ray Client would be a second door beside the Job API, without submissions to admit.
        params.ray_client_server_port = None
    if os.environ.get(PROFILE) in GATED:
        from compute_guard.ray_plugin.gates.setup import guard_head, guard_node

        if head:
            guard_head(params, _gcs_port(sys.argv))
        else:
            guard_node(params)


def _gcs_port(arguments: list[str]) -> int:
    """The ``--port`` of ``ray start --head``: Ray puts it into its parameters only after the hook."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--port="):
            return int(argument.partition("=")[2])
        if argument == "--port" and index + 1 < len(arguments):
            return int(arguments[index + 1])
    return _DEFAULT_PORT


def guarded_python_path(current: str) -> str:
    """``current`` with the bootstrap folder first."""
    rest = [part for part in current.split(os.pathsep) if part and part != str(BOOTSTRAP)]
    return os.pathsep.join([str(BOOTSTRAP), *rest])
