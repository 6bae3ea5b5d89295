"""``mlflow.data.from_trainguard`` and ``from_arrow``: a version, or a table in memory, as an MLflow dataset.

Annotations in this file are real objects, not text: MLflow's registry does
``issubclass(signature.return_annotation, Dataset)`` (mlflow/data/dataset_registry.py), and with
``from __future__ import annotations`` the constructor would vanish with only a warning.
"""

from typing import Any

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


def from_arrow(
    data: Any, source: Any = None, *, name: str | None = None, digest: str | None = None
) -> Dataset:
    """An Arrow table (or what else ``dataset_guard.fingerprint`` takes in memory), by a digest of all rows.

    The digest is that of the registered version with this content, if there is one. ``source`` is as for
    MLflow's own constructors; ``digest`` insists on a content. Raises UserError for data that cannot be read.
    """
    from dataset_guard.integrations.mlflow_arrow import ArrowDataset, source_of

    return ArrowDataset(data, source=source_of(source), name=name, digest=digest)


for _made in (from_trainguard, from_arrow):
    if hasattr(mlflow, "data") and _made.__name__ not in get_registered_constructors():
        # Reached when someone imports this module before mlflow: the registry then met it half made.
        register_constructor(_made)
