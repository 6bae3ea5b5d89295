"""What checks for triggers in images share: labelled pixels, and samples within a budget of pixel values."""

from __future__ import annotations

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.poisoning.pixel_columns import PixelColumns, find_pixels
from dataset_guard.checks.poisoning.sampled_state import SampledState, without_classes

_PIXELS_UNKNOWN = 1_024
"""Pixels an image is taken to have where the schema does not say."""


def labelled_pixels(context: CheckContext) -> tuple[PixelColumns | None, str]:
    """The images of a labelled set, or why there are none."""
    reason = without_classes(context)
    if reason is not None:
        return None, reason
    return find_pixels(context.schema, context.label)


class ImageState(SampledState):
    """Two samples of at most ``max_rows`` images, and ``max_values`` pixel values, each."""

    def __init__(self, context: CheckContext, max_rows: int, max_values: int) -> None:
        pixels, _ = find_pixels(context.schema, context.label)
        assert pixels is not None
        self._pixels: PixelColumns = pixels
        budget = max(1, min(max_rows, max_values // (pixels.pixels or _PIXELS_UNKNOWN)))
        super().__init__(context, pixels.columns, budget)
