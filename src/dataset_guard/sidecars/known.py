"""What need not be hashed again, because a registered version's signed sidecars hold for it.

Files are known by their bytes (BLAKE3; never by name, size or time) and the folder they lie in, because the
names of folders are data too: Hive partitions, and the labels of image folders.

* A leaf holds for a block when every row of the block lies in known files at the same place in the row
  order. So after an append only the tail is read, and when one file of many has changed, only the blocks that
  touch it.
* Row hashes hold for every row of a known file, wherever it lies. They are used when all files of the version
  are there: then the new set root is that of the old hashes and those of the other rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.hashing.canonical import canonical_schema
from dataset_guard.hashing.fingerprint import BLOCK_ROWS, FingerprintPart, Leaves
from dataset_guard.hashing.rowhash import Hashes, RowHasher, RowHashes
from dataset_guard.hashing.rowkeys import tenant_row_key
from dataset_guard.hashing.rowset import KeptHashes
from dataset_guard.scanning.identity import BlockRange
from dataset_guard.sidecars.file_tags import FileTags
from dataset_guard.sidecars.manifest import FileEntry, manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    from dataset_guard.reading import Source
    from dataset_guard.registry.reference import Reference


@dataclass(frozen=True, slots=True)
class KnownRows:
    """Where all the rows of a version lie in the data at hand.

    ``runs`` are (first row, row after the last, first row in the version), ascending. ``public`` has the
    version's public row hashes, ascending.
    """

    runs: tuple[tuple[int, int, int], ...]
    public: KeptHashes

    def cut(self, first: int, stop: int) -> Iterator[tuple[int, int, int | None]]:
        """The rows from ``first`` to ``stop`` as (first, stop, first in the version, or None when new)."""
        at = first
        for start, end, there in self.runs:
            if end <= at or start >= stop:
                continue
            if at < start:
                yield at, start, None
                at = start
            upto = min(end, stop)
            yield at, upto, there + at - start
            at = upto
        if at < stop:
            yield at, stop, None

    def unknown(self, batch: pa.RecordBatch, first: int) -> Iterator[pa.RecordBatch]:
        """The new rows of ``batch``, which begins at row ``first``."""
        for start, stop, there in self.cut(first, first + batch.num_rows):
            if there is None:
                yield batch.slice(start - first, stop - start)


@dataclass(frozen=True, slots=True)
class KnownHashes:
    """Known rows with what the version's ``folder`` holds of them, in its row order.

    ``keyed`` and ``features`` are tenant row hashes (``features`` needs a label).
    """

    rows: KnownRows
    keyed: Hashes
    features: Hashes | None
    leaves: Leaves
    folder: Path

    def first_blocks(self) -> int:
        """How many whole blocks at the beginning of the data are the version's first ones."""
        upto = 0
        for first, stop, there in self.rows.runs:
            if not first == there == upto:
                break
            upto = stop
        return upto // BLOCK_ROWS


class KnownRowHasher:
    """As RowHasher, for batches in row order. Only new rows are hashed, and only their public hashes told."""

    def __init__(self, hasher: RowHasher, known: KnownHashes, *, first_row: int = 0) -> None:
        self._hasher, self._known = hasher, known
        self._row = first_row

    def hash(self, batch: pa.RecordBatch) -> RowHashes:
        """The hashes of the rows that follow those of the batch before."""
        first, self._row = self._row, self._row + batch.num_rows
        if not batch.num_rows:
            return self._hasher.hash(batch)
        public, keyed, features = [], [], []
        for start, stop, there in self._known.rows.cut(first, self._row):
            if there is None:
                found = self._hasher.hash(batch.slice(start - first, stop - start))
            else:
                span = slice(there, there + stop - start)
                part = None if self._known.features is None else self._known.features[span]
                found = RowHashes(np.empty((0, 2), np.uint64), self._known.keyed[span], part)
            public.append(found.public)
            keyed.append(found.keyed)
            features.append(found.features)
        return RowHashes(np.concatenate(public), _whole(keyed), _whole(features))


def _whole(parts: Sequence[Hashes | None]) -> Hashes | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


@dataclass(frozen=True, slots=True)
class KnownBlocks:
    """``mask`` says for each block of the data at hand whether ``leaves`` (at the same place) hold for it."""

    mask: npt.NDArray[np.bool_]
    leaves: Leaves
    rows: KnownRows | None = None

    def missing(self) -> list[BlockRange]:
        """The runs of blocks that must be read. The last runs to the end of the data."""
        found = [BlockRange(a, b) for wanted, a, b in self._runs() if not wanted]
        if found and found[-1].end == len(self.mask):
            found[-1] = BlockRange(found[-1].first, None)
        return found

    def parts(self, source: Source) -> list[FingerprintPart]:
        """The known blocks as parts of the fingerprint of ``source``."""
        columns, rows = canonical_schema(source.schema), source.num_rows or 0
        return [
            FingerprintPart(columns, a, min(b * BLOCK_ROWS, rows) - a * BLOCK_ROWS, None, self.leaves[a:b])
            for known, a, b in self._runs()
            if known
        ]

    def _runs(self) -> Iterator[tuple[bool, int, int]]:
        at = 0
        for known, members in groupby(self.mask.tolist()):
            count = len(list(members))
            yield known, at, at + count
            at += count


