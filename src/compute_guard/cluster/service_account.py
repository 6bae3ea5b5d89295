"""Where Ray's processes look for the authority that reviews tokens: fixed paths, as in a Kubernetes pod.

On a machine without Kubernetes the directory is put there for the cluster's processes only, in a mount
namespace of their own, which needs root once, at start. In a pod it is a projected volume
(``trainguard compute install``).
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from guard_core.errors import UserError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Compiled into Ray 2.60's raylet and GCS."""
REVIEWER = "reviewer"


def authority_environment(address: str) -> dict[str, str]:
    """What makes Ray's processes ask the authority at ``address`` (host:port)."""
    host, _, port = address.rpartition(":")
    return {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "RAY_ENABLE_K8S_TOKEN_AUTH": "1",
        "RAY_CLUSTER_NAME": "system",
        "RAY_CLUSTER_NAMESPACE": "trainguard",
    }


def with_private_account(
    command: Sequence[str], certificate: Path, *, own_processes: bool = False, opened: Iterable[Path] = ()
) -> list[str]:
    """``command``, run with a service account of its own. Raises UserError where that cannot be done.

    With ``own_processes`` it also sees no processes but its own, like a node on a machine of its own; when
    it ends, all of them do. ``opened`` are directories that other Unix users must reach though they lie in
    somebody's private one (an interpreter below ``/root``): there, nothing else of the private directory is
    left to see.
    """
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise UserError(
            "profiles gate and hardened need root and util-linux's unshare to place the token authority's "
            f"certificate at {ACCOUNT} for the cluster alone; run as root, or use profile observe-and-stop"
        )
    try:
        ACCOUNT.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{ACCOUNT} cannot be made ({error.strerror}), and Ray looks nowhere else") from error
    account, authority = shlex.quote(str(ACCOUNT)), shlex.quote(str(certificate))
    lines = [
        "set -e",
        f"mount -t tmpfs -o mode=755,size=1m tmpfs {account}",
        f"cp {authority} {account}/ca.crt",
        f"printf %s {REVIEWER} > {account}/token",
        f"chmod 644 {account}/ca.crt {account}/token",
        *_opening(opened),
        # A process namespace needs a first process that takes in orphans and gives the end signal on.
        '"$@" & child=$!; trap "kill -TERM $child" TERM INT; wait $child' if own_processes else 'exec "$@"',
    ]
    own = ["--pid", "--fork", "--kill-child", "--mount-proc"] if own_processes else []
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        *own,
        "sh",
        "-c",
        "\n".join(lines),
        "sh",
        *command,
    ]


def _opening(opened: Iterable[Path]) -> list[str]:
    """Shell lines that leave ``opened`` reachable, and nothing else of the closed directories above."""
    paths = {path.resolve() for path in opened}
    closed = {path: _closed_above(path) for path in paths}
    inside = sorted((path for path, above in closed.items() if above is not None), key=lambda p: len(p.parts))
    outer = [path for path in inside if not any(path != o and path.is_relative_to(o) for o in inside)]
    stage = [f's{n}=$(mktemp -d); mount --bind {shlex.quote(str(p))} "$s{n}"' for n, p in enumerate(outer)]
    hide = [
        f"mount -t tmpfs -o mode=755,size=1m tmpfs {shlex.quote(str(above))}"
        for above in sorted({str(closed[path]) for path in outer})
    ]
    show = [
        f'mkdir -p {shlex.quote(str(p))}; mount --move "$s{n}" {shlex.quote(str(p))}'
        for n, p in enumerate(outer)
    ]
    return [*stage, *hide, *show]


def _closed_above(path: Path) -> Path | None:
    """The outermost directory above ``path`` that others may not pass, None when there is none."""
    return next((p for p in reversed((path, *path.parents)) if not p.stat().st_mode & 0o001), None)
