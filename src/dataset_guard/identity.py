"""Who a table is: fingerprint and row hashes in one pass, without any check."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dataset_guard.fingerprint import Fingerprint, Fingerprinter
from dataset_guard.reading import Source, open_source
from dataset_guard.rowhash import RowHasher
from dataset_guard.rowset import SetRoot
from dataset_guard.rowstore import RowStore

Progress = Callable[[int, int | None], None]
"""Called with (rows done, rows in all or None)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A table's fingerprint; ``rows`` holds its tenant row hashes when a key was given."""

    fingerprint: Fingerprint
    rows: RowStore | None
    seconds: float


def identify(
    source: Source,
    *,
    row_key: bytes | None = None,
    label: str | None = None,
    set_root: bool = True,
    progress: Progress | None = None,
) -> Identity:
    """One pass over ``source``. ``seconds`` is CPU time of this process. Raises UserError."""
    started = _cpu_seconds()
    printer = Fingerprinter(source.schema)
    wants_hashes = set_root or row_key is not None
    hasher = RowHasher(source.schema, key=row_key, label=label) if wants_hashes else None
    roots = SetRoot(source.schema.names) if set_root else None
    store = RowStore(with_features=label is not None) if row_key is not None else None
    done = 0
    for batch in source.stream():
        printer.update(batch)
        if hasher is not None:
            found = hasher.hash(batch)
            if roots is not None:
                roots.add(found.public)
            if store is not None and found.keyed is not None:
                store.append(found.keyed, found.features)
        done += batch.num_rows
        if progress is not None:
            progress(done, source.num_rows)
    fingerprint = printer.finish(set_root=None if roots is None else roots.finish())
    return Identity(fingerprint, store, _cpu_seconds() - started)


def fingerprint(data: Any, *, set_root: bool = True) -> Fingerprint:
    """The ``dg1`` fingerprint of ``data``: a path, or a table of pyarrow, pandas or polars.

    Without ``set_root`` (the order-independent root) it takes about half the time. Raises UserError.
    """
    return identify(open_source(data), set_root=set_root).fingerprint


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system
