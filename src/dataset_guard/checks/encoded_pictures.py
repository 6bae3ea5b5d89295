"""Encoded pictures (PNG, JPEG, ...) in a binary column, opened as grey pixels. Needs Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.checks.leakage.columns import plain_type
from dataset_guard.checks.leakage.image_descriptors import SIDE, resizing
from dataset_guard.scanning.profile import plain

NO_PILLOW = "encoded images need Pillow, which is not installed"
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_DRAFT = 2 * SIDE


def encoded_columns(schema: pa.Schema, label: str | None = None) -> list[str]:
    """Binary columns: their first values say whether they hold pictures."""
    kinds = (pt.is_binary, pt.is_large_binary)
    return [f.name for f in schema if f.name != label and any(kind(plain_type(f.type)) for kind in kinds)]


def can_open() -> bool:
    """Whether Pillow is installed."""
    return find_spec("PIL") is not None


def grey(value: bytes | None) -> npt.NDArray[np.float32] | None:
    """The picture in ``value``, shape (height, width), 0 to 255; None when it is none or broken.

    A JPEG is decoded no larger than thumbnails need.
    """
    from PIL import Image

    if value is None or not value.startswith(_MAGIC):
        return None
    try:
        with Image.open(io.BytesIO(value)) as image:
            image.draft("L", (_DRAFT, _DRAFT))
            return np.asarray(image.convert("L"), np.float32)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def square(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """``picture`` as (32, 32) bytes: averaged where it is larger, else its own pixels, the last repeated.

    So what is stamped on small pictures keeps its pixels, and pictures of several sizes can be compared.
    """
    height, width = picture.shape
    if height > SIDE or width > SIDE:
        return np.asarray((resizing(height) @ picture @ resizing(width).T).round(), np.uint8)
    return np.pad(picture, ((0, SIDE - height), (0, SIDE - width)), mode="edge").astype(np.uint8)


def opened(batch: pa.RecordBatch, column: str) -> pa.RecordBatch:
    """``batch`` with its pictures in ``column`` as lists of 1,024 numbers; null where there is no picture."""
    values = plain(batch.column(column)).to_pylist()
    pixels = np.zeros((len(values), SIDE * SIDE), np.uint8)
    known = np.zeros(len(values), bool)
    for row, value in enumerate(values):
        picture = grey(value)
        if picture is not None:
            pixels[row], known[row] = square(picture).ravel(), True
    lists = pa.FixedSizeListArray.from_arrays(pixels.ravel(), SIDE * SIDE, mask=pa.array(~known))
    at = batch.schema.get_field_index(column)
    return batch.set_column(at, pa.field(column, lists.type), lists)


def opening(column: str | None) -> Callable[[pa.RecordBatch], pa.RecordBatch] | None:
    """:func:`opened` for a sample of rows to be held so; None without a ``column`` of pictures."""
    return None if column is None else partial(opened, column=column)
