"""``open_source``: from whatever a user holds to a :class:`Source`."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from dataset_guard.hashing.canonical import canonical_schema
from dataset_guard.reading.memory import DatasetSource, TableSource, from_pandas, from_polars
from dataset_guard.reading.places import Place, RemotePath, place_of
from dataset_guard.reading.source import Source
from guard_core.errors import UserError


def open_source(data: Any, *, only: Collection[str] | None = None) -> Source:
    """A :class:`Source` over ``data``: a path or URL, or a table or dataset in memory.

    Of a folder in which all files named ``only`` are there, these alone: a version, in a folder that grew.
    The schema is checked here, so a source that opens has columns that can be fingerprinted.
    Raises UserError for what cannot be read, in one sentence with its remedy.
    """
    source = _open(data, only)
    try:
        canonical_schema(source.schema)
    except UserError as error:
        raise UserError(f"{source.uri}: {error}") from error
    return source


def _open(data: Any, only: Collection[str] | None) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, str | os.PathLike | RemotePath):
        from dataset_guard.reading.files import open_path

        return open_path(place_of(data), only=only)
    if isinstance(data, pa.Table):
        return TableSource(data)
    if isinstance(data, pa.RecordBatch):
        return TableSource(pa.Table.from_batches([data]))
    if isinstance(data, pa.RecordBatchReader):
        raise UserError(
            "a RecordBatchReader can be read only once, and its data must be read again to be verified; "
            "pass reader.read_all(), or the path of its file"
        )
    family = type(data).__module__.partition(".")[0]
    if family == "pandas" and type(data).__name__ == "DataFrame":
        return from_pandas(data)
    if family == "polars" and type(data).__name__ in ("DataFrame", "LazyFrame"):
        return from_polars(data)
    if isinstance(data, _dataset_class()):
        return _same_folder(data) or DatasetSource(data)
    if family == "datasets" and "Dataset" in type(data).__name__:
        from dataset_guard.reading.huggingface import from_huggingface

        return from_huggingface(data)
    if family == "ray" and type(data).__name__ in ("Dataset", "MaterializedDataset"):
        from dataset_guard.reading.ray_dataset import RayDatasetSource

        return RayDatasetSource(data)
    raise UserError(
        f"data of type {type(data).__name__} cannot be read; pass a path or URL, a pyarrow Table or Dataset, "
        "a pandas or polars DataFrame, or a Ray or Hugging Face Dataset"
    )


def _dataset_class() -> Any:
    import pyarrow.dataset

    return pyarrow.dataset.Dataset


def _same_folder(dataset: Any) -> Source | None:
    """The file or folder whose files, order and columns are just those of ``dataset``, if there is one."""
    from dataset_guard.reading.files import open_path

    names = list(getattr(dataset, "files", []))
    if not names:
        return None
    place = names[0] if len(names) == 1 else os.path.commonpath(names)
    if "=" in place:  # of a partitioned folder, the part that names no column
        parts = place.split("/")
        place = "/".join(parts[: next(i for i, part in enumerate(parts) if "=" in part)])
    try:
        files: list[Place] = [place_of(name, dataset.filesystem) for name in names]
        source = open_path(place_of(place, dataset.filesystem))
    except (UserError, OSError):
        return None
    same = [str(f.absolute()) for f in source.files] == [str(f.absolute()) for f in files]
    columns = [(c.name, c.type) for c in canonical_schema(source.schema)]
    return (
        source if same and columns == [(c.name, c.type) for c in canonical_schema(dataset.schema)] else None
    )
