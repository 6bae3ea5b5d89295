"""Pictures that are nearly another row's: re-encoded, rescaled, brightened, shifted a little or mirrored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need, Reference, Rows, counted, set_name
from dataset_guard.checks.encoded_pictures import NO_PILLOW, can_open, encoded_columns, grey
from dataset_guard.checks.leakage.chance import chance_of, group_sizes
from dataset_guard.checks.poisoning.pixel_columns import find_pixels
from dataset_guard.checks.sampling import RowSample
from dataset_guard.scanning.profile import plain
from guard_core.findings import Finding, RowSet, Severity

_THUMBS = pa.schema([("thumb", pa.binary(1024))])
_BLOCK = 1_024
_SMALLEST_SIDE = 16  # in fewer pixels two drawings of one digit are as alike as copies
_WORTH_SHIFTING = 0.85  # correlation below which a shift by one pixel makes no copy


@dataclass(frozen=True, slots=True)
class NearDuplicateImage:
    """LEAK005: pictures with the same edges or frequencies and the same pixels, mirrored or not.

    Pictures are pixel columns, lists of numbers, or encoded files (binary; needs Pillow). A pair needs a
    cosine of its gradient histograms of at least ``cosine``, or perceptual hashes that differ in at most
    ``bits`` of 63 bits, and a correlation of its pixels (shifted by at most one) of at least
    ``correlation``. Of each set, ``row_budget`` pictures are compared.
    """

    cosine: float = 0.87
    bits: int = 6
    correlation: float = 0.98
    row_budget: int = 8_000
    warning_share: float = 0.02
    chance_critical: float = 1e-3

    name: ClassVar[str] = "near_duplicate_image"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("LEAK005",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs pictures, and Pillow to open encoded ones."""
        pixels, why = find_pixels(context.schema, context.label)
        if pixels is not None:
            return None
        if not encoded_columns(context.schema):
            return why
        return None if can_open() else NO_PILLOW

    def start(self, context: CheckContext) -> ImageState:
        """No picture seen."""
        return ImageState(self, context)


