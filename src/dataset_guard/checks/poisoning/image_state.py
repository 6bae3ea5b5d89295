"""What checks for triggers in images share: labelled pixels, and samples within a budget of pixel values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.base import CheckContext, Rows
from dataset_guard.checks.encoded_pictures import NO_PILLOW, can_open, encoded_columns
from dataset_guard.checks.leakage.image_descriptors import SIDE
from dataset_guard.checks.poisoning.pixel_columns import PixelColumns, find_pixels
from dataset_guard.checks.poisoning.sampled_state import ENOUGH_TRUSTED, SampledState, without_classes

NO_PICTURES = "no row of {!r} holds a picture that could be opened"
_PIXELS_UNKNOWN = 1_024
"""Pixels an image is taken to have where the schema does not say."""


def labelled_pixels(context: CheckContext) -> tuple[PixelColumns | None, str]:
    """The images of a labelled set, or why there are none."""
    reason = without_classes(context)
    if reason is not None:
        return None, reason
    pixels, reason = find_pixels(context.schema, context.label)
    if pixels is not None or not encoded_columns(context.schema, context.label):
        return pixels, reason
    name = pictures_of(context)
    if name is None:
        return None, NO_PILLOW
    return PixelColumns((name,), listed=True, pixels=SIDE * SIDE, encoded=True), ""


def pictures_of(context: CheckContext) -> str | None:
    """The column of encoded pictures to open where no others hold their pixels; None if there is none."""
    encoded = encoded_columns(context.schema, context.label)
    if not encoded or not can_open() or find_pixels(context.schema, context.label)[0] is not None:
        return None
    return encoded[0]


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Sampled images whose class is known: numbers of their ``rows``, pixels (rows, pixels) and class codes.

    ``trusted`` and ``trusted_codes`` are those of the trusted version, without rows where there is none.
    """

    rows: Rows
    pixels: npt.NDArray[np.float32]
    codes: Rows
    trusted: npt.NDArray[np.float32]
    trusted_codes: Rows
    classes: int


class ImageState(SampledState):
    """Two samples of at most ``max_rows`` images, and ``max_values`` pixel values, each."""

    def __init__(self, context: CheckContext, max_rows: int, max_values: int) -> None:
        pixels, _ = labelled_pixels(context)
        assert pixels is not None
        self._pixels: PixelColumns = pixels
        budget = max(1, min(max_rows, max_values // (pixels.pixels or _PIXELS_UNKNOWN)))
        super().__init__(
            context, pixels.columns, budget, pictures=pixels.columns[0] if pixels.encoded else None
        )

    def _labelled(self, *, most: int, least_pixels: int = 1) -> LabelledImages | None:
        """What was sampled; None, and skipped, where it is too little, of several sizes or of one class."""
        rows, table = self._samples.new()
        known = self._samples.trusted(ENOUGH_TRUSTED)
        if self._context.baseline is not None and not self._enough(len(rows), known.num_rows, "image"):
            return None
        images, trusted = self._pixels.read(table), self._pixels.read(known)
        if images is None or trusted is None or images.shape[1] < least_pixels:
            self.skipped = f"the lists in {self._pixels.columns[0]!r} are no images of one size"
            return None
        classes = self._classes(table, known, most=most)
        if classes is None:
            return None
        number, (codes, before) = classes
        if not pictured(images).any():
            self.skipped = NO_PICTURES.format(self._pixels.columns[0])
            return None
        kept, kept_before = (codes >= 0) & pictured(images), (before >= 0) & pictured(trusted)
        return LabelledImages(
            rows[kept], images[kept], codes[kept], trusted[kept_before], before[kept_before], number
        )


def pictured(images: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which rows are images: not those without any pixel, as a missing or broken picture."""
    return np.asarray(~np.isnan(images).all(axis=1))
