"""A registered version as MLflow sees it: a ``DatasetSource`` and a ``Dataset`` (both untyped in mlflow).

MLflow loads this module through its entry points. All others, pickles too, reach it through
:mod:`dataset_guard.integrations.mlflow_data`, which completes ``import mlflow`` first: were this module
imported before MLflow, MLflow's registry would meet it half made and warn.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource

from dataset_guard.integrations.mlflow_fields import colspec, profile
from guard_core.errors import UserError

if TYPE_CHECKING:
    from dataset_guard.reads.verified_read import VerifiedReader
    from dataset_guard.registration.report import Report

SCHEME = "trainguard://"
_URI = re.compile(r"^trainguard://([a-z0-9._-]+)/([^/@\s]+)@(\d+)$")


class TrainGuardSource(DatasetSource):  # type: ignore[misc]
    """``trainguard://tenant/name@version``: loads through the verified reader, never around it."""

    def __init__(self, uri: str) -> None:
        if not _URI.match(uri):
            raise UserError(f"{uri!r} is not a dataset address; write trainguard://tenant/name@version")
        self._uri = uri

    @classmethod
    def of(cls, ref: str) -> TrainGuardSource:
        """The source of ``tenant/name@version``."""
        return cls(SCHEME + ref)

    @property
    def uri(self) -> str:
        """``trainguard://tenant/name@version``."""
        return self._uri

    @property
    def ref(self) -> str:
        """``tenant/name@version``."""
        return self._uri.removeprefix(SCHEME)

    @staticmethod
    def _get_source_type() -> str:
        return "trainguard"

    def load(self) -> VerifiedReader:
        """A reader that checks policy, then every block against the signed record, as it hands rows out."""
        from dataset_guard.reads.verified_read import read

        return read(self.ref)

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        # Narrow on purpose: MLflow warns "can be interpreted in multiple ways" whenever two sources match.
        return isinstance(raw_source, str) and _URI.match(raw_source) is not None

    @classmethod
    def _resolve(cls, raw_source: str) -> TrainGuardSource:
        return cls(raw_source)

    def to_dict(self) -> dict[str, Any]:
        """``{"uri": "trainguard://..."}``."""
        return {"uri": self._uri}

    @classmethod
    def from_dict(cls, source_dict: Mapping[Any, Any]) -> TrainGuardSource:
        """Inverse of :meth:`to_dict`. Raises UserError for anything else."""
        return cls(str(source_dict.get("uri", "")))


class TrainGuardDataset(Dataset):  # type: ignore[misc]
    """A registered version: digest = first 128 bits of its fingerprint, profile = what the UI shows."""

    def __init__(
        self,
        report: Report,
        *,
        source: DatasetSource | None = None,
        name: str | None = None,
        digest: str | None = None,
    ) -> None:
        self._report = report
        super().__init__(source=source or source_of(report), name=name or report.name, digest=digest)

    def _compute_digest(self) -> str:
        return self._report.digest

    @property
    def report(self) -> Report:
        """The stored report of this version."""
        return self._report

    @property
    def profile(self) -> dict[str, Any]:
        """Flat and short: MLflow's drawer renders each key as ``key: value``."""
        return profile(self._report)

    @property
    def schema(self) -> list[dict[str, Any]]:
        """MLflow column specifications."""
        return colspec(self._report)

    def to_dict(self) -> dict[str, str]:
        """Name, digest, source and type, with schema and profile as JSON text."""
        return {
            **super().to_dict(),
            "schema": json.dumps({"mlflow_colspec": self.schema}),
            "profile": json.dumps(self.profile),
        }

    def load(self) -> VerifiedReader:
        """The version's rows through the verified reader, whatever the displayed source is."""
        return TrainGuardSource.of(self._report.ref).load()


def source_of(report: Report) -> DatasetSource:
    """The natural source where MLflow knows one (its UI shows only those), else ``trainguard://``."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.exceptions import MlflowException

    address = report.source_uri
    if "/" in address:
        try:
            with warnings.catch_warnings():
                # MLflow warns of its own local sources, which match one path twice.
                warnings.simplefilter("ignore")
                return resolve_dataset_source(address)
        except MlflowException:
            pass  # a kind of address MLflow does not know
    return TrainGuardSource.of(report.ref)


for _made in (TrainGuardSource, TrainGuardDataset):
    _made.__module__ = "dataset_guard.integrations.mlflow_data"
