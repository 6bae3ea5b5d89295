"""An Arrow table as MLflow sees it, with a digest of all its rows (untyped in mlflow).

MLflow's own digests look at the first 10,000 rows. This one is the version's digest when the table is a
registered version, so a server with the gate in front knows it, however the rows came into memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource

from dataset_guard.integrations.mlflow_fields import columns_of
from dataset_guard.registration.report import DIGEST_CHARACTERS
from guard_core.errors import UserError


class ArrowDataset(Dataset):  # type: ignore[misc]
    """A table in memory: digest = first 128 bits of its ``dg1`` fingerprint."""

    def __init__(
        self, data: Any, *, source: DatasetSource, name: str | None = None, digest: str | None = None
    ) -> None:
        from dataset_guard.scanning.identity import fingerprint

        self._found = fingerprint(data, set_root=False)
        own = self._found.fingerprint[:DIGEST_CHARACTERS]
        if digest is not None and digest != own:
            raise UserError(f"the table has digest {own}, not {digest}; leave digest out, or give that data")
        self._data = data
        super().__init__(source=source, name=name, digest=own)

    def _compute_digest(self) -> str:
        return self._found.fingerprint[:DIGEST_CHARACTERS]

    @property
    def data(self) -> Any:
        """What it was made of."""
        return self._data

    @property
    def profile(self) -> dict[str, Any]:
        """Counts, in MLflow's own words."""
        return {"num_rows": self._found.rows, "num_elements": self._found.rows * len(self._found.columns)}

    @property
    def schema(self) -> Sequence[dict[str, Any]]:
        """MLflow column specifications."""
        return columns_of((column.name, column.type, None) for column in self._found.columns)

    def to_dict(self) -> dict[str, str]:
        """Name, digest, source and type, with schema and profile as JSON text."""
        return {
            **super().to_dict(),
            "schema": json.dumps({"mlflow_colspec": self.schema}),
            "profile": json.dumps(self.profile),
        }


def source_of(source: Any) -> DatasetSource:
    """As MLflow's own constructors: a source, what MLflow makes of an address, or the calling code."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.tracking.context import registry

    if source is None:
        return CodeDatasetSource(tags=registry.resolve_tags())
    return source if isinstance(source, DatasetSource) else resolve_dataset_source(source)