def known_blocks(reference: Reference, source: Source, entries: Sequence[FileEntry]) -> KnownBlocks | None:
    """What ``reference`` knows of ``source``, whose manifest is ``entries``; None when that is no block."""
    if source.num_rows is None or not _same_columns(reference, source):
        return None
    registered = _placed(reference.manifest)
    spans = [place for place, entry in _at(entries) if place in registered[_content(entry)]]
    signed = int(reference.record["content"]["rows"])
    blocks = -(-source.num_rows // BLOCK_ROWS)
    mask = np.zeros(blocks, np.bool_)
    for start, stop in _joined(spans):
        first = -(-start // BLOCK_ROWS)
        # A block that is not full holds only where both tables end.
        last = -(-stop // BLOCK_ROWS) if stop == source.num_rows == signed else stop // BLOCK_ROWS
        mask[first:last] = True
    return KnownBlocks(mask, reference.leaves()) if mask.any() else None


def known_rows(
    reference: Reference, source: Source, entries: Sequence[FileEntry], key: bytes
) -> KnownRows | None:
    """The rows of ``reference`` in ``source``, if all of them are there; ``key`` is the tenant's row key."""
    if not reference.manifest or not _same_columns(reference, source):
        return None
    free = _placed(reference.manifest)
    runs: list[tuple[int, int, int]] = []
    elsewhere = []
    for place, entry in _at(entries):  # first what did not move: known blocks must have known rows only
        if place in free[_content(entry)]:
            free[_content(entry)].remove(place)
            runs.append((*place, place[0]))
        else:
            elsewhere.append((place, entry))
    for (first, stop), entry in elsewhere:
        fits = [place for place in free[_content(entry)] if place[1] - place[0] == stop - first]
        if fits:
            free[_content(entry)].remove(fits[0])
            runs.append((first, stop, fits[0][0]))
    if any(places for places in free.values()):
        return None
    public = reference.public_row_hashes(key)
    return None if public is None else KnownRows(tuple(sorted(runs)), public)


def known_hashes(
    reference: Reference, source: Source, entries: Sequence[FileEntry], *, key: bytes, label: str | None
) -> KnownHashes | None:
    """The row hashes of ``reference``, when they hold for ``source`` and ``label``; else None."""
    if label != reference.label:
        return None
    rows = known_rows(reference, source, entries, key)
    if rows is None:
        return None
    features = None if label is None else reference.feature_hashes()
    return KnownHashes(rows, reference.row_hashes(), features, reference.leaves(), reference.version.folder)


def _same_columns(reference: Reference, source: Source) -> bool:
    return [(c.name, c.type) for c in canonical_schema(source.schema)] == list(reference.columns)


def _at(entries: Sequence[FileEntry]) -> Iterator[tuple[tuple[int, int], FileEntry]]:
    """Each file with its rows, (first, after the last)."""
    at = 0
    for entry in entries:
        yield (at, at + entry.rows), entry
        at += entry.rows


def _content(entry: FileEntry) -> tuple[str, str]:
    """What makes the rows of a file: its bytes and its folder."""
    return entry.blake3, entry.path.rpartition("/")[0]


def _placed(entries: Sequence[FileEntry]) -> defaultdict[tuple[str, str], list[tuple[int, int]]]:
    """The rows of the files that have each content."""
    found: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for place, entry in _at(entries):
        found[_content(entry)].append(place)
    return found


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending spans, neighbours put together."""
    found: list[tuple[int, int]] = []
    for start, stop in spans:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def known_of_base(
    source: Source, base: str, *, set_root: bool = True, tenant: str | None = None, home: Any = None
) -> KnownBlocks | None:
    """What the version ``base`` knows of ``source``, after every file of it was hashed.

    The rows too, when a ``set_root`` is wanted and can be had.

    Raises UserError when there is no such version, Denied for another tenant's, Tampered.
    """
    from dataset_guard.registry.caller import caller_of, opened_home
    from dataset_guard.registry.store import Registry

    with opened_home(home) as opened:
        owner = caller_of(opened, base, tenant=tenant).tenant
        reference = Registry(opened).reference(base, tenant=owner)
        key = tenant_row_key(opened, owner)
        tags = FileTags(key)
        before = reference.manifest if reference.load_tags(tags) else ()
        entries = manifest_of(source, tags=tags, before=before)
        blocks = known_blocks(reference, source, entries)
        if blocks is None or not set_root:
            return blocks
        rows = known_rows(reference, source, entries, key)
        return replace(blocks, rows=rows)