class Pictures:
    """Thumbnails of a sample of rows. Memory: 1 KiB for each of at most twice ``budget`` pictures."""

    def __init__(self, schema: pa.Schema, label: str | None, budget: int, seed: int) -> None:
        self._pixels, _ = find_pixels(schema, label)
        self._encoded = [] if self._pixels else encoded_columns(schema)[:1]
        self.columns = self._pixels.columns if self._pixels else tuple(self._encoded)
        self._sample = RowSample(budget, seed)

    def update(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Make thumbnails of the rows that are pictures."""
        thumbs, rows = self._of_pixels(batch) if self._pixels else self._of_files(batch)
        if len(rows):
            raw = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(1024), len(thumbs), [None, pa.py_buffer(np.ascontiguousarray(thumbs))]
            )
            self._sample.update(pa.record_batch([raw], schema=_THUMBS), rows + first_row)

    def _of_pixels(self, batch: pa.RecordBatch) -> tuple[npt.NDArray[np.uint8], Rows]:
        from dataset_guard.checks.leakage.image_descriptors import thumbnails

        assert self._pixels is not None
        values = self._pixels.read(batch)
        side = 0 if values is None else math.isqrt(values.shape[1])
        if values is None or side * side != values.shape[1] or side < _SMALLEST_SIDE:
            return np.empty((0, 32, 32), np.uint8), np.empty(0, np.int64)
        whole = np.flatnonzero(np.isfinite(values).all(axis=1))
        parts = [
            thumbnails(values[whole[i : i + _BLOCK]].reshape(-1, side, side))
            for i in range(0, len(whole), _BLOCK)
        ]
        return np.concatenate(parts) if parts else np.empty((0, 32, 32), np.uint8), whole

    def _of_files(self, batch: pa.RecordBatch) -> tuple[npt.NDArray[np.uint8], Rows]:
        from dataset_guard.checks.leakage.image_descriptors import thumbnails

        thumbs, rows = [], []
        for row, value in enumerate(
            plain(batch.column(self._encoded[0])).to_pylist() if self._encoded else []
        ):
            picture = grey(value)  # a broken picture is nobody's copy
            if picture is not None and min(picture.shape) >= _SMALLEST_SIDE:
                thumbs.append(thumbnails(picture[None])[0])
                rows.append(row)
        return np.array(thumbs, np.uint8).reshape(-1, 32, 32), np.array(rows, np.int64)

    def merge(self, other: Pictures) -> None:
        """Take in the pictures of other rows."""
        self._sample.merge(other._sample)

    def finish(self) -> tuple[Rows, npt.NDArray[np.float32]]:
        """Row numbers and pictures, by row."""
        rows, table = self._sample.finish(_THUMBS)
        raw = b"".join(table["thumb"].to_pylist())
        return rows, np.frombuffer(raw, np.uint8).reshape(-1, 32, 32).astype(np.float32) / np.float32(255)


class ImageState:
    """Memory: 1 KiB for each sampled picture (twice while reading), and 3 KiB when they are compared."""

    def __init__(self, check: NearDuplicateImage, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._pictures = Pictures(context.schema, context.label, check.row_budget, context.seed)
        self._rows = 0
        self.skipped: str | None = None

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Make thumbnails."""
        self._rows += batch.num_rows
        self._pictures.update(batch, first_row)

    def merge(self, other: ImageState) -> None:
        """Take in other rows."""
        self._rows += other._rows
        self._pictures.merge(other._pictures)

    def finish(self) -> Iterator[Finding]:
        """Within the set, then each set to compare with."""
        rows, pictures = self._pictures.finish()
        if not len(rows):
            self.skipped = "no row held a picture of at least 16 x 16 pixels that could be read"
            return
        one, two, flipped = pairs(pictures, pictures, self._check, within=True)
        first = _joined(len(rows), one, two)
        repeats = np.flatnonzero(first != np.arange(len(rows)))
        if len(repeats):
            yield self._within(rows, first, repeats, int(flipped.sum()))
        own = f"{self._context.tenant}/{self._context.name}"
        for reference in self._context.against:
            if set_name(reference) != own:
                yield from self._shared(reference, rows, pictures, first)

    def _within(self, rows: Rows, first: Rows, repeats: Rows, flipped: int) -> Finding:
        share = len(repeats) / len(rows)
        sizes = np.bincount(first)
        return Finding(
            rule_id="LEAK005",
            severity=Severity.WARNING if share >= self._check.warning_share else Severity.INFO,
            message=f"{counted(len(repeats), 'row holds', 'rows hold')} nearly the same picture as an "
            "earlier row.",
            columns=self._pictures.columns[:1],
            rows=RowSet.of(rows[repeats].tolist()),
            score=share,
            action="Keep one row of each group, or split the set so that a group stays on one side.",
            evidence={
                "groups": int((sizes > 1).sum()),
                "largest_group": int(sizes.max()),
                "mirrored_pairs": flipped,
                "compared_rows": len(rows),
                "sampled_share": round(len(rows) / max(1, self._rows), 6),
            },
        )

    def _shared(
        self, reference: Reference, rows: Rows, pictures: npt.NDArray[np.float32], first: Rows
    ) -> Iterator[Finding]:
        source = reference.open()
        if source is None or any(n not in source.schema.names for n in self._pictures.columns):
            return
        names = list(self._pictures.columns)
        schema = pa.schema([source.schema.field(n) for n in names])
        other = Pictures(schema, None, self._check.row_budget, self._context.seed)
        row = 0
        for batch in source.batches(columns=names, batch_rows=8_192):
            other.update(batch, row)
            row += batch.num_rows
        theirs, others = other.finish()
        one, two, flipped = pairs(pictures, others, self._check, within=False)
        found, at = np.unique(one, return_index=True)
        if not len(found):
            return
        chance = chance_of(group_sizes(first), len(np.unique(first[found])), len(theirs))
        same = self._context.split is not None and self._context.split == reference.split
        kind = f"the {reference.split} set" if reference.split else "the set"
        yield Finding(
            rule_id="LEAK005",
            severity=Severity.CRITICAL
            if chance < self._check.chance_critical and not same
            else Severity.WARNING,
            message=f"{counted(len(found), 'row holds', 'rows hold')} nearly the same picture as a row of "
            f"{kind} {reference.ref}.",
            columns=self._pictures.columns[:1],
            rows=RowSet.of(rows[found].tolist()),
            score=len(found) / len(rows),
            action=f"Remove the rows from this set (or from {reference.ref}) before training.",
            evidence={
                "reference": reference.ref,
                "pairs": [[int(rows[one[i]]), int(theirs[two[i]])] for i in at[:100]],
                "mirrored_pairs": int(flipped.sum()),
                "chance": chance,
                "compared_rows": [len(rows), len(theirs)],
            },
        )


def pairs(
    mine: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], check: NearDuplicateImage, *, within: bool
) -> tuple[Rows, Rows, npt.NDArray[np.bool_]]:
    """Verified pairs (one, two, mirrored); within a set ``one > two``, each pair once."""
    from dataset_guard.checks.leakage.image_descriptors import (
        correlation,
        gradients,
        mirrored_order,
        phashes,
    )

    a, b = gradients(mine), gradients(theirs)
    hashes = phashes(mine)
    found: list[tuple[Rows, Rows, npt.NDArray[np.bool_]]] = []
    for flipped in (False, True):
        right = b[:, mirrored_order()] if flipped else b
        others = phashes(theirs[:, :, ::-1] if flipped else theirs)
        for start in range(0, len(a), _BLOCK):
            stop = start + _BLOCK if within else len(right)
            near = a[start : start + _BLOCK] @ right[:stop].T >= check.cosine
            near |= hashes[start : start + _BLOCK] @ others[:stop].T >= hashes.shape[1] - 2 * check.bits
            one, two = np.nonzero(near)
            one += start
            keep = one > two if within else np.ones(len(one), bool)
            one, two = one[keep], two[keep]
            for part in range(0, len(one), 16_384):
                i, j = one[part : part + 16_384], two[part : part + 16_384]
                other = theirs[j][:, :, ::-1] if flipped else theirs[j]
                close = np.flatnonzero(correlation(mine[i], other) >= _WORTH_SHIFTING)
                true = close[correlation(mine[i[close]], other[close], 1) >= check.correlation]
                found.append((i[true], j[true], np.full(len(true), flipped)))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool)
    one, two, mirrored = (np.concatenate([f[k] for f in found]) for k in range(3))
    order = np.lexsort((mirrored, two, one))
    return one[order], two[order], mirrored[order]


def _joined(number: int, one: Rows, two: Rows) -> Rows:
    """For each picture the first of its group; groups are joined by verified pairs only."""
    parent = list(range(number))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in zip(one.tolist(), two.tolist(), strict=True):
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(number)], np.int64)


CHECK = NearDuplicateImage()
