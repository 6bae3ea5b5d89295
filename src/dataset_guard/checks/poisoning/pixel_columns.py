"""Which columns hold images: ``pixel_0 .. pixel_63``, or a list with as many numbers in every row."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.scanning.profile import plain

_NAME = re.compile(r"^(.*?)(\d+)$", re.DOTALL)
SMALLEST = 16  # 4 x 4: below that, a "patch" is most of the image
LIKE_A_TABLE = 36  # 6 x 6: so few numbered columns may as well be measurements
_NO_PIXELS = (
    "no columns look like pixels (name and number, a square count of at least 16), and none holds pictures"
)


@dataclass(frozen=True, slots=True)
class PixelColumns:
    """The columns of one image per row, in pixel order; ``listed`` when it is one list column."""

    columns: tuple[str, ...]
    listed: bool
    pixels: int | None
    """Numbers per image; None for lists of open length, until the first row is seen."""
    encoded: bool = False
    """Files of pictures: whoever reads them has them opened as lists first (:mod:`encoded_pictures`)."""

    @property
    def perhaps_a_table(self) -> bool:
        """Whether these may be numbered columns of a table."""
        return not self.listed and len(self.columns) <= LIKE_A_TABLE

    def read(self, table: pa.Table | pa.RecordBatch) -> npt.NDArray[np.float32] | None:
        """Shape (rows, pixels), missing values as NaN; None when list lengths differ between rows."""
        if self.listed:
            return _lists(plain(table.column(self.columns[0])), self.pixels)
        out = np.empty((table.num_rows, len(self.columns)), np.float32)
        for i, name in enumerate(self.columns):
            out[:, i] = _numbers(plain(table.column(name)))
        return out

    def names(self, positions: npt.NDArray[np.int64]) -> tuple[str, ...]:
        """The columns of the pixels at ``positions``."""
        return self.columns if self.listed else tuple(self.columns[i] for i in positions)


def find_pixels(schema: pa.Schema, label: str | None) -> tuple[PixelColumns | None, str]:
    """The largest family of pixel columns, or why there is none.

    A family is a common name and the numbers n .. n + count - 1, all numeric, where count is a square. A
    list column counts when its values are numbers (fixed-size lists in fixed-size lists are flattened).
    """
    families: dict[str, dict[int, str]] = {}
    lists = []
    for field in schema:
        if field.name == label:
            continue
        kind = _storage(field.type)
        match = _NAME.match(field.name)
        if match and _is_number(kind):
            families.setdefault(match[1], {})[int(match[2])] = field.name
        size = _list_size(kind)
        if size is not None and (size == 0 or (size >= SMALLEST and _is_square(size))):
            lists.append(PixelColumns((field.name,), listed=True, pixels=size or None))
    best: PixelColumns | None = None
    for members in families.values():
        numbers = sorted(members)
        whole = numbers[-1] - numbers[0] + 1 == len(numbers)
        if whole and len(numbers) >= SMALLEST and _is_square(len(numbers)):
            found = PixelColumns(tuple(members[i] for i in numbers), listed=False, pixels=len(numbers))
            if best is None or len(numbers) > len(best.columns):
                best = found
    best = best or (lists[0] if lists else None)
    return best, "" if best else _NO_PIXELS


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind))


def _storage(kind: pa.DataType) -> pa.DataType:
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind


def _list_size(kind: pa.DataType) -> int | None:
    """Numbers per row of a list type: 0 when its length is open, None when it holds no numbers."""
    size = 1
    while pt.is_fixed_size_list(kind):
        size *= kind.list_size
        kind = kind.value_type
    if pt.is_list(kind) or pt.is_large_list(kind):
        return 0 if size == 1 and _is_number(kind.value_type) else None
    return size if size > 1 and _is_number(kind) else None


def _numbers(array: Any) -> npt.NDArray[np.float32]:
    # A NaN for null needs a float first: integers have none.
    filled = array.cast(pa.float32(), safe=False).fill_null(float("nan")) if array.null_count else array
    return np.asarray(filled).astype(np.float32, copy=False)


def _lists(array: Any, pixels: int | None) -> npt.NDArray[np.float32] | None:
    rows = len(array)
    known = np.asarray(array.is_valid())
    while not _is_number(array.type):
        array = array.flatten()  # leaves out null lists, and honours slices
    values = _numbers(array)
    size = pixels or (len(values) // int(known.sum()) if known.any() else 0)
    if size * int(known.sum()) != len(values):
        return None
    out = np.full((rows, size), np.nan, np.float32)
    out[known] = values.reshape(-1, size) if size else 0
    return out
