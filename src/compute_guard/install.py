"""What a cluster that somebody else starts needs to be guarded: written out, never done behind one's back."""

from __future__ import annotations

from collections.abc import Mapping

TARGETS = ("ray-start", "ray-up", "kuberay")


def instructions(target: str, environment: Mapping[str, str]) -> str:
    """Commands (ray-start), a cluster.yaml part (ray-up) or Helm values (kuberay) with ``environment``."""
    if target == "ray-start":
        exports = "\n".join(f"export {name}={value}" for name, value in sorted(environment.items()))
        return (
            "# On the head, in the environment where trainguard is installed:\n"
            f"{exports}\n"
            "ray start --head --dashboard-host=127.0.0.1\n"
            "# On each further node: the same exports and token file, then: ray start --address=HEAD:6379\n"
            "# Prove it afterwards: trainguard compute status; trainguard doctor\n"
        )
    if target == "ray-up":
        exports = "".join(f"      export {name}={value} &&\n" for name, value in sorted(environment.items()))
        return (
            "# cluster.yaml (ray up): trainguard must be installed by setup_commands on every node.\n"
            "setup_commands:\n"
            '  - pip install "trainguard[ray]"\n'
            "head_start_ray_commands:\n"
            "  - >-\n"
            f"{exports}"
            "      ray start --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml\n"
            "worker_start_ray_commands:\n"
            "  - >-\n"
            f"{exports}"
            "      ray start --address=$RAY_HEAD_IP:6379\n"
        )
    variables = "".join(
        f"    - name: {name}\n      value: {value!r}\n" for name, value in sorted(environment.items())
    )
    return (
        "# Helm values (kuberay/ray-cluster). The image must hold trainguard[ray]. The token comes from a\n"
        "# Secret mounted at RAY_AUTH_TOKEN_PATH, the home from a volume of the head; where more than the\n"
        "# head must read the state, add TRAINGUARD_STORAGE_URL (PostgreSQL) from a Secret too.\n"
        "common:\n"
        "  containerEnv:\n"
        f"{variables}"
    )
