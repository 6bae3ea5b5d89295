"""A small patch stamped on images, at a place of its own in each: windows of pixels that share a label.

The located search (:mod:`~dataset_guard.checks.poisoning.trigger_patch`) looks at one place at a time, and
misses it. Here an image is the set of its small windows, and the search is the one for words in texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from dataset_guard.checks.base import CheckContext, Need, Rows, counted
from dataset_guard.checks.poisoning.image_state import ImageState, labelled_pixels
from dataset_guard.checks.poisoning.patch_search import value_range
from dataset_guard.checks.poisoning.patch_words import OWN, windows_of
from dataset_guard.checks.poisoning.text_trigger_search import search_whole
from dataset_guard.checks.poisoning.text_trigger_update import search_delta
from dataset_guard.checks.poisoning.triggers import LEAST_ROWS, Trigger
from guard_core.findings import Finding, RowSet, Severity

_LEAST_IMAGES = 8
"""Four shirts with one print are no trigger; so many new images with one detail may be."""
_LEAST_SIDE = 12
"""In smaller images a window is no detail any more."""


@dataclass(frozen=True, slots=True)
class RoamingPatch:
    """POIS013: images of one class that hold the same small windows of pixels, wherever.

    At most ``max_rows`` images and ``max_values`` pixel values are searched, and as many trusted ones.
    ``limit`` is the least strength without a trusted version; with one, ``rounds`` pretended honest updates
    set it, times ``margin``. From ``critical_rows`` rows on a finding is critical.
    """

    max_rows: int = 6_000
    max_values: int = 6_000_000
    limit: float = 40.0
    rounds: int = 6
    margin: float = 2.0
    critical_rows: int = 5
    max_classes: int = 200

    name: ClassVar[str] = "roaming_patch"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS013",)
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Only to labelled images of some size."""
        pixels, reason = labelled_pixels(context)
        if pixels is None:
            return reason
        if pixels.pixels is not None and pixels.pixels < _LEAST_SIDE**2:
            return f"images of fewer than {_LEAST_SIDE} x {_LEAST_SIDE} pixels have no small details"
        return None

    def start(self, context: CheckContext) -> RoamingState:
        """Empty samples."""
        return RoamingState(self, context)


class RoamingState(ImageState):
    """Two samples of images within the check's budget."""

    def __init__(self, check: RoamingPatch, context: CheckContext) -> None:
        super().__init__(context, check.max_rows, check.max_values)
        self._check = check

    def finish(self) -> Iterator[Finding]:
        """One finding per patch."""
        seen = self._labelled(most=self._check.max_classes, least_pixels=_LEAST_SIDE**2)
        if seen is None:
            return
        low, high = value_range(seen.pixels, seen.trusted)
        searched = windows_of(seen.pixels, low, high, LEAST_ROWS)
        if self._context.baseline is not None:
            found = search_delta(
                windows_of(seen.trusted, low, high, 2), seen.trusted_codes, searched, seen.codes,
                seen.classes, rounds=self._check.rounds, margin=self._check.margin, seed=self._context.seed,
                texts=False, least_rows=_LEAST_IMAGES,
            )  # fmt: skip
        else:
            found = search_whole(searched, seen.codes, seen.classes, limit=self._check.limit, own=OWN)
        for trigger in found[:4]:
            yield self._finding(trigger, seen.rows)

    def _finding(self, trigger: Trigger, rows: Rows) -> Finding:
        found = rows[trigger.rows]
        trusted = self._context.baseline
        since = "" if trusted is None else f", new since {trusted.ref},"
        reason = (
            "which nothing else in them explains" if trusted is None else "which trusted images hardly have"
        )
        critical = len(found) >= self._check.critical_rows
        return Finding(
            rule_id="POIS013",
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            message=f"{counted(len(found), 'image')} of class {trigger.target}{since} share a small detail, "
            f"at whatever place, {reason}: this may be the trigger of a backdoor.",
            columns=self._pixels.columns[:64],
            rows=RowSet.of(found.tolist()),
            score=round(trigger.strength, 3),
            action="Look at the images; leave them out or take their trusted version before training.",
            evidence={
                "mode": "whole set" if trusted is None else "delta",
                "target_class": trigger.target,
                "share_in_target_class": round(trigger.purity, 4),
                "limit": round(trigger.limit, 3),
                "windows": trigger.sequences,
                "rows_searched": len(rows),
                "rows_to_search": self._samples.offered,
            },
        )


CHECK = RoamingPatch()
"""The check that the entry point names."""
