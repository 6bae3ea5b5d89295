"""Who a table is: fingerprint and row hashes in one pass, without any check.

Blocks can be hashed apart: on threads here, on Ray tasks in :mod:`dataset_guard.ray_data`, and not at all
where the leaves of a registered version are known to hold (:mod:`dataset_guard.sidecars.known`). The roots
are the same each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_guard.hashing.fingerprint import BLOCK_ROWS, Fingerprint, Fingerprinter, FingerprintPart, combine
from dataset_guard.hashing.hash_store import Hashes, HashStore
from dataset_guard.hashing.rowhash import RowHasher, RowHashes
from dataset_guard.hashing.rowset import SetRoot
from dataset_guard.reading import Source, open_source

if TYPE_CHECKING:
    from dataset_guard.sidecars.known import KnownBlocks, KnownRows

Progress = Callable[[int, int | None], None]
"""Called with (rows done, rows in all or None)."""

SEEKABLE = ("parquet", "arrow", "table", "pandas", "polars", "huggingface", "ray", "images")
"""Kinds of source that can begin in the middle; of text, a reader must parse all that comes before."""

_RANGE_BLOCKS = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """A table's fingerprint; ``rows`` are its tenant row hashes, shape (rows, 2), when a key was given."""

    fingerprint: Fingerprint
    rows: Hashes | None
    seconds: float


@dataclass(frozen=True, slots=True)
class BlockRange:
    """Whole blocks from ``first`` up to ``end``; ``end`` None runs to the end of the data, however far."""

    first: int
    end: int | None

    @property
    def rows(self) -> int | None:
        """How many rows to read; None is all that come."""
        return None if self.end is None else (self.end - self.first) * BLOCK_ROWS


def hash_range(
    source: Source,
    blocks: BlockRange,
    hasher: RowHasher | None = None,
    sink: Callable[[RowHashes], None] | None = None,
    progress: Callable[[int], None] | None = None,
    known: KnownRows | None = None,
) -> FingerprintPart:
    """The leaves of some blocks of ``source``; row hashes go to ``sink``, row counts to ``progress``.

    Row hashes of ``known`` rows are left out.
    """
    printer = Fingerprinter(source.schema, first_block=blocks.first)
    row = blocks.first * BLOCK_ROWS
    for batch in source.stream(first_row=row, rows=blocks.rows):
        printer.update(batch)
        if hasher is not None and sink is not None:
            for piece in (batch,) if known is None else known.unknown(batch, row):
                sink(hasher.hash(piece))
        row += batch.num_rows
        if progress is not None:
            progress(batch.num_rows)
    return printer.part()


def split(source: Source, parts: int, *, first: int = 0, end: int | None = None) -> list[BlockRange]:
    """The blocks from ``first`` to ``end`` as at most ``parts`` ranges, as even as whole blocks allow.

    One range when the source cannot be read from the middle, or its length is not known.
    """
    if source.kind not in SEEKABLE or source.num_rows is None:
        return [BlockRange(first, end)]
    stop = -(-source.num_rows // BLOCK_ROWS) if end is None else end
    pieces = max(1, min(parts, stop - first))
    edges = [first + (stop - first) * i // pieces for i in range(pieces + 1)]
    return [BlockRange(a, b) for a, b in zip(edges[:-1], [*edges[1:-1], end], strict=True)]


def identify(
    source: Source,
    *,
    row_key: bytes | None = None,
    set_root: bool = True,
    threads: int = 1,
    known: KnownBlocks | None = None,
    progress: Progress | None = None,
) -> Identity:
    """One pass over ``source``. ``seconds`` is CPU time of this process. Raises UserError.

    With ``known`` blocks only the others are read; then there are no row hashes, a set root only where the
    rows are known too, and the fingerprint's ``bytes`` is None.
    """
    started = _cpu_seconds()
    known_rows = None if known is None else known.rows
    if known is not None and (row_key is not None or (set_root and known_rows is None)):
        raise ValueError("row hashes of known blocks are not known")
    wants_hashes = set_root or row_key is not None
    hasher = RowHasher(source.schema, key=row_key) if wants_hashes else None
    roots = SetRoot(source.schema.names) if set_root else None
    store = HashStore(rows=source.num_rows) if row_key is not None else None
    done = 0

    def keep(found: RowHashes) -> None:
        if roots is not None:
            roots.add(found.public)
        if store is not None and found.keyed is not None:
            store.add(found.keyed)

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, source.num_rows)

    ranges = [BlockRange(0, None)] if known is None else known.missing()
    if threads > 1:
        ranges = [piece for whole in ranges for piece in _pieces(source, whole)]
    if threads > 1 and len(ranges) > 1:
        parts = []
        for part, hashes in _on_threads(source, ranges, hasher, threads, known_rows):
            parts.append(part)
            for found in hashes:
                keep(found)
            tell(part.rows)
    else:
        parts = [hash_range(source, r, hasher, keep, tell, known_rows) for r in ranges]
    if known is not None:
        parts += known.parts(source)
    if roots is not None and known_rows is not None:
        roots.add_kept(known_rows.public)
        if roots.rows != sum(part.rows for part in parts):
            raise RuntimeError("a row is known twice or not at all")
    fingerprint = combine(parts, set_root=None if roots is None else roots.finish())
    return Identity(fingerprint, None if store is None else store.all(), _cpu_seconds() - started)


def _pieces(source: Source, blocks: BlockRange) -> list[BlockRange]:
    stop = -(-(source.num_rows or 0) // BLOCK_ROWS) if blocks.end is None else blocks.end
    parts = -(-(stop - blocks.first) // _RANGE_BLOCKS)
    return split(source, parts, first=blocks.first, end=blocks.end)


def _on_threads(
    source: Source,
    ranges: list[BlockRange],
    hasher: RowHasher | None,
    threads: int,
    known: KnownRows | None,
) -> Iterator[tuple[FingerprintPart, list[RowHashes]]]:
    """Each range's part and row hashes, in order; at most ``threads`` + 1 ranges are under way."""

    def work(blocks: BlockRange) -> tuple[FingerprintPart, list[RowHashes]]:
        hashes: list[RowHashes] = []
        return hash_range(source, blocks, hasher, hashes.append, known=known), hashes

    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(work, blocks) for blocks in ranges[: threads + 1]]
        rest = iter(ranges[threads + 1 :])
        while waiting:
            yield waiting.pop(0).result()
            following = next(rest, None)
            if following is not None:
                waiting.append(pool.submit(work, following))


def fingerprint(
    data: Any,
    *,
    set_root: bool = True,
    threads: int = 1,
    base: str | None = None,
    tenant: str | None = None,
    home: Any = None,
) -> Fingerprint:
    """The ``dg1`` fingerprint of ``data``: a path or URL, or a table or dataset in memory.

    Without ``set_root`` (the order-independent root) it takes about half the time. ``base`` names a
    registered version that ``data`` grew from: blocks in files whose bytes are the registered ones are not
    read again; there is a set root then only if all its files are still there. Raises UserError; with
    ``base`` also Denied and Tampered.
    """
    source = open_source(data)
    if base is None:
        return identify(source, set_root=set_root, threads=threads).fingerprint
    from dataset_guard.sidecars.known import known_of_base

    known = known_of_base(source, base, set_root=set_root, tenant=tenant, home=home)
    can = set_root and (known is None or known.rows is not None)
    return identify(source, set_root=can, threads=threads, known=known).fingerprint


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system
