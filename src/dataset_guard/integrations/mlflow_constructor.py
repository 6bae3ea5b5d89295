"""``mlflow.data.from_trainguard``: a registered version as an MLflow dataset.

Annotations in this file are real objects, not text: MLflow's registry does
``issubclass(signature.return_annotation, Dataset)`` (mlflow/data/dataset_registry.py), and with
``from __future__ import annotations`` the constructor would vanish with only a warning.
"""

import mlflow
from mlflow.data.dataset import Dataset
from mlflow.data.dataset_registry import get_registered_constructors, register_constructor


def from_trainguard(
    ref: str, *, tenant: str | None = None, name: str | None = None, digest: str | None = None
) -> Dataset:
    """The registered version ``ref`` (``name@version``, ``tenant/name@version``, alias or latest).

    Raises UserError when there is no such version, Denied when it may not be looked at. ``digest`` may be
    given to insist on a content: any other than the version's own is a UserError, never a label.
    """
    from dataset_guard.integrations.mlflow_data import dataset
    from dataset_guard.reads.access import open_access
    from guard_core.errors import UserError

    with open_access(ref.removeprefix("trainguard://"), purpose="inspect", tenant=tenant) as access:
        report = access.report
    if digest is not None and digest != report.digest:
        raise UserError(
            f"{report.ref} has digest {report.digest}, not {digest}; "
            "leave digest out, or ask for the version that has it"
        )
    return dataset(report, name=name)


if hasattr(mlflow, "data") and "from_trainguard" not in get_registered_constructors():
    # Reached when someone imports this module before mlflow: the registry then met it half made.
    register_constructor(from_trainguard)
