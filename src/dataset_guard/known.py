"""Blocks that need no reading, because a registered version's signed leaves hold for them.

A leaf holds for a block when every row of the block lies in files whose bytes are the registered ones (by
BLAKE3, never by name, size or time) at the same place in the row order. So after an append only the tail is
read, and when one file of many has changed, only the blocks that touch it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dataset_guard.canonical import canonical_schema
from dataset_guard.fingerprint import BLOCK_ROWS, FingerprintPart, Leaves
from dataset_guard.identity import BlockRange
from dataset_guard.manifest import FileEntry, manifest_of

if TYPE_CHECKING:
    from dataset_guard.reading import Source
    from dataset_guard.reference import Reference


@dataclass(frozen=True, slots=True)
class KnownBlocks:
    """``mask`` says for each block of the data at hand whether ``leaves`` (at the same place) hold for it."""

    mask: npt.NDArray[np.bool_]
    leaves: Leaves

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
    """What ``reference`` knows of ``source``, whose manifest is ``entries``; None when that is nothing."""
    columns = [(c.name, c.type) for c in canonical_schema(source.schema)]
    if source.num_rows is None or columns != list(reference.columns):
        return None
    registered: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    at = 0
    for entry in reference.manifest:
        registered[entry.blake3].append((at, entry.rows))
        at += entry.rows
    spans, at = [], 0
    for entry in entries:
        if (at, entry.rows) in registered[entry.blake3]:
            spans.append((at, at + entry.rows))
        at += entry.rows
    signed = int(reference.record["content"]["rows"])
    blocks = -(-source.num_rows // BLOCK_ROWS)
    mask = np.zeros(blocks, np.bool_)
    for start, stop in _joined(spans):
        first = -(-start // BLOCK_ROWS)
        # A block that is not full holds only where both tables end.
        last = -(-stop // BLOCK_ROWS) if stop == source.num_rows == signed else stop // BLOCK_ROWS
        mask[first:last] = True
    return KnownBlocks(mask, reference.leaves()) if mask.any() else None


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
    source: Source, base: str, *, tenant: str | None = None, home: Any = None
) -> KnownBlocks | None:
    """What the version ``base`` knows of ``source``, after every file of it was hashed.

    Raises UserError when there is no such version, Denied for another tenant's, Tampered.
    """
    from dataset_guard.caller import caller_of, opened_home
    from dataset_guard.registry import Registry

    with opened_home(home) as opened:
        owner = caller_of(opened, base, tenant=tenant).tenant
        reference = Registry(opened).reference(base, tenant=owner)
        return known_blocks(reference, source, manifest_of(source))
