"""Pictures as small grey thumbnails, and what makes two of them the same picture. Pure functions.

Descriptors: histograms of oriented gradients (Dalal and Triggs 2005) in 8 x 8 cells and 6 directions, and the
63 lowest frequencies of a cosine transform, above or below their median ("pHash", Zauner 2010). A mirrored
picture's gradients are those of the picture with cells and directions swapped; its pHash is made anew.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

SIDE = 32
CELLS, DIRECTIONS = 8, 6
FREQUENCIES = 8
_NOISE = 0.05  # differences of two pixels that compression and sensors make
Pictures = npt.NDArray[np.float32]
"""Shape (pictures, 32, 32), 0 to 1."""


@lru_cache(maxsize=64)
def resizing(side: int) -> Pictures:
    """The matrix (32, side) that averages where a picture is larger and interpolates where it is smaller."""
    out = np.zeros((SIDE, side), np.float32)
    scale = side / SIDE
    if scale >= 1:
        edges = np.arange(SIDE + 1) * scale
        for i in range(SIDE):
            low, high = edges[i], edges[i + 1]
            for j in range(int(low), min(side, math.ceil(high))):
                out[i, j] = max(0.0, min(high, j + 1) - max(low, j))
    else:
        at = np.clip((np.arange(SIDE) + 0.5) * scale - 0.5, 0, side - 1)
        left = np.floor(at).astype(int)
        right = np.minimum(left + 1, side - 1)
        out[np.arange(SIDE), left] += (1 - (at - left)).astype(np.float32)
        out[np.arange(SIDE), right] += (at - left).astype(np.float32)
    return np.asarray(out / out.sum(axis=1, keepdims=True), np.float32)


def thumbnails(images: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Grey pictures (n, height, width) of any range as (n, 32, 32) bytes, each stretched to its own range."""
    small = resizing(images.shape[1]) @ np.nan_to_num(images) @ resizing(images.shape[2]).T
    low = small.min(axis=(1, 2), keepdims=True)
    spread = np.maximum(small.max(axis=(1, 2), keepdims=True) - low, 1e-6)
    return np.asarray(((small - low) / spread * 255).round(), np.uint8)


def gradients(pictures: Pictures) -> Pictures:
    """HOG descriptors of unit length, shape (n, 384); of a picture without any edge, zeros."""
    n = len(pictures)
    across, down = np.zeros_like(pictures), np.zeros_like(pictures)
    across[:, :, 1:-1] = pictures[:, :, 2:] - pictures[:, :, :-2]
    down[:, 1:-1] = pictures[:, 2:] - pictures[:, :-2]
    strength = np.maximum(np.hypot(across, down) - _NOISE, 0)
    turn = np.mod(np.arctan2(down, across), np.pi) * (DIRECTIONS / np.pi)
    direction = np.minimum(turn.astype(np.int64), DIRECTIONS - 1)
    size = SIDE // CELLS
    cell = (np.arange(SIDE) // size)[:, None] * CELLS + (np.arange(SIDE) // size)[None, :]
    place = (np.arange(n)[:, None, None] * CELLS**2 + cell) * DIRECTIONS + direction
    found = np.bincount(place.ravel(), strength.ravel(), n * CELLS**2 * DIRECTIONS)
    hog = np.sqrt(found.reshape(n, -1).astype(np.float32))
    return np.asarray(hog / np.maximum(np.linalg.norm(hog, axis=1, keepdims=True), 1e-6))


@lru_cache(maxsize=1)
def mirrored_order() -> npt.NDArray[np.int64]:
    """Where each value of a HOG descriptor stands in the mirrored picture's."""
    row, column, direction = np.meshgrid(range(CELLS), range(CELLS), range(DIRECTIONS), indexing="ij")
    return np.asarray((row * CELLS + CELLS - 1 - column) * DIRECTIONS + DIRECTIONS - 1 - direction).ravel()


@lru_cache(maxsize=1)
def _cosines() -> Pictures:
    """The 8 lowest frequencies of the cosine transform (DCT-II) of 32 values, shape (8, 32)."""
    at, frequency = np.arange(SIDE), np.arange(FREQUENCIES)[:, None]
    return np.cos(np.pi * (at + 0.5) * frequency / SIDE).astype(np.float32)


def phashes(pictures: Pictures) -> Pictures:
    """The perceptual hash of each picture as 63 signs (-1, 1), shape (n, 63): above or below the median.

    The product of two of them is 63 less twice the bits in which they differ.
    """
    lowest = (_cosines() @ pictures @ _cosines().T).reshape(len(pictures), -1)[:, 1:]
    above = lowest > np.median(lowest, axis=1, keepdims=True)
    return np.where(above, 1.0, -1.0).astype(np.float32)


def correlation(one: Pictures, two: Pictures, shift: int = 0) -> npt.NDArray[np.float32]:
    """Pearson's correlation of the pixels of pairs of pictures, the best of shifts by at most ``shift``."""
    best = np.full(len(one), -1.0, np.float32)
    for down in range(-shift, shift + 1):
        for across in range(-shift, shift + 1):
            a = one[:, max(0, down) : SIDE + min(0, down), max(0, across) : SIDE + min(0, across)]
            b = two[:, max(0, -down) : SIDE + min(0, -down), max(0, -across) : SIDE + min(0, -across)]
            a = a - a.mean(axis=(1, 2), keepdims=True)
            b = b - b.mean(axis=(1, 2), keepdims=True)
            both = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
            best = np.maximum(best, (a * b).sum(axis=(1, 2)) / np.maximum(both, 1e-9))
    return best
