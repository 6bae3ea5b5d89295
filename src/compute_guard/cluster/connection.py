"""How to reach the guarded Ray cluster of a home: ``<home>/ray/cluster.json`` and its system token.

The token is what Ray's own processes authenticate with. Both files are 0600; whoever reads them owns the
cluster, which is why this deployment's label is `cooperative` (docs/threat-model.md).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guard_core.errors import UserError
from guard_core.files import write_atomic

if TYPE_CHECKING:
    from compute_guard.ray_plugin.jobs import ClusterActions
    from guard_core.home import Home

CLUSTER_FILE = "cluster.json"
TOKEN_FILE = "system.token"  # noqa: S105 - the name of a file
PERIOD_MS = 250
"""Between two rounds of admission and reconciliation, unless the cluster is started with another."""
PERIOD_VARIABLE = "COMPUTE_GUARD_PERIOD_MS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One running cluster. ``marker`` is in the environment of every process `compute up` started for it,
    and empty for a cluster that was started otherwise (``trainguard compute install``). ``guard_folder`` is
    that of the gates on the head's machine, empty without gates."""

    dashboard: str
    gcs_address: str
    token_file: str
    marker: str
    temp_dir: str
    profile: str = "observe-and-stop"
    gate_address: str = ""
    link_address: str = ""
    authority_address: str = ""
    guard_folder: str = ""
    started_at: str = ""

    @property
    def token(self) -> str:
        """The system token. Raises UserError when its file is gone."""
        try:
            return Path(self.token_file).read_text(encoding="ascii").strip()
        except OSError as error:
            raise UserError(
                f"the cluster's token file {self.token_file} cannot be read ({error.strerror}); "
                "run: trainguard compute down, then trainguard compute up"
            ) from error

    @property
    def submit_address(self) -> str:
        """What a user gives to ``ray job submit --address`` or ``RAY_ADDRESS``."""
        return "compute_guard://" + self.dashboard.removeprefix("http://")

    def save(self, folder: Path) -> None:
        """Write ``folder/cluster.json`` atomically, 0600."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(folder / CLUSTER_FILE, json.dumps(asdict(self), indent=1).encode(), mode=0o600)


def load_cluster(folder: Path) -> Cluster | None:
    """The cluster recorded in ``folder`` (``<home>/ray``), None when there is none. Raises UserError."""
    file = folder / CLUSTER_FILE
    try:
        return Cluster(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}); delete it and run: trainguard compute up"
        ) from error


def running_cluster(home: Home) -> ClusterActions | None:
    """What can be done on the home's running cluster, None when there is none."""
    if load_cluster(home.path("ray")) is None:
        return None
    from compute_guard.ray_plugin.jobs import RayCluster  # heavy, and itself asks this module

    return RayCluster(home)
