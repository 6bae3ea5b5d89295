"""What a cluster that somebody else starts needs to be guarded: written out, never done behind one's back.

*observe-and-stop* needs variables only (:func:`instructions`). The profiles with gates need a token and a
certificate on every machine too, so a folder is written (:func:`write_kit`), with scripts that use it.
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compute_guard.cluster.service_account import ACCOUNT, REVIEWER, authority_environment
from guard_core.errors import UserError
from guard_core.files import write_atomic

if TYPE_CHECKING:
    from jinja2 import Environment

TARGETS = ("ray-start", "ray-up", "kuberay")
GCS_PORT, GATE_PORT, LINK_PORT, AUTHORITY_PORT = 6379, 6390, 6391, 6392
GUARD_FOLDER = "/var/lib/trainguard/gate"
AUTHORITY_FOLDER = "/etc/trainguard-authority"
HEAD_HOME = "/var/lib/trainguard/home"
"""The home of a head that is another machine, where none was named."""
USER_HOME, USER_TOKEN = "~/.trainguard", "~/.ray/auth_token"
"""Home and token where `ray up` starts Ray as its ssh user, who may write nowhere else."""
HEAD_NAME = "trainguard-head"
SOFTWARE = "/opt/trainguard"
"""Where `ray up` installs it on every machine."""
CLUSTER_NAME = "guarded"
_SECRET_FILES = ("system.token", "ca.crt", "authority.crt", "authority.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """A cluster with gates. ``head`` is the address or name by which every machine reaches the head."""

    target: str
    profile: str
    head: str
    pools: Sequence[str]
    environment: Mapping[str, str]

    @property
    def gate(self) -> str:
        """What nodes give to ``ray start --address``."""
        return f"{self.head}:{GATE_PORT}"

    def variables(self) -> dict[str, str]:
        """Variables of every machine, by name."""
        gates = {
            "COMPUTE_GUARD_PROFILE": self.profile,
            "COMPUTE_GUARD_GATE": self.gate,
            "COMPUTE_GUARD_LINK": f"{self.head}:{LINK_PORT}",
            "COMPUTE_GUARD_NODE": GUARD_FOLDER,
            **authority_environment(f"{self.head}:{AUTHORITY_PORT}"),
        }
        if self.target == "kuberay":
            gates["COMPUTE_GUARD_AUTHORITY"] = AUTHORITY_FOLDER
        return dict(sorted({**self.environment, **gates}.items()))


def write_kit(kit: Kit, folder: Path) -> list[Path]:
    """Write what ``kit`` needs to ``folder``, for this user only: the files. A token that is there is kept.

    Raises UserError for a target without such a kit, a head that is none, or a folder that cannot be written.
    """
    from compute_guard.ray_plugin.gates.authority import make_certificate

    if kit.target not in TARGETS:
        raise UserError(f"--target must be one of {', '.join(TARGETS)}")
    if not kit.head or ":" in kit.head or "/" in kit.head:
        raise UserError(f"--head must be the head's address or name, without a port; got {kit.head!r}")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        token = folder / "system.token"
        if not token.exists():
            write_atomic(token, secrets.token_hex(32).encode(), mode=0o600)
        make_certificate(folder, kit.head)
        return [folder / name for name in (*_write_texts(kit, folder), *_SECRET_FILES)]
    except OSError as error:
        raise UserError(f"--out {folder} cannot be written: {error.strerror}") from error


def _write_texts(kit: Kit, folder: Path) -> tuple[str, ...]:
    """Write what is rendered for the target: the files' names."""
    texts = _templates()
    facts = _facts(kit, folder)
    names = {
        "ray-start": ("cluster.env", "place.sh", "head.sh", "node.sh"),
        "ray-up": ("cluster.env", "place.sh", "name.sh", "ray.sh", "head.sh", "node.sh", "ray-up.yaml"),
        "kuberay": ("guard.yaml", "values.yaml"),
    }[kit.target]
    for name in names:
        text = texts.get_template(name + ".j2").render(facts)
        write_atomic(folder / name, text.encode(), mode=0o600)
    return names


