"""A trigger stamped on images: the same few pixels in many rows of one class.

With a trusted version the rows that are new since then are searched, and the trusted rows say what to
expect. Without one, all rows are searched, and the rest of each image says what to expect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.base import CheckContext, ClassIndex, Need, counted
from dataset_guard.checks.poisoning.delta_samples import Sampled
from dataset_guard.checks.poisoning.image_state import NO_PICTURES, ImageState, labelled_pixels, pictured
from dataset_guard.checks.poisoning.patch_context import search_whole
from dataset_guard.checks.poisoning.patch_search import (
    LEVELS,
    Ints,
    Patch,
    quantise,
    search_delta,
    value_range,
)
from dataset_guard.scanning.profile import plain
from guard_core.findings import Finding, RowSet, Severity

Pixels = npt.NDArray[np.float32]

Images = tuple[Ints, Pixels, Any]
"""Row numbers, pixels as float32 of shape (rows, pixels), labels as an Arrow array."""

_ENOUGH_TRUSTED = 200
_MOST_COUNTERS = 32_000_000


@dataclass(frozen=True, slots=True)
class TriggerPatch:
    """POIS010: rows that carry a patch of pixels, concentrated on one class.

    At most ``max_rows`` changed rows, and as many trusted ones, or ``max_values`` pixel values of each,
    are searched (a sample beyond that, which the finding says). ``rounds`` pretended honest updates, or
    shuffles of the labels, set the limit, which a patch exceeds ``margin`` times. ``purity`` is the least
    share of its rows in one class, ``max_fdr`` the largest expected share of accidental rows.
    ``whole_rows`` rows are compared pairwise when there is no trusted version. From ``critical_rows`` rows
    on a finding is critical.
    """

    max_rows: int = 20_000
    max_values: int = 8_000_000
    whole_rows: int = 3_000
    rounds: int = 40
    margin: float = 1.5
    purity: float = 0.6
    max_fdr: float = 0.1
    critical_rows: int = 5

    name: ClassVar[str] = "trigger_patch"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS010",)
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Only to labelled images."""
        pixels, reason = labelled_pixels(context)
        return None if pixels is not None else reason

    def start(self, context: CheckContext) -> PatchState:
        """Empty samples."""
        return PatchState(self, context)


class PatchState(ImageState):
    """Two samples of images within the check's budget."""

    def __init__(self, check: TriggerPatch, context: CheckContext) -> None:
        super().__init__(context, check.max_rows, check.max_values)
        self._check = check
        self._mode = ""

    def finish(self) -> Iterator[Finding]:
        """One finding per patch."""
        searched = self._images(self._samples.new())
        if self.skipped is not None or searched is None or not len(searched[0]):
            return
        trusted = None if self._context.baseline is None else self._trusted()
        if self.skipped is not None:
            return
        rows, pixels, labels = searched
        shown = [labels, *([trusted[2]] if trusted else [])]
        index = ClassIndex(v for array in shown for v in array.unique().to_pylist())
        if len(index) < 2 or len(index) * pixels.shape[1] * LEVELS > _MOST_COUNTERS:
            self.skipped = f"the label {self._label!r} has {counted(len(index), 'class', 'classes')}"
            return
        classes = index.codes(labels)
        kept = np.flatnonzero((classes >= 0) & pictured(pixels))
        patches = self._search(pixels[kept], classes[kept], trusted, index)
        for patch in patches:
            if patch.fdr <= self._check.max_fdr:
                yield self._finding(patch, rows[kept])

    def _search(
        self, pixels: Pixels, classes: Ints, trusted: Images | None, index: ClassIndex
    ) -> list[Patch]:
        """Against trusted rows where they can judge, else against the rest of each image."""
        check, seed = self._check, self._context.seed
        if trusted is not None:
            before = index.codes(trusted[2])
            kept = np.flatnonzero((before >= 0) & pictured(trusted[1]))
            low, high = value_range(trusted[1])
            found = search_delta(
                quantise(trusted[1][kept], low, high), before[kept], quantise(pixels, low, high), classes,
                len(index), rounds=check.rounds, margin=check.margin, purity=check.purity, seed=seed,
            )  # fmt: skip
            if found is not None:
                self._mode = "delta"
                return found
        self._mode = "whole set"
        codes = quantise(pixels, *value_range(pixels))
        return search_whole(
            codes, classes, len(index), searched=check.whole_rows, rounds=check.rounds,
            margin=check.margin, purity=check.purity, seed=seed,
        )  # fmt: skip

    def _images(self, sampled: Sampled) -> Images | None:
        rows, table = sampled
        pixels = self._pixels.read(table)
        if pixels is None:
            self.skipped = f"the lists in {self._pixels.columns[0]!r} differ in length, so they are no images"
            return None
        if len(rows) and not pictured(pixels).any():
            self.skipped = NO_PICTURES.format(self._pixels.columns[0])
            return None
        return rows, pixels, plain(table.column(self._label))

    def _trusted(self) -> Images | None:
        """Rows of this set that did not change, else the trusted version's own, if its data is there."""
        known = self._images(self._samples.unchanged())
        baseline = self._context.baseline
        assert baseline is not None
        if known is None or len(known[0]) >= _ENOUGH_TRUSTED:
            return known
        source = baseline.open()
        columns = [*self._pixels.columns, self._label]
        if source is None or not set(columns) <= set(source.schema.names):
            return known if len(known[0]) else None
        return self._images(self._samples.of(source))

    def _finding(self, patch: Patch, rows: Ints) -> Finding:
        delta = self._mode == "delta"
        trusted = self._context.baseline
        since = f", new since {trusted.ref}," if delta and trusted else ""
        peers = "trusted rows" if delta else "images like them"
        found = rows[patch.rows]
        critical = len(found) >= self._check.critical_rows and (delta or patch.strength > 2 * patch.limit)
        return Finding(
            rule_id="POIS010",
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            message=f"{counted(len(found), 'row')}{since} share {counted(len(patch.pixels), 'pixel')} that "
            f"{peers} hardly ever have, and {patch.purity:.0%} of them are in class {patch.target}: "
            "this may be the trigger of a backdoor.",
            columns=self._pixels.names(patch.pixels)[:64],
            rows=RowSet.of(found.tolist()),
            score=round(patch.strength, 3),
            fdr=round(patch.fdr, 6),
            action="Look at the rows; leave them out or take their trusted version before training.",
            evidence={
                "mode": self._mode,
                "target_class": patch.target,
                "share_in_target_class": round(patch.purity, 4),
                "patch_pixels": patch.pixels[:64].tolist(),
                "limit_from_honest_rows": round(patch.limit, 3),
                "p_value": round(patch.p_value, 4),
                "rows_searched": len(rows),
                "rows_to_search": self._samples.offered,
            },
        )


CHECK = TriggerPatch()
