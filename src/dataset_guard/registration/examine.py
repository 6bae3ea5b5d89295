"""Looking at the data of a request, once: what it holds, and that nobody wrote to it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.hashing.rowkeys import tenant_row_key
from dataset_guard.reading import Source, open_source
from dataset_guard.registry.store import Registry
from dataset_guard.sidecars.manifest import FileEntry, manifest_of
from guard_core.errors import Tampered, UserError

if TYPE_CHECKING:
    from dataset_guard.checks.base import CheckContext
    from dataset_guard.registration.request import Request
    from dataset_guard.registry.reference import Reference
    from dataset_guard.scanning.result import Progress, ScanResult
    from dataset_guard.sidecars.file_tags import FileTags
    from dataset_guard.sidecars.known import KnownHashes


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a registration keeps what the next one need not read again."""

    tags: FileTags
    folder: Path


def examine(
    request: Request,
    data: Any,
    progress: Callable[[Progress], None] | None,
    *,
    keep: Kept | None = None,
) -> tuple[Source, ScanResult, tuple[FileEntry, ...]]:
    """Read the data once. Raises UserError for bad data, and when its files change meanwhile.

    With ``keep``, what the next registration of a set in files need not read again is kept there.
    """
    from dataset_guard.checks.base import CheckContext

    source = open_source(data)
    if source.num_rows == 0:
        raise UserError(f"{_said(source)} has no rows; a dataset needs at least one")
    _check_label(source, request.label)
    before = _signs(source)
    newest = _newest(request) if source.files else None
    tags = None if keep is None else keep.tags
    entries = manifest_of(source, tags=tags, before=_recognisable(newest, tags))
    context = CheckContext(
        schema=source.schema,
        name=request.name,
        tenant=request.tenant,
        label=request.label,
        split=request.split,
        baseline=request.trusted,
        against=request.against,
        suites=request.evaluation,
        parameters=request.parameters,
    )
    folder = keep.folder if keep is not None and entries else None
    result = _scanned(request, source, entries, context, progress, newest, folder)
    if result.fingerprint.rows == 0:
        raise UserError(f"{_said(source)} has no rows; a dataset needs at least one")
    if _signs(source) != before:
        raise UserError(f"{source.uri} changed while it was read; try again when nothing writes to it")
    return source, result, entries


def _scanned(
    request: Request,
    source: Source,
    entries: Sequence[FileEntry],
    context: CheckContext,
    progress: Callable[[Progress], None] | None,
    newest: Reference | None,
    folder: Path | None,
) -> ScanResult:
    from dataset_guard.scanning.scan import scan_source

    key = tenant_row_key(request.home, request.tenant)
    if request.ray is None:
        return scan_source(
            source,
            context,
            row_key=key,
            checks=request.checks,
            progress=progress,
            budget=request.budget,
            known=_grown_from(newest, source, entries, key, request.label),
            keep=folder,
        )
    from dataset_guard.ray_data import connected
    from dataset_guard.scanning.on_ray import scan_on_ray

    with connected(request.ray):
        return scan_on_ray(
            source, context, row_key=key, checks=request.checks, progress=progress, budget=request.budget
        )


def _newest(request: Request) -> Reference | None:
    """The newest version. One that cannot be believed any more is no help, and no obstacle either."""
    registry = Registry(request.home)
    if registry.find(request.name, tenant=request.tenant) is None:
        return None
    with suppress(Tampered):
        return registry.reference(request.name, tenant=request.tenant)
    return None


def _recognisable(newest: Reference | None, tags: FileTags | None) -> Sequence[FileEntry]:
    """The files of ``newest``, when ``tags`` have been given theirs."""
    with suppress(Tampered):
        if newest is not None and tags is not None and newest.load_tags(tags):
            return newest.manifest
    return ()


def _grown_from(
    newest: Reference | None, source: Source, entries: Sequence[FileEntry], key: bytes, label: str | None
) -> KnownHashes | None:
    """What the ``newest`` version knows of its rows, when all its files are in ``source``; else None."""
    from dataset_guard.sidecars.known import known_hashes

    with suppress(Tampered):  # then all rows are hashed
        return None if newest is None else known_hashes(newest, source, entries, key=key, label=label)
    return None


def _said(source: Source) -> str:
    """The data as its owner would call it: its path, or what kind of table it is."""
    kind = source.uri.removeprefix("memory:")
    return source.uri if kind == source.uri else f"the {kind} data"


def _check_label(source: Source, label: str | None) -> None:
    if label is None:
        return
    if label not in source.schema.names:
        known = ", ".join(source.schema.names[:20]) + (", ..." if len(source.schema.names) > 20 else "")
        raise UserError(f"{_said(source)} has no label column {label!r}; its columns are: {known}")
    import pyarrow as pa

    kind = source.schema.field(label).type
    if pa.types.is_nested(kind):
        raise UserError(
            f"{_said(source)}: the label column {label!r} holds nested values ({kind}); "
            "name a column with one value per row"
        )
    if all(b.column(0).null_count == b.num_rows for b in source.stream(columns=[label])):
        raise UserError(f"{_said(source)}: the label column {label!r} holds only nulls; name another column")


def _signs(source: Source) -> list[tuple[int, int, int]]:
    """What shows that a file was written to while it was read (a hint for now, never evidence later)."""
    stats = [file.stat() for file in source.files]
    return [(s.st_size, s.st_mtime_ns, s.st_ino) for s in stats]
