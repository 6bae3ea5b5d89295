"""A picture blended into images of one class: a trigger that is everywhere in the image and hardly seen.

With a trusted version the rows that are new since then are searched, and the trusted rows say how images of a
class vary; without one, the other classes say it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dataset_guard.checks.base import CheckContext, Need, Rows, counted
from dataset_guard.checks.poisoning.blend_search import LEAST_IN_CLASS, Blend, search
from dataset_guard.checks.poisoning.image_state import ImageState, labelled_pixels
from guard_core.findings import Finding, RowSet, Severity


@dataclass(frozen=True, slots=True)
class BlendedImage:
    """POIS014: images of one class that are all moved by the same faint picture.

    At most ``max_rows`` images and ``max_values`` pixel values are searched, and as many trusted ones.
    ``limit`` is the least distance of the two clouds, in the sum of their standard deviations. From
    ``critical_rows`` rows on a finding is critical when it is also ``sure`` times the limit.
    """

    max_rows: int = 6_000
    max_values: int = 6_000_000
    limit: float = 4.0
    sure: float = 1.25
    critical_rows: int = 10
    max_classes: int = 200

    name: ClassVar[str] = "blended_image"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS014",)
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Only to labelled images."""
        pixels, reason = labelled_pixels(context)
        return None if pixels is not None else reason

    def start(self, context: CheckContext) -> BlendedState:
        """Empty samples."""
        return BlendedState(self, context)


class BlendedState(ImageState):
    """Two samples of images within the check's budget."""

    def __init__(self, check: BlendedImage, context: CheckContext) -> None:
        super().__init__(context, check.max_rows, check.max_values)
        self._check = check

    def finish(self) -> Iterator[Finding]:
        """One finding per class."""
        seen = self._labelled(most=self._check.max_classes)
        if seen is None:
            return
        if np.bincount(seen.codes, minlength=1).max() < LEAST_IN_CLASS:
            self.skipped = f"no class has {LEAST_IN_CLASS} images to look at"
            return
        delta = self._context.baseline is not None
        ordinary = (seen.trusted, seen.trusted_codes) if delta else None
        found = search(
            seen.pixels, seen.codes, seen.classes, ordinary, limit=self._check.limit, seed=self._context.seed
        )
        for blend in found[:4]:
            yield self._finding(blend, seen.rows)

    def _finding(self, blend: Blend, rows: Rows) -> Finding:
        found = rows[blend.rows]
        trusted = self._context.baseline
        since = "" if trusted is None else f", new since {trusted.ref},"
        sure = blend.strength >= self._check.sure * self._check.limit
        critical = sure and len(found) >= self._check.critical_rows
        return Finding(
            rule_id="POIS014",
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            message=f"{counted(len(found), 'image')} of class {blend.target}{since} stand apart from their "
            "class, all in the same way: a faint picture may have been blended into them.",
            columns=self._pixels.columns[:64],
            rows=RowSet.of(found.tolist()),
            score=round(blend.strength, 3),
            fdr=round(blend.fdr, 6),
            action="Subtract the mean of the class from the mean of these images and look at what is left.",
            evidence={
                "mode": "whole set" if trusted is None else "delta",
                "target_class": blend.target,
                "share_in_target_class": round(blend.purity, 4),
                "limit": self._check.limit,
                "rows_searched": len(rows),
                "rows_to_search": self._samples.offered,
            },
        )


CHECK = BlendedImage()
"""The check that the entry point names."""
