"""Images as sets of small windows, wherever they lie: the search for words in texts can search them.

A window of 3 x 3 pixels is taken as its steps above its darkest pixel, in eighths of the value range: a
patch that is stamped at another place of each image, or on a brighter one, leaves the same windows. Flat
windows say nothing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.poisoning.ngrams import Incidence, Keys, incidence

SIDE = 3
LEVELS = 8
OWN = 0.5
"""A window half of whose images carry the patch is a part of it with some of its surroundings."""
LEAST_STEP = 3
"""A window whose brightest pixel is fewer steps above its darkest one is flat."""


def windows_of(pixels: npt.NDArray[np.float32], low: float, high: float, least: int) -> Incidence:
    """Which images hold which windows; ``pixels`` of shape (rows, square). Only windows of ``least`` rows."""
    rows = len(pixels)
    side = math.isqrt(pixels.shape[1])
    scale = LEVELS / ((high - low) or 1.0)
    levels = np.clip(np.nan_to_num((pixels - low) * scale), 0, LEVELS - 1).astype(np.uint8)
    images = levels.reshape(rows, side, side)
    keys: list[Keys] = []
    owners: list[npt.NDArray[np.int32]] = []
    step = max(1, (2 << 20) // max(1, side * side))
    for start in range(0, rows, step):
        part = images[start : start + step]
        stack = np.lib.stride_tricks.sliding_window_view(part, (SIDE, SIDE), axis=(1, 2))
        flat = stack.reshape(len(part), -1, SIDE * SIDE).astype(np.uint64)
        flat -= flat.min(axis=2, keepdims=True)
        telling = flat.max(axis=2) >= LEAST_STEP
        # Three bits a pixel, above those that say what kind of thing a key is: single ones.
        code = (flat << (np.arange(SIDE * SIDE, dtype=np.uint64) * np.uint64(3) + np.uint64(3))).sum(axis=2)
        image, _ = np.nonzero(telling)
        keys.append(code[telling])
        owners.append((start + image).astype(np.int32))
    found = incidence(np.concatenate(keys), np.concatenate(owners), rows)
    return found.chosen(found.frequency >= least)