def _facts(kit: Kit, folder: Path) -> dict[str, Any]:
    environment = kit.variables()
    return {
        "account": ACCOUNT,
        "authority_folder": AUTHORITY_FOLDER,
        "environment": environment,
        "folder": folder.resolve(),
        "gate": kit.gate,
        "gcs_port": GCS_PORT,
        "guard_folder": GUARD_FOLDER,
        "head": kit.head,
        "home": environment["TRAINGUARD_HOME"],
        "name": CLUSTER_NAME,
        "named": kit.target == "ray-up" and kit.head == HEAD_NAME,
        "pools": tuple(kit.pools),
        "ports": {"gate": GATE_PORT, "link": LINK_PORT, "authority": AUTHORITY_PORT, "gcs": GCS_PORT},
        "profile": kit.profile,
        "reviewer": REVIEWER,
        "secrets": {name: (folder / name).read_text(encoding="ascii") for name in _SECRET_FILES},
        "software": SOFTWARE,
        "token_folder": Path(environment["RAY_AUTH_TOKEN_PATH"]).parent,
    }


def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    texts = Environment(
        loader=PackageLoader("compute_guard", "templates/install"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - shell and YAML, quoted by the filters below; no HTML
    )
    texts.filters["quoted"] = shlex.quote
    texts.filters["json"] = json.dumps
    texts.filters["indented"] = lambda text: "\n".join("    " + line for line in text.strip().splitlines())
    return texts


def instructions(target: str, environment: Mapping[str, str]) -> str:
    """Commands (ray-start), a cluster.yaml part (ray-up) or Helm values (kuberay) with ``environment``."""
    token = environment["RAY_AUTH_TOKEN_PATH"]
    exports = [f"export {name}={_for_shell(value)}" for name, value in sorted(environment.items())]
    if target == "ray-start":
        there = _for_shell(token)
        lines = [
            "# Once: the cluster's own token. Every node needs the same file, for Ray's user only.",
            f'[ -e {there} ] || (umask 077; mkdir -p "$(dirname {there})"; openssl rand -hex 32 > {there})',
            "# On the head, in the environment where trainguard is installed:",
            *exports,
            "ray start --head --dashboard-host=127.0.0.1",
            "# On each further node: the same exports and token file, then: ray start --address=HEAD:6379",
            "# Prove it afterwards: trainguard compute status; trainguard doctor",
        ]
        return "\n".join(lines) + "\n"
    if target == "ray-up":
        told = "".join(f"      {line} &&\n" for line in exports)
        return (
            "# For cluster.yaml (ray up). First, beside it: (umask 077; openssl rand -hex 32 > auth_token)\n"
            "file_mounts:\n"
            f"  {token}: ./auth_token\n"
            "setup_commands:\n"
            '  - pip install "trainguard[ray]"\n'
            "head_start_ray_commands:\n"
            "  - ray stop\n"
            "  - >-\n"
            f"{told}"
            "      ray start --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml\n"
            "worker_start_ray_commands:\n"
            "  - ray stop\n"
            "  - >-\n"
            f"{told}"
            "      ray start --address=$RAY_HEAD_IP:6379\n"
        )
    variables = "".join(
        f"    - name: {name}\n      value: {json.dumps(value)}\n"
        for name, value in sorted(environment.items())
    )
    return (
        "# Helm values (kuberay/ray-cluster). The image must hold trainguard[ray]. The token comes from a\n"
        "# Secret mounted at RAY_AUTH_TOKEN_PATH, the home from a volume of the head; where more than the\n"
        "# head must read the state, add TRAINGUARD_STORAGE_URL (PostgreSQL) from a Secret too.\n"
        "common:\n"
        "  containerEnv:\n"
        f"{variables}"
    )


def _for_shell(value: str) -> str:
    """Quoted; ``~/`` is the home of whoever runs it."""
    return f'"$HOME"/{shlex.quote(value[2:])}' if value.startswith("~/") else shlex.quote(value)


def next_steps(target: str, folder: Path) -> str:
    """What to do with a kit that was written to ``folder``."""
    return {
        "ray-start": f"copy {folder} to every machine; as root there: sh head.sh, or sh node.sh POOL",
        "ray-up": f"add cluster_name, provider and auth to {folder}/ray-up.yaml, then: ray up",
        "kuberay": f"kubectl apply -f {folder}/guard.yaml, then helm install with -f {folder}/values.yaml",
    }[target]


def unknown(policy_data: Mapping[str, Any], *, pools: Sequence[str], tenant: str | None) -> list[str]:
    """What the policy data does not know of what a cluster is written for, a sentence each."""
    found = [
        f"pool {pool} is not in nodes.yaml: no tenant may use its nodes until it is"
        for pool in pools
        if pool not in policy_data["nodes"]["pools"]
    ]
    if tenant is not None and tenant not in policy_data["tenants"]:
        found.append(f"tenant {tenant} is not in tenants.yaml: its submissions are refused until it is")
    return found
